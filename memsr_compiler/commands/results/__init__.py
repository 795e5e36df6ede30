"""Words, numbers and pictures of results that several commands share."""
