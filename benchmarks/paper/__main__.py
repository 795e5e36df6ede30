"""python -m benchmarks.paper, from the root of the repository."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts of benchmarks import each other by their bare names

from paper.command import main

sys.exit(main(sys.argv[1:]))
