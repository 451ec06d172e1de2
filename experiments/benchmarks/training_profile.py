"""Where an update's time goes: kinds of operations of one optimiser step of SFT and GRPO, by torch's profiler.

    OMP_NUM_THREADS=1 python experiments/benchmarks/training_profile.py [--only sft_short …]

The work is that of `experiments/benchmarks/training`; what is profiled is `StepModule.optimise`: forward and backward
passes, clipping, the optimiser. `products_of_peak` is how near the matrix products come to the machine's peak, the
fastest square product of bf16 that was seen; `least_seconds` what an update would take if all its products were as
fast as that and nothing else took any time. GRPO's sampling is a lap beside it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch.profiler import ProfilerActivity, profile

from experiments.benchmarks.figures import Figures
from experiments.benchmarks.training import finr1_side, rows
from finr1.parts.model.folder import resolve
from finr1.settings.model import ModelSettings
from finr1.training.loop.meter import Meter
from finr1.training.loop.step_module import StepModule

STEP = 2  # the one that is profiled, from 0: the first ones warm up
KINDS = {
    "products": ("mm", "addmm", "addmm_", "linear"),
    "attention": ("bmm", "_softmax", "_softmax_backward_data", "TiledAttention", "TiledAttentionBackward"),
    "copies": ("copy_", "fill_", "zero_", "cat", "empty_strided", "empty", "index", "index_put_", "clone"),
    "optimiser": ("_fused_adamw_",),
}


def kind_of(operation: str) -> str:
    """Everything else works element by element, or sums."""
    name = operation.removeprefix("aten::")
    return next((kind for kind, names in KINDS.items() if name in names), "elementwise")


class Watched:
    """Profiles one call of `StepModule.optimise`, and keeps the work that the meter was told of."""

    def __init__(self) -> None:
        self.calls = 0
        self.shares: dict[str, float] = {}
        self.seconds = self.product_s = self.flops = self.peak = 0.0
        self._optimise, self._metrics = StepModule.optimise, Meter.metrics

    def __enter__(self) -> Watched:
        watched = self

        def optimise(module: StepModule, losses: Iterator[torch.Tensor], *more: Any) -> float:
            watched.calls += 1
            if watched.calls - 1 != STEP:
                return watched._optimise(module, losses, *more)
            with profile(activities=[ProfilerActivity.CPU]) as profiled:
                norm = watched._optimise(module, losses, *more)
            watched.read(profiled)
            return norm

        def metrics(meter: Meter, work: Any, *more: Any) -> dict[str, float]:
            if watched.calls - 1 == STEP:
                watched.flops, watched.peak = meter.flops(work), meter.peak
            return watched._metrics(meter, work, *more)

        StepModule.optimise, Meter.metrics = optimise, metrics  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *_: object) -> None:
        StepModule.optimise, Meter.metrics = self._optimise, self._metrics  # type: ignore[method-assign]

    def read(self, profiled: Any) -> None:
        """Seconds by kind, each operation's own."""
        by_kind: Counter[str] = Counter()
        for event in profiled.key_averages():
            by_kind[kind_of(event.key)] += event.self_cpu_time_total / 1e6
        self.seconds, self.product_s = by_kind.total(), by_kind["products"]
        self.shares = {kind: by_kind[kind] / self.seconds for kind in (*KINDS, "elementwise")}


def main() -> None:
    """Profile, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=["sft_short", "grpo_short", "sft_finqa", "grpo_finqa"])
    parser.add_argument("--trainer", default="cpu", help="a file of conf/trainer")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    model, figures = resolve(ModelSettings()), Figures("training_profile")
    steps, prompts = STEP + 2, 4
    for work in args.only:
        what, _, kind = work.partition("_")
        if kind not in rows.kinds():
            print(f"{work}: no FinQA rows; name the data folder by FINR1_DATA", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as name, Watched() as watched:
            folder = Path(name)
            rows.write(folder, model, kind, prompts * steps, 64)
            common = {"model": str(model), "steps": steps, "row_tokens": 1024 if work == "sft_short" else 2048}
            common["trainer"] = args.trainer
            shape = {"group": 8, "prompts_per_step": prompts, "completion_tokens": 96}
            file = folder / (f"rows_{kind}.jsonl" if what == "sft" else f"prompts_{kind}.jsonl")
            side = finr1_side.sft if what == "sft" else finr1_side.grpo
            found = side(SimpleNamespace(rows=str(file), **common, **shape), folder / "run")
        for part, share in watched.shares.items():
            figures.add(f"{work}_{part}", share, "", "share of an update")
        figures.add(f"{work}_seconds", watched.seconds, "", "s an update, under the profiler")
        figures.add(f"{work}_least_seconds", watched.flops / watched.peak, "", "s an update at the peak")
        reached = watched.flops / watched.product_s / watched.peak
        figures.add(f"{work}_products_of_peak", reached, "", "useful FLOPs over the products' own time, of the peak")
        if "laps" in found:
            figures.add(f"{work}_sampling", found["laps"]["sample_s"], "", "s a step, beside the update")
        figures.write()


if __name__ == "__main__":
    main()
