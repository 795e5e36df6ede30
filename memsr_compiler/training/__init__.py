"""Training: patches, the loss of Eq. 12 to 14, checkpoints, and the loop over them."""
