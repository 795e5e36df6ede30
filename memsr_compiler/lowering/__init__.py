"""The way from a teacher to its plain network: the order of things."""
