"""How good networks are, what memory they take, how fast they are."""
