"""Arrays and image files: reading, writing, by rows, resizing, metrics; what formats need of it is in the folders."""
