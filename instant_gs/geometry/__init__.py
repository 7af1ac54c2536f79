"""Pure geometry: cameras and rotations."""
