"""Other teachers' videos to a teacher pack: found, cut out, with cameras, masks, coefficients."""
