"""From a teacher to a much narrower plain network, by a few images.  See docs/shrink.md."""
