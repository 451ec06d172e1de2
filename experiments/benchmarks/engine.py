"""What the engine writes on CPU, and what sharing a group's prompt is worth there: tokens a second.

    python experiments/benchmarks/engine.py [--max-new-tokens 64]

The embedded model answers the quickstart's questions, groups of 8 as GRPO asks and single ones as an evaluation does.
The peer is the same engine with vLLM's own cache block of 128 tokens, in which a shorter prompt is shared with none of
its samples. Each engine is a process of its own, one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.benchmarks.figures import REPO, Figures

SHAPES = {"groups_of_8": (8, 8), "64_questions_of_4": (64, 4), "128_single": (128, 1)}  # questions, samples each
VLLMS_OWN = 128


def measure(block_tokens: int, max_new_tokens: int) -> dict[str, float]:
    """Tokens a second of each shape, with this size of cache block."""
    import finr1.parts.engine.vllm.engine as engine_of
    from finr1.core.prompt import chat
    from finr1.parts.engine.base import Request
    from finr1.parts.source.worked.source import Worked
    from finr1.settings.model import ModelSettings
    from finr1.settings.sampling import Sampling

    engine_of.CPU_BLOCK_TOKENS = block_tokens
    engine = engine_of.VllmEngine(ModelSettings(max_model_len=512))
    names = ["change", "table_total", "exchange", "choose_assets", "over_budget", "trend_label"]
    questions = list(Worked(n_train=256, n_test=0, difficulty=0, templates=names).load())
    requests = [Request(chat(question, None), question) for question in questions]
    engine.generate(requests[:8], Sampling(max_new_tokens=8))
    found = {}
    for shape, (n_questions, n) in SHAPES.items():
        engine.llm.reset_prefix_cache()
        began = time.perf_counter()
        groups = engine.generate(requests[-n_questions:], Sampling(n=n, max_new_tokens=max_new_tokens))
        found[shape] = sum(len(c.token_ids) for group in groups for c in group) / (time.perf_counter() - began)
    engine.close()
    return found


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--block-tokens", type=int, help="one engine alone; prints its figures as JSON")
    arguments = parser.parse_args()
    if arguments.block_tokens:
        print(json.dumps(measure(arguments.block_tokens, arguments.max_new_tokens)))
        return
    from finr1.parts.engine.vllm.engine import CPU_BLOCK_TOKENS

    found = {}
    for block in (VLLMS_OWN, CPU_BLOCK_TOKENS):
        command = [sys.executable, __file__, "--block-tokens", str(block)]
        command += ["--max-new-tokens", str(arguments.max_new_tokens)]
        done = subprocess.run(
            command, cwd=REPO, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=True, capture_output=True, text=True
        )
        found[block] = json.loads(done.stdout.splitlines()[-1])
    figures = Figures("engine")
    for shape in SHAPES:
        ours, peer = (found[block][shape] for block in (CPU_BLOCK_TOKENS, VLLMS_OWN))
        figures.add(shape, ours, "> 1 x peer" if shape != "128_single" else ">= 1 x peer", "tokens/s", peer)
    figures.write()


if __name__ == "__main__":
    main()
