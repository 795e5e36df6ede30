"""Runs that go on where they stopped: folders of `train` and `distill`, and images of a folder that are done."""
