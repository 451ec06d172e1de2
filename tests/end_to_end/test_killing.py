"""SIGKILL at named points of SFT and GRPO: a resumed run leaves bit for bit what an undisturbed one leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.runner import REPO


@pytest.mark.slow
def test_whatever_the_moment_of_the_kill_nothing_differs(tmp_path: Path) -> None:
    """Weights with adapters, dropout and AdamW, rollouts with a reward that draws, and every metric but the clock's."""
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(REPO / "tests" / "helpers" / "killing.py"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    differs = json.loads(done.stdout.splitlines()[-1])
    assert len(differs) == 14
    assert {point: what for point, what in differs.items() if what} == {}
