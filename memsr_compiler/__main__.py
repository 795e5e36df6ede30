"""python -m memsr_compiler is memsrc."""

from memsr_compiler.cli import main

main()
