"""The plain network, its files, and how they are read back."""
