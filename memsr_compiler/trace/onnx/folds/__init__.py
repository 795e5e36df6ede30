"""One fold for each ONNX operator that is computed of constants alone."""
