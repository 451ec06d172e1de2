"""Seconds that the parts of a step take."""

from __future__ import annotations

import time
from collections.abc import Mapping


class StepTimer:
    """Adds up seconds by metric name; each `lap` covers the time since the previous one."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """Book the time since the last lap under this name."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add time measured elsewhere, and start the next lap now."""
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value
        self._last = time.perf_counter()

    @property
    def total(self) -> float:
        return sum(self.seconds.values())
