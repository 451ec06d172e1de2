"""Seconds and peak memory of a stage, over all its attempts."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from finr1.core.clock import Clock
from finr1.core.stage_folder import Spent, note_spent, spent

# In a process of its own, whose peak is known: 300 MiB before the first stage, 200 in it, 500 in the second.
PROGRAM = """
import sys, time
from pathlib import Path
from finr1.core.clock import Clock, memory_gib

MIB = 1 << 20
start = memory_gib("VmRSS")
early = b"x" * (300 * MIB)
del early
peaks = []
for name, size in (("a", 200), ("b", 500)):
    folder = Path(sys.argv[1]) / name
    folder.mkdir()
    with Clock(folder, sample_every_s=0.01) as clock:
        held = b"x" * (size * MIB)
        time.sleep(0.1)
        del held
        peaks.append(clock.spent.memory_gib)
print(*[(peak - start) * 1024 for peak in peaks])
"""


def test_each_stage_has_its_own_peak(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from Linux's /proc")
    run = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    printed = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60).stdout
    first, second = map(float, printed.split())
    assert first == pytest.approx(200, abs=30) and second == pytest.approx(500, abs=30)


def test_the_clock_counts_killed_attempts(tmp_path: Path) -> None:
    with Clock(tmp_path, save_every_s=0.01) as clock:
        time.sleep(0.05)
        assert spent(tmp_path).seconds > 0  # noted while it runs: a SIGKILL keeps it
    first = spent(tmp_path)
    assert 0.05 <= first.seconds <= clock.spent.seconds
    note_spent(tmp_path, Spent(100.0, 500.0))
    with Clock(tmp_path) as clock:
        assert clock.spent.seconds >= 100 and clock.spent.memory_gib == 500
