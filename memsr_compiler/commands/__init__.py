"""The work of the sub-commands of `memsrc`, one a file; what they share is in the folders."""
