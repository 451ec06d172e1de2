"""What every benchmark prints: one JSON line a figure, kept in `experiments/benchmarks/results/<bench>.jsonl`."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).parents[2]
RESULTS = REPO / "experiments" / "benchmarks" / "results"


class Figures:
    """The figures of one benchmark; `write` keeps them."""

    def __init__(self, bench: str) -> None:
        self.bench, self.lines = bench, list[str]()

    def add(self, name: str, value: float, goal: str, unit: str, peer: float | None = None) -> None:
        """Print one figure; `goal` is what it should be (`< 90`), `peer` another program's on the same rows."""
        row = {
            "bench": f"{self.bench}.{name}",
            "finr1": round(value, 4),
            "peer": None if peer is None else round(peer, 4),
            "ratio": None if peer is None else round(value / peer, 3),
            "goal": goal,
            "unit": unit,
        }
        self.lines.append(json.dumps(row))
        print(self.lines[-1], flush=True)

    def write(self) -> None:
        """Keep the lines, in place of those of the last time; figures that another program measures stay."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.bench}.jsonl"
        before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        mine = {json.loads(line)["bench"] for line in self.lines}
        kept = [line for line in before if json.loads(line)["bench"] not in mine]
        path.write_text("\n".join([*kept, *self.lines]) + "\n", encoding="utf-8")


def stage(*arguments: str) -> tuple[float, float]:
    """Run `python -m finr1 <arguments>` in the repository; seconds, and peak memory (GB) of all runs so far."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "finr1", *arguments], cwd=REPO, check=True, stderr=subprocess.DEVNULL)
    return time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
