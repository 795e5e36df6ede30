"""Arrays and image files: reading, writing, by rows, resizing, metrics."""
