"""From an nn.Module or an ONNX file to a graph; the only folder that knows torch.fx, torch.export and ONNX graphs."""
