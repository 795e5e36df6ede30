"""The networks whose published checkpoints are recognised by their keys, one file each."""
