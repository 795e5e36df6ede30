"""Running networks: engines, whole frames and bands of rows."""
