"""A teacher made a much narrower plain network, by a few images.  See docs/shrink.md."""
