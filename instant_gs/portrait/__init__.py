"""Pictures and videos of people: read, the face found, cut out upright, over black."""
