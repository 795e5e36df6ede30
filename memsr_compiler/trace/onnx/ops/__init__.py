"""One word for each ONNX operator that is read."""
