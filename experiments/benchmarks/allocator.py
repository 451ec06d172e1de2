"""What `finr1.data.loop.keep_freed_memory` is worth: tokens a second of a training micro-batch without and with it.

    python experiments/benchmarks/allocator.py [--out FILE.json]

Both halves run in one process, one after the other, on the embedded model and the same rows; prints and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time

import torch

from finr1.data.attention import register
from finr1.data.logprobs import completion_stats
from finr1.data.loop import keep_freed_memory
from finr1.data.rows import Group, Row, make_row
from finr1.model.load import load_trainable, resolve
from finr1.model.settings import ModelSettings


def row(n_groups: int, group_size: int = 8, prompt_tokens: int = 78, completion_tokens: int = 67) -> Row:
    """A prompt-shared row like those of the quickstart, with random tokens."""
    rng = random.Random(0)
    draw = lambda n: [rng.randrange(49_000) for _ in range(n)]  # noqa: E731
    return make_row(
        [
            Group(
                draw(prompt_tokens),
                [draw(completion_tokens + rng.randrange(-15, 15)) for _ in range(group_size)],
                range(n * group_size, (n + 1) * group_size),
            )
            for n in range(n_groups)
        ]
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out")
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

    before = tokens_per_s()
    keep_freed_memory()
    after = tokens_per_s()
    result = {
        "row_tokens": batch.n_tokens,
        "tokens_per_s_before": before,
        "tokens_per_s_after": after,
        "ratio_of_medians": statistics.median(after) / statistics.median(before),
        "torch": torch.__version__,
    }
    print(json.dumps(result))
    if arguments.out:
        with open(arguments.out, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
