"""Attention of a training row on CPU: forward and backward of one layer, tiles against torch's flash kernel.

    python experiments/benchmarks/attention.py [--repeats 10]

Rows have SmolLM2-135M's heads (9, of keys and values 3, of 64) in bf16. `peer` is the padded path of
`finr1.training.rows.attention`, which hands the same pieces to `scaled_dot_product_attention`.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.benchmarks.figures import Figures
from finr1.training.loop.fit import keep_freed_memory
from finr1.training.rows.attention import padded
from finr1.training.rows.rows import RowGroup, make_row
from finr1.training.rows.tiles import TiledAttention

HEADS, KEY_HEADS, SIZE = 9, 3, 64


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    keep_freed_memory()
    rng, figures = random.Random(0), Figures("attention")
    shapes = {
        "quickstart": [(78, [67 + rng.randrange(-15, 15) for _ in range(8)]) for _ in range(2)],
        "sft": [(90, [70 + rng.randrange(-25, 25)]) for _ in range(6)],
        "finqa_pages": [(900, [96] * 8)],
    }
    for name, groups in shapes.items():
        layout = make_row([RowGroup([1] * p, [[1] * n for n in ns], list(range(len(ns)))) for p, ns in groups]).layout
        heads = (HEADS, KEY_HEADS, KEY_HEADS)
        q, k, v = (
            torch.randn(1, layout.n_tokens, h, SIZE, dtype=torch.bfloat16).transpose(1, 2).requires_grad_()
            for h in heads
        )
        scale = SIZE**-0.5
        tiles, flash = (
            _ms(function, repeats)
            for function in (
                lambda q=q, k=k, v=v, on=layout, s=scale: TiledAttention.apply(q[0], k[0], v[0], on.tiles, s),
                lambda q=q, k=k, v=v, on=layout, s=scale: padded(q, k, v, on, s),
            )
        )
        figures.add(name, tiles, "< 0.67 x peer", f"ms a layer, {layout.n_tokens} tokens", flash)
    figures.write()


def _ms(function: Callable[[], Tensor], repeats: int) -> float:
    found = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        out = function()
        out.backward(torch.ones_like(out))
        found.append(1e3 * (time.perf_counter() - began))
    return statistics.median(found[1:])  # the first warms up


if __name__ == "__main__":
    main()
