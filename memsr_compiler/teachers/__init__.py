"""Reading a file into an nn.Module: state dicts, pickles, .pt2, and the families known by their keys."""
