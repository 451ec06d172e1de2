"""What several test files share: the command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
Runner = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def finr1(tmp_path: Path) -> Runner:
    """`finr1("stage=questions", ...)` runs `python -m finr1` in an empty folder and returns what came of it."""

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if k not in ("FINR1_DATA", "HYDRA_FULL_ERROR", "FINR1_DEBUG")}
        environment = {**kept, "PYTHONPATH": str(REPO), "COLUMNS": "200", **env}
        command = [sys.executable, "-m", "finr1", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
        )

    return run
