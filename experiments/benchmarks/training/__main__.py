"""Training's speed and memory on CPU: against TRL, against padded rows, against the machine's matrix products.

    python experiments/benchmarks/training [--peer-python PATH] [--clock cpu] [--only grpo_finqa …]

The peer runs in an environment of its own (`python -m venv`, then `pip install torch==2.13.0 trl==1.16.0`, without
torchvision), named by `--peer-python` or `FINR1_TRL_PYTHON`; without it its columns are empty. FinQA's rows are read
from `FINR1_DATA`. Every measurement is a process of its own, with as many threads as OMP_NUM_THREADS says; TRL's stands
between two of finr1's, whose mean counts. `--clock cpu` counts CPU seconds: for one thread beside other work.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from experiments.benchmarks.figures import RESULTS, Figures
from experiments.benchmarks.training import rows

HERE = Path(__file__).parent
COMPLETION_TOKENS, GROUP, PROMPTS = 96, 8, 4
# finr1's rows (its default, and one that takes FinQA's) and TRL's without packing, of about as many tokens.
SFT = {"short": (1024, 8), "finqa": (2048, 2)}
TRL_MICRO_BATCH = {"short": 8, "finqa": 4}
WORKS = ("shared_8", "shared_16", "norms", "scale", "sft_short", "sft_finqa", "grpo_short", "grpo_finqa")


class Bench:
    """Runs both sides."""

    def __init__(self, args: Any, model: Path, folder: Path) -> None:
        self.args, self.model, self.folder = args, model, folder
        self.figures = Figures("training")
        self.unit = f"a CPU second, {threads()}" if args.clock == "cpu" else f"a second, {threads()}"

    def ours(self, work: str, **options: Any) -> dict[str, Any]:
        return self.run(sys.executable, "finr1_side.py", work, {**options, "trainer": self.args.trainer})

    def peer(self, work: str, **options: Any) -> dict[str, Any] | None:
        return self.run(self.args.peer_python, "trl_side.py", work, options) if self.args.peer_python else None

    def run(self, python: str, script: str, work: str, options: dict[str, Any]) -> dict[str, Any]:
        """What a side prints; its log is shown where it fails."""
        command = [python, str(HERE / script), work, "--model", str(self.model), "--clock", self.args.clock]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        print(script, work, options, found, file=sys.stderr, flush=True)
        return found

    def against(
        self, name: str, speed: str, memory: str, ours: list[dict[str, Any]], peer: Any, shape: str = ""
    ) -> None:
        """A line of speed and one of memory; `shape` says how the work is unlike the usual one."""
        for figure, key, goal, unit in (
            (name, "tokens_per_s", speed, f"tokens {self.unit}{shape}"),
            (f"{name}_memory", "peak_gb", memory, f"GB{shape}"),
        ):
            self.figures.add(figure, mean(ours, key), f"{goal} x peer", unit, peer[key] if peer else None)

    def shared(self, group: str) -> None:
        """One group's update: its prompt once against once a completion, of finr1 both."""
        at_once = min(self.args.padded_at_once, int(group))
        common = {"steps": self.args.steps, "prompt_tokens": 900, "completion_tokens": 96, "group": group}
        ours = [self.ours("pieces", form="shared", **common)]
        peer = self.ours("pieces", form="padded", micro_batch=at_once, **common)
        ours.append(self.ours("pieces", form="shared", **common))
        goal = 3.5 if group == "8" else 4.5
        for name, key, wanted, unit in (
            (f"shared_{group}", "tokens_per_s", f">= {goal} x peer", f"completion tokens {self.unit}"),
            (f"shared_{group}_memory", "added_gb", "<= 0.4 x peer", "GB above model and gradients"),
        ):
            label = f"{unit}; peer: padded rows, {at_once} at a time"
            self.figures.add(name, mean(ours, key), wanted, label, peer[key])

    def norms(self) -> None:
        """What RMSNorm in fewer passes gives, and bf16 weights against autocast."""
        common = {"steps": self.args.steps, "prompt_tokens": 90, "completion_tokens": 70, "group": GROUP}
        for name, ours, peer, label in (
            ("norms", "shared", "own_norms", "transformers' RMSNorm"),
            ("bf16_weights", "bf16", "shared", "autocast over fp32 weights"),
        ):
            runs = [self.ours("pieces", form=form, **common) for form in (ours, peer, ours)]
            unit = f"completion tokens {self.unit}; peer: {label}"
            self.figures.add(name, mean(runs[::2], "tokens_per_s"), "> 1 x peer", unit, runs[1]["tokens_per_s"])
            unit = f"GB above model and gradients; peer: {label}"
            self.figures.add(f"{name}_memory", mean(runs[::2], "added_gb"), "< 1 x peer", unit, runs[1]["added_gb"])

    def scale(self) -> None:
        """Step time against unique tokens: how far from a straight line, and a plot."""
        points = self.ours("scale", steps=6)["points"]
        slope, start = statistics.linear_regression(*zip(*points, strict=True))
        off = max(abs(seconds / (start + slope * n) - 1) for n, seconds in points)
        unit = f"largest distance from a straight line, 1k to {points[-1][0] // 1024}k unique tokens"
        self.figures.add("linear_cost", off, "< 0.05", unit)
        plot(points, slope, start, RESULTS / "training_scale.svg")

    def sft(self, kind: str) -> None:
        """Against the better of TRL's modes, and MFU."""
        row_tokens, micro_batch = SFT[kind]
        file, steps = self.folder / f"rows_{kind}.jsonl", self.args.steps + 1
        ours = [self.ours("sft", rows=file, steps=steps, row_tokens=row_tokens)]
        modes = [
            self.peer("sft", rows=file, steps=steps, micro_batch=micro_batch, max_length=row_tokens),
            self.peer("sft", rows=file, steps=steps, micro_batch=1, max_length=row_tokens, packing=True),
        ]
        ours.append(self.ours("sft", rows=file, steps=steps, row_tokens=row_tokens))
        peer = max((m for m in modes if m), key=lambda m: m["tokens_per_s"], default=None)
        self.against(f"sft_{kind}", ">= 2.2", "<= 0.6", ours, peer)
        self.figures.add(f"sft_{kind}_mfu", mean(ours, "mfu"), ">= 0.65", "of the measured bf16 matmul peak")

    def grpo(self, kind: str) -> None:
        """Whole steps, MFU of the update, share of sync and canary."""
        prompts = self.args.prompts
        shape = {"group": GROUP, "prompts_per_step": prompts, "completion_tokens": COMPLETION_TOKENS}
        common = {"rows": self.folder / f"prompts_{kind}.jsonl", **shape}
        ours = [self.ours("grpo", steps=self.args.steps, row_tokens=2048, **common)]
        peer = self.peer("grpo", steps=self.args.peer_steps, micro_batch=TRL_MICRO_BATCH[kind], **common)
        ours.append(self.ours("grpo", steps=self.args.steps, row_tokens=2048, **common))
        unlike = f", {prompts} prompts a step" if prompts != PROMPTS else ""
        self.against(f"grpo_{kind}", ">= 4" if kind == "short" else ">= 14", "< 1", ours, peer, unlike)
        self.figures.add(f"grpo_{kind}_mfu", mean(ours, "mfu"), ">= 0.65", "of the measured bf16 matmul peak")
        self.figures.add(f"grpo_{kind}_sync", mean(ours, "sync_share"), "<= 0.03", "sync and canary, share of a step")


def mean(runs: list[dict[str, Any]], key: str) -> float:
    return statistics.mean(float(run[key]) for run in runs)


def threads() -> str:
    n = os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count())
    return f"{n} thread" if n == "1" else f"{n} threads"


def plot(points: list[tuple[int, float]], slope: float, start: float, path: Path) -> None:
    """Seconds of a step over its unique tokens."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "finr1"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.2), layout="constrained")
    tokens, seconds = zip(*points, strict=True)
    line = [start + slope * n for n in tokens]
    axes.plot(tokens, line, color="0.7", label=f"{start:.2g} s + {1e3 * slope:.2g} ms a token")
    axes.plot(tokens, seconds, "o", label="measured")
    axes.set(xlabel="unique tokens of a step (prompts and completions)", ylabel="seconds a step", xlim=0, ylim=0)
    axes.legend()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", default=os.environ.get("FINR1_TRL_PYTHON"))
    parser.add_argument("--clock", choices=["cpu", "wall"], default="wall")
    parser.add_argument("--trainer", default="cpu", help="finr1's, a file of conf/trainer")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--peer-steps", type=int, default=2, help="of TRL's GRPO, the first of which warms up")
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="of a GRPO step, 8 completions each")
    parser.add_argument("--padded-at-once", type=int, default=8, help="padded rows a pass: 8 of them take 8 GB in all")
    parser.add_argument("--only", nargs="+", choices=WORKS, default=WORKS)
    args = parser.parse_args()
    if not args.peer_python:
        print("no peer: name a Python with TRL by --peer-python or FINR1_TRL_PYTHON", file=sys.stderr)
    kinds = rows.kinds()
    if "finqa" not in kinds:
        print("no FinQA rows: name the data folder by FINR1_DATA", file=sys.stderr)
    from finr1.parts.model.folder import resolve
    from finr1.settings.model import ModelSettings

    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(args, resolve(ModelSettings()), Path(name))
        for kind in kinds:
            rows.write(bench.folder, bench.model, kind, args.prompts * max(args.steps, args.peer_steps), 64)
        for work in args.only:
            what, _, kind = work.partition("_")
            if not kind:
                getattr(bench, what)()
            elif kind in kinds or kind.isdigit():
                getattr(bench, what)(kind)
            bench.figures.write()


if __name__ == "__main__":
    main()
