"""Reading an nn.Module or an ONNX file into a graph; the only folder that knows torch.fx, torch.export and ONNX."""
