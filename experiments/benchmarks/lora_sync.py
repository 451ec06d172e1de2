"""LoRA in the engine by adapter or merged, on CPU: seconds of a sync, tokens a second, and how close the engine comes.

    python experiments/benchmarks/lora_sync.py [--rank 16] [--max-new-tokens 64]

SmolLM2-135M in bf16 with adapters of all linear layers, whose second matrices are drawn anew before every sync. `finr1`
is `lora_sync=adapter`, the peer `lora_sync=merged`; each engine is a process of its own, one after the other. `base` is
what an evaluation of a model without adapters pays for an engine that could take one. `mismatch` is the mean
|log p(trainer, fp32) - log p(engine)| of the sampled tokens, for adapters as small as those of a run's first steps
(5e-4) and for large ones.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.benchmarks.figures import REPO, Figures

SYNCS = 5
SPREADS = {"early": 5e-4, "large": 2e-2}  # standard deviation of the second matrices
GOALS = {"sync": ("< 1 x peer", "s"), "mismatch": ("<= 1 x peer", "nats a token")}


def measure(sync: str, rank: int, max_new_tokens: int) -> dict[str, float]:
    """All figures of one way to sync."""
    from finr1.parts.engine.vllm.engine import VllmEngine
    from finr1.parts.model.folder import resolve
    from finr1.parts.source.worked.source import Worked
    from finr1.settings.model import LoraSettings, ModelSettings
    from finr1.settings.sampling import Sampling
    from finr1.training.grpo.sampler import Sampler
    from finr1.training.model.load import load_trainable
    from finr1.training.rows.attention import register

    settings = ModelSettings(max_model_len=512, adapter="lora", lora=LoraSettings(r=rank))
    engine = VllmEngine(settings, lora_sync=sync)
    names = ["change", "table_total", "exchange", "choose_assets", "over_budget", "trend_label"]
    questions = list(Worked(n_train=64, n_test=0, difficulty=0, templates=names).load())[:8]
    sampler = Sampler(engine, Sampling(n=8, max_new_tokens=max_new_tokens), None, settings.dtype)
    sampler.sample(questions[:2])
    found = {"base": _speed(sampler, questions)[0]}
    model = load_trainable(resolve(settings), settings, register())
    for name, spread in SPREADS.items():
        laps = []
        for step in range(SYNCS + 1):
            _stir(model, spread, step)
            began = time.perf_counter()
            sampler.load_weights(model, f"{name} {step}")
            laps.append(time.perf_counter() - began)
        speed, groups = _speed(sampler, questions)
        found |= {"sync": statistics.median(laps[1:]), "groups_of_8": speed, f"mismatch_{name}": _gap(model, groups)}
    engine.close()
    return found


def _stir(model: Any, spread: float, seed: int) -> None:
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=spread, generator=generator)


def _speed(sampler: Any, questions: Any) -> tuple[float, Any]:
    sampler.engine.llm.reset_prefix_cache()
    began = time.perf_counter()
    groups = sampler.sample(questions)
    return sum(len(c.token_ids) for g in groups for c in g.completions) / (time.perf_counter() - began), groups


def _gap(model: Any, groups: Any) -> float:
    import torch

    from finr1.training.rows.logprobs import completion_stats
    from finr1.training.rows.rows import RowGroup, make_row

    gaps = []
    for group in groups:
        completions = group.completions
        prompt, ids = completions[0].prompt_token_ids, [c.token_ids for c in completions]
        with torch.no_grad():
            ours_N = completion_stats(model, make_row([RowGroup(prompt, ids, range(len(ids)))])).logprobs_N
        gaps.append((ours_N - torch.tensor([p for c in completions for p in c.logprobs])).abs())
    return float(torch.cat(gaps).mean())


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--sync", choices=("merged", "adapter"), help="one engine alone; prints its figures as JSON")
    arguments = parser.parse_args()
    if arguments.sync:
        print(json.dumps(measure(arguments.sync, arguments.rank, arguments.max_new_tokens)))
        return
    found = {}
    for sync in ("merged", "adapter"):
        command = [sys.executable, __file__, "--sync", sync, "--rank", str(arguments.rank)]
        command += ["--max-new-tokens", str(arguments.max_new_tokens)]
        done = subprocess.run(
            command, cwd=REPO, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=True, capture_output=True, text=True
        )
        found[sync] = json.loads(done.stdout.splitlines()[-1])
    figures = Figures("lora_sync")
    for name, peer in found["merged"].items():
        goal, unit = GOALS.get(name.split("_")[0], ("told, none", "tokens/s"))
        figures.add(name, found["adapter"][name], goal, unit, peer)
    figures.write()


if __name__ == "__main__":
    main()
