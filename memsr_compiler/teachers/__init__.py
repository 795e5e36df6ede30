"""From a file to an nn.Module: state dicts, pickles, .pt2, and the families known by their keys."""
