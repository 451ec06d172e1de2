"""The cost of a stage: wall seconds and peak memory."""

import contextlib
import re
import threading
import time
from pathlib import Path
from typing import Self

from finr1.core.stage_folder import Spent, note_spent, spent


def memory_gib(field: str) -> float:
    """Resident memory of this process in GiB: current (`VmRSS`) or peak (`VmHWM`); 0 without Linux's /proc."""
    with contextlib.suppress(OSError):
        if line := re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text()):
            return int(line[1]) / 2**20
    return 0.0


class Clock:
    """Measures time and memory of a stage over all its attempts; saved every few seconds, so that a kill loses little.

    The kernel keeps one memory peak for the whole process. A stage that raises it gets that exact value, any other
    the maximum of samples taken twice per second. (Resetting the kernel's peak would hide it from outside tools.)
    """

    def __init__(self, folder: Path, save_every_s: float = 5.0, sample_every_s: float = 0.5) -> None:
        self._folder, self._save_every_s, self._sample_every_s = folder, save_every_s, sample_every_s
        self._before, self._start = spent(folder), time.monotonic()
        self._peak_before, self._sampled = memory_gib("VmHWM"), memory_gib("VmRSS")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def spent(self) -> Spent:
        """The cost so far, earlier attempts included."""
        highest = memory_gib("VmHWM")
        peak = highest if highest > self._peak_before else self._sampled
        seconds = self._before.seconds + time.monotonic() - self._start
        return Spent(round(seconds, 3), round(max(peak, self._before.memory_gib), 3))

    def _watch(self) -> None:
        saved = time.monotonic()
        while not self._stop.wait(min(self._sample_every_s, self._save_every_s)):
            self._sampled = max(self._sampled, memory_gib("VmRSS"))
            if time.monotonic() - saved >= self._save_every_s:
                saved = time.monotonic()
                self._save()

    def _save(self) -> None:
        with contextlib.suppress(OSError):
            note_spent(self._folder, self.spent)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._save()
