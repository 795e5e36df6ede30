"""The work of the sub-commands of `memsrc`, one a file; `options` declares their options."""
