"""Pure geometry: cameras and crops."""
