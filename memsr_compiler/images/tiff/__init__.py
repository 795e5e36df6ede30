"""TIFF: its tags and entries read by hand, and pixels that libvips or Pillow do not read as they are."""
