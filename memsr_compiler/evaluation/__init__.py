"""Networks measured: how good they are, what memory they take, how fast they are."""
