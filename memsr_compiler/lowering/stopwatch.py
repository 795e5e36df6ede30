"""A stopwatch: what each stage of some work took."""

from __future__ import annotations

import time


class Stopwatch:
    """Seconds by stage of the work, `lap` after `lap`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a stage of this name, which began where the last one ended."""
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now
