"""One word for each operation of torch that is read."""
