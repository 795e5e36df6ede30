"""TFLite files: a network's tensors and operators, and how they are written."""
