"""The claim that two networks are one, and its proof, which knows none of the passes."""
