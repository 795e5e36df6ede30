"""TFLite files as graphs."""
