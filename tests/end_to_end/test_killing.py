"""SIGKILL at named points of SFT and GRPO: a resumed run is bit-identical to an uninterrupted one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.runner import REPO


@pytest.mark.slow
def test_a_resumed_run_is_bit_identical_wherever_it_was_killed(tmp_path: Path) -> None:
    """Compares weights (adapters, dropout, AdamW), rollouts (a random reward), and all metrics but timings."""
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(REPO / "tests" / "helpers" / "killing.py"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    differs = json.loads(done.stdout.splitlines()[-1])
    assert len(differs) == 14
    assert {point: files for point, files in differs.items() if files} == {}
