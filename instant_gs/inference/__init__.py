"""From a photo and a video to a moving head: the engine, animation and export."""
