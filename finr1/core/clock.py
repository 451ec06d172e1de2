"""What a stage costs: wall seconds and peak memory."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from pathlib import Path

from finr1.core.stage_folder import Spent, note_spent, spent


def memory_gib(field: str) -> float:
    """This process's resident memory in GiB: now (`VmRSS`), or its highest (`VmHWM`); 0 without Linux's /proc."""
    with contextlib.suppress(OSError):
        if found := re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text()):
            return int(found[1]) / 2**20
    return 0.0


class Clock:
    """What is spent on a stage over all its attempts; noted on disk every few seconds, so that a SIGKILL loses few.

    The kernel keeps one peak of memory for the whole process: a stage that raises it has reached just that. Another
    stage's peak is the highest of looks taken twice a second. (Linux could be told to forget its peak, but then no
    tool outside would see the run's.)
    """

    def __init__(self, folder: Path, every_s: float = 5.0, look_every_s: float = 0.5) -> None:
        self._folder, self._every_s, self._look_every_s = folder, every_s, look_every_s
        self._before, self._start = spent(folder), time.monotonic()
        self._highest_before, self._seen = memory_gib("VmHWM"), memory_gib("VmRSS")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def spent(self) -> Spent:
        """Up to now."""
        highest = memory_gib("VmHWM")
        peak = highest if highest > self._highest_before else self._seen
        seconds = self._before.seconds + time.monotonic() - self._start
        return Spent(round(seconds, 3), round(max(peak, self._before.memory_gib), 3))

    def _watch(self) -> None:
        noted = time.monotonic()
        while not self._stop.wait(min(self._look_every_s, self._every_s)):
            self._seen = max(self._seen, memory_gib("VmRSS"))
            if time.monotonic() - noted >= self._every_s:
                noted = time.monotonic()
                self._note()

    def _note(self) -> None:
        with contextlib.suppress(OSError):
            note_spent(self._folder, self.spent)

    def __enter__(self) -> Clock:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._note()
