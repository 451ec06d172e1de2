"""Train a tiny model on one or several ranks in child processes: `python tests/helpers/several.py <cases> <folder>`.

Writes `<case>.<ranks>.pt` to the folder: for each variant the gradient of every optimiser step before clipping, and the
rows and metrics of the first rank. AssertionError where the ranks end with different weights. The rank whose number is
in KILL dies by SIGKILL in its third optimiser step. Cases named `.pieces` shard the weights.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from finr1.core import ranks as several
from finr1.core.files import digest
from finr1.core.jsonl import read_jsonl
from finr1.core.ranks import Ranks
from finr1.core.tracking import Tracker, read_metrics
from finr1.core.types import Completion, Verdict
from finr1.parts.engine.base import Request
from finr1.parts.reward.base import RewardItem
from finr1.settings.checkpoint import CheckpointSettings
from finr1.settings.grpo import (
    LOSSES,
    AdvantageSettings,
    CorrectionSettings,
    GrpoSettings,
    HeldOutSettings,
    LossSettings,
    SamplesSettings,
)
from finr1.settings.model import ModelSettings
from finr1.settings.sampling import Sampling
from finr1.settings.sft import SftSettings
from finr1.training.grpo.canary import Canary
from finr1.training.grpo.held_out import HeldOutEvaluation
from finr1.training.grpo.questions import make_plan
from finr1.training.grpo.record import Services
from finr1.training.grpo.reference import Reference
from finr1.training.grpo.run import load_exported
from finr1.training.grpo.sampler import Sampler
from finr1.training.grpo.step import GrpoModule, Inference
from finr1.training.loop.checkpoints import Checkpoints
from finr1.training.loop.fit import fit
from finr1.training.loop.sharding import is_sharded, whole_state
from finr1.training.model.weights import export
from finr1.training.rows.rows import RowGroup
from finr1.training.sft.step import SftModule
from tests.helpers.killing import Chance, adapted, kill_at
from tests.helpers.stages import question
from tests.helpers.tiny_engine import TinyEngine
from tests.helpers.tiny_model import VOCABULARY, tiny

Gradients = list[dict[str, torch.Tensor]]
QUESTIONS = [question(f"question {i}") for i in range(10)]
STEPS, PER_STEP = 3, 4
PLAN = make_plan(QUESTIONS, STEPS, PER_STEP, seed=0)
# Without spread: in step 0 all that the second of two ranks asks, in step 1 all groups but one, in step 2 one.
SHORT = [q.text for q in [*PLAN[0][1::2], *PLAN[1][:3]]]


class Bar:
    def advance(self, *_: Any, **__: Any) -> None: ...


class Odd:
    """1 for an odd number of tokens; undecided for one in twelve completions of several tokens."""

    name, weight = "odd", 1.0

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        unknown = [" " in item.text and int(digest(item.text), 16) % 12 == 0 for item in items]
        values = [float(len(item.text.split()) % 2) for item in items]
        return [Verdict(None if u else value) for value, u in zip(values, unknown, strict=True)]


class Off(TinyEngine):
    """Log-probs up to 0.3 off the trainer's, deterministically: some ratios are clipped, some corrected."""

    def _complete(self, request: Request, sampling: Sampling, sample: int) -> Completion:
        whole = super()._complete(request, sampling, sample)
        generator = torch.Generator().manual_seed(sum(whole.token_ids))
        shift = 0.6 * (torch.rand(len(whole.logprobs), generator=generator) - 0.5)
        return replace(whole, logprobs=[p + float(d) for p, d in zip(whole.logprobs, shift, strict=True)])


def trainer(ranks: Ranks, case: str, bf16: bool) -> dict[str, Any]:
    plugins = {"plugins": [{"_target_": "finr1.training.loop.masters.Bf16Weights"}]} if bf16 else {}
    strategy = {"strategy": "fsdp"} if case.endswith("pieces") else {}
    return {
        "_target_": "pytorch_lightning.Trainer",
        "accelerator": "cpu",
        "devices": ranks.world,
        **strategy,
        **plugins,
    }


def sgd(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr)


def adamw(parameters: Any, lr: float) -> torch.optim.Optimizer:
    """With an epsilon so large that gradients of rounding errors have no effect."""
    return torch.optim.AdamW(parameters, lr=lr, eps=1e-4, fused=True)


def adamw_8bit(parameters: Any, lr: float) -> torch.optim.Optimizer:
    """With 8-bit states also for these small tensors."""
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(parameters, lr=lr, eps=1e-4, min_8bit_size=64)  # type: ignore[no-any-return]


class NoTokenizer:
    def save_pretrained(self, folder: Path) -> None: ...


@contextmanager
def recorded(module: Any) -> Iterator[Gradients]:
    """Record the full gradients of each optimiser step."""
    plain, found = module.sum_gradients, []

    def sum_gradients() -> torch.Tensor:
        norm: torch.Tensor = plain()
        named = [name for name, p in module.model.named_parameters() if p.requires_grad]
        grads = {n: p.grad for n, p in zip(named, module.masters.trained, strict=True) if p.grad is not None}
        found.append({name: whole(module, grad) for name, grad in grads.items()})
        return norm

    module.sum_gradients = sum_gradients
    yield found
    del module.sum_gradients


def whole(module: Any, part: torch.Tensor) -> torch.Tensor:
    """A copy of an optimiser tensor, gathered from all ranks where it is sharded."""
    return torch.cat(module.ranks.gather(part)) if is_sharded(module.model) else part.clone()


def sft(ranks: Ranks, folder: Path, settings: dict[str, Any]) -> Any:
    """Steps of four rows, one row (a rank has none) and three rows, of different lengths."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randint(1, VOCABULARY, (n,), generator=generator).tolist()  # noqa: E731
    group = lambda i: RowGroup(draw(2 + i), [draw(9 - i)], [i])  # noqa: E731
    rows = [[group(i), group(i + 1)] if i % 3 else [group(i)] for i in range(8)]
    plan = [rows[:4], rows[4:5], rows[5:]]
    own, optimizer = settings.get("settings", {}), settings.get("optimizer", sgd)
    model = adapted() if "drawn" in settings else tiny(**settings.get("model", {}))
    known = SftSettings(**{"learning_rate": 0.1, **own})
    return SftModule(model, optimizer, known, plan, Tracker(folder), Bar(), ranks)  # type: ignore[arg-type]


def grpo(ranks: Ranks, folder: Path, settings: dict[str, Any]) -> Any:
    """Complete steps: questions split across ranks, groups without spread, some undecided completions."""
    drawn, optimizer = settings.pop("drawn", False), settings.pop("optimizer", sgd)
    reward = Chance() if drawn or settings.pop("chance", False) else Odd()
    known = {"steps": STEPS, "questions_per_step": PER_STEP, "group_size": 4, "learning_rate": 0.2, "warmup_steps": 0}
    sampling = Sampling(n=4, max_new_tokens=6)
    samples = SamplesSettings(kept=99)
    options = GrpoSettings(**{**known, "sampling": sampling, "row_tokens": 12, "samples": samples, **settings})
    sampler = Sampler(Off(SHORT), sampling, None, "float32")
    held_out = [question(f"held out {i}") for i in range(3)] if options.eval.every_steps else []
    return GrpoModule(
        adapted() if drawn else tiny(),
        optimizer,
        options,
        PLAN,
        Inference(
            sampler,
            Canary(sampler.engine, range(1, 20), bound=0.01),
            HeldOutEvaluation(held_out, sampler, options, folder, print, ranks),
        ),
        {"reward": reward},
        Services(folder, Tracker(folder), Bar(), ranks),  # type: ignore[arg-type]
        Reference(tiny) if options.loss.beta else None,
    )


CLIPPED = {"max_grad_norm": 0.05}
DRAWN = {"drawn": {"drawn": True}}  # dropout, and a reward that uses random numbers
CASES: dict[str, tuple[Callable[[Ranks, Path, dict[str, Any]], Any], dict[str, dict[str, Any]]]] = {
    "sft": (sft, {"plain": {}}),
    "sft.drawn": (sft, DRAWN),
    "grpo.drawn": (grpo, DRAWN),
    "sft.pieces": (
        sft,
        {
            "plain": {"settings": CLIPPED},
            "AdamW, tied": {  # sizes not divisible by two ranks
                "settings": {**CLIPPED, "learning_rate": 0.01, "weight_decay": 0.1},
                "optimizer": adamw,
                "model": {"kind": "qwen2", "tie_word_embeddings": True, "vocab_size": 51, "intermediate_size": 49},
            },
            "AdamW, 8 bits": {"settings": {**CLIPPED, "learning_rate": 0.01}, "optimizer": adamw_8bit},
            "bf16": {"settings": CLIPPED, "bf16": True},
        },
    ),
    "grpo.pieces": (
        grpo,
        {
            "clipped": CLIPPED,
            "two updates": {**CLIPPED, "updates_per_rollout": 2, "row_tokens": 30},
            "divergence": {"loss": LossSettings(beta=0.2, entropy_bonus=0.1)},
            "best": {"eval": HeldOutSettings(every_steps=1), "refill_rounds": 3},
        },
    ),
    "sft.killed.pieces": (sft, {"drawn": {"settings": {"learning_rate": 0.01}, "optimizer": adamw_8bit}}),
    "grpo.killed.pieces": (grpo, {"drawn": {"chance": True, "optimizer": adamw, "learning_rate": 0.01}}),
    "grpo": (
        grpo,
        {
            **{kind: {"loss": LossSettings(kind=kind)} for kind in LOSSES},
            **{
                f"{kind}, two updates": {"loss": LossSettings(kind=kind), "updates_per_rollout": 2}
                for kind in ("dapo", "bnpo", "gspo")
            },
            **{
                kind: {"correction": CorrectionSettings(kind=kind, high=1.0)}
                for kind in ("token_mask", "sequence_truncate")
            },
            "divergence and entropy": {"loss": LossSettings(beta=0.2, entropy_bonus=0.1)},
            "counted over all": {"loss": LossSettings(normaliser="all"), "advantage": AdvantageSettings(scale="batch")},
            "asked anew": {"refill_rounds": 3, "advantage": AdvantageSettings(baseline="leave_one_out")},
            "evaluated": {"eval": HeldOutSettings(every_steps=2), "loss": LossSettings(mask_truncated=True)},
        },
    ),
}


def train(case: str, ranks: Ranks, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Train all steps; returns the results that must be equal on one rank and on several."""
    folder.mkdir(parents=True, exist_ok=True)
    module = CASES[case][0](ranks, folder, {name: value for name, value in settings.items() if name != "bf16"})
    if os.environ.get("KILL") == str(ranks.rank):
        kill_at(type(module), "optimise", 2)
    kept = Checkpoints(folder, CheckpointSettings(keep_best="eval" in settings), print)
    with recorded(module) as gradients:
        fit(module, len(module.plan), kept, trainer(ranks, case, settings.get("bf16", False)), every=2)
    states: Any = module.optimizers().state
    state = [v for p, of_p in states.items() for v in of_p.values() if getattr(v, "shape", None) == p.shape]
    held = [sum(tensor.numel() for tensor in part) for part in (module.masters.trained, state)]
    if "eval" in settings and settings["eval"].every_steps == 1:
        assert load_exported(module, kept, "best", print) == 1  # the weights that follow
    weights = whole_state(module.model, keep=True)
    if case.endswith("pieces"):
        export(module.model, NoTokenizer(), folder / "model", ModelSettings(dtype="float32"), ranks)  # type: ignore[arg-type]
    for other in ranks.gather(weights):
        assert all(torch.equal(weights[name], other[name]) for name in weights), "the ranks' weights differ"
    files = {path.name: list(read_jsonl(path)) for path in folder.glob("*.jsonl") if path.name != "metrics.jsonl"}
    return {
        "gradients": gradients,
        "weights": weights,
        "held": ranks.gather(held),
        "metrics": read_metrics(folder, case.split(".")[0]),
        "files": files,
    }


def main(cases: str, folder: Path) -> None:
    torch.set_num_threads(1)
    ranks = several.init_ranks()
    for case in cases.split(","):
        own = folder / f"{case}.{ranks.world}.rank{ranks.rank}"
        variants = enumerate(CASES[case][1].items())
        found = {name: train(case, ranks, own / str(i), settings) for i, (name, settings) in variants}
        if ranks.first:
            torch.save(found, folder / f"{case}.{ranks.world}.pt")
    ranks.gather(None)  # wait until all ranks are done


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
    several.leave(0)
