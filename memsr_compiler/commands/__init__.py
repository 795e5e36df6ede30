"""What the sub-commands of `memsrc` do, one a file; `memsr_compiler.cli` declares their options."""
