"""The students that ship, known by name: what they are, what they reach, whose weights they come from."""
