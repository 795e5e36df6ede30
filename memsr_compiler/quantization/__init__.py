"""ONNX networks in 8-bit integers."""
