"""Metadata entries by which our files are known."""

PLAIN_FORMAT_KEY = "memsr_format"
"""Of plain networks, .onnx and .safetensors."""

QUANTIZED_KEY = "memsr_quantized"
"""Of networks in 8-bit integers, .onnx."""
