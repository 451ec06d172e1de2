"""Run the command line in a separate process; paths of the repository."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

REPO = Path(__file__).parents[2]
DATA = Path(os.environ.get("FINR1_DATA") or REPO.parent / "shared" / "data")
# A reward that differs within almost every group, so that a run of few steps really trains.
SPREAD = "+reward.spread={_target_: tests.helpers.spread.Spread, weight: 1.0}"
Runner = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(**env: str) -> dict[str, str]:
    """Return the environment for a run: without the user's settings, with the repository on the path."""
    kept = {k: v for k, v in os.environ.items() if k not in ("FINR1_DATA", "HYDRA_FULL_ERROR", "FINR1_DEBUG")}
    return {**kept, "PYTHONPATH": str(REPO), "COLUMNS": "200", **env}


def command(*arguments: str) -> list[str]:
    """`python -m finr1 <arguments>` with this Python."""
    return [sys.executable, "-m", "finr1", *arguments]


LAUNCH = "import sys; from finr1.cli.launch import launch; sys.exit(launch(int(sys.argv[1]), sys.argv[2:]))"


def start(ranks: int, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    """Return the command for `python <arguments>` as `n` ranks."""
    first = [sys.executable, "-c", LAUNCH, str(ranks)] if ranks > 1 else [sys.executable]
    env = environment(**{"HF_HUB_OFFLINE": "1", **env})
    return subprocess.run(
        [*first, *map(str, arguments)], env=env, capture_output=True, text=True, timeout=1800, check=False
    )


def start_one_and_two(folder: Path, *arguments: object) -> Path:
    """Run the same on one rank and on two, into a folder; returns the folder."""
    for ranks in (1, 2):
        done = start(ranks, *arguments, folder)
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


def run(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder and return the finished process."""
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
