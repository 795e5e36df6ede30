"""How wide each level of a student is."""
