"""memsrc, and python -m memsr_compiler: the command line, which can be interrupted from its first moment on."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from typing import NoReturn


def main() -> None:
    """Run the command line.  Importing it takes a while, in which Ctrl-C would be a traceback.

    Modules make no garbage, and to look for some as they are imported takes a quarter of a second.
    """
    signal.signal(signal.SIGINT, leave)
    gc.disable()
    from memsr_compiler import cli

    cli.main()


def leave(*_: object) -> NoReturn:
    """End the process at once, with a line and the status that shells have for an interrupt."""
    with contextlib.suppress(OSError):
        os.write(2, b"memsrc: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
