"""Tokens per second of a training micro-batch, with and without `finr1.training.loop.fit.keep_freed_memory`.

    python experiments/benchmarks/allocator.py [--repeats 5]

Both halves run in one process, one after the other, on the embedded model and the same rows; the peer is
glibc left alone.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.benchmarks.figures import Figures
from finr1.parts.model.folder import resolve
from finr1.settings.model import ModelSettings
from finr1.training.loop.fit import keep_freed_memory
from finr1.training.model.load import load_trainable
from finr1.training.rows.attention import register
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import Row, RowGroup, make_row


def row(n_groups: int, group_size: int = 8, prompt_tokens: int = 78, completion_tokens: int = 67) -> Row:
    """A prompt-shared row like those of the quickstart, with random tokens."""
    rng = random.Random(0)
    draw = lambda n: [rng.randrange(49_000) for _ in range(n)]  # noqa: E731
    return make_row(
        [
            RowGroup(
                draw(prompt_tokens),
                [draw(completion_tokens + rng.randrange(-15, 15)) for _ in range(group_size)],
                range(n * group_size, (n + 1) * group_size),
            )
            for n in range(n_groups)
        ]
    )


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    settings = ModelSettings()
    model = load_trainable(resolve(settings), settings, register())
    batch = row(3)

    def tokens_per_s() -> list[float]:
        found = []
        for _ in range(arguments.repeats + 1):
            began = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16):
                (-completion_stats(model, batch).logprobs_N.mean()).backward()
            model.zero_grad()
            found.append(batch.n_tokens / (time.perf_counter() - began))
        return found[1:]  # the first warms up

    before = statistics.median(tokens_per_s())
    keep_freed_memory()
    after = statistics.median(tokens_per_s())
    figures = Figures("allocator")
    figures.add("micro_batch", after, "> 1 x peer", f"tokens/s of a row of {batch.n_tokens}", before)
    figures.write()


if __name__ == "__main__":
    main()
