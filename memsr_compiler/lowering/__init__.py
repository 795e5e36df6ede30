"""From a teacher to its plain network: the order of things."""
