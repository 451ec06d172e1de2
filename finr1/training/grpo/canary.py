"""The canary: after every weight sync one short text is scored by engine and trainer, which must agree.

A sync that fails in silence (a head that stays as it was, a parameter under another name, a reload that does nothing)
leaves samples of another policy than the one that is trained; no metric of the step shows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from finr1.core.errors import ConfigError
from finr1.parts.engine.base import PolicyEngine
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row


class Canary:
    """Scores the same tokens on both sides: one forward pass each, no sampling."""

    def __init__(self, engine: PolicyEngine, token_ids: Sequence[int], bound: float) -> None:
        self.engine, self.token_ids, self.bound = engine, list(token_ids), bound

    @torch.no_grad()
    def check(self, model: Any, step: int) -> float:
        """Mean |log p(trainer) - log p(engine)| a token, nats; ConfigError naming the step if it is over the bound."""
        row = make_row([RowGroup(self.token_ids[:1], [self.token_ids[1:]], [0])])
        with _without_dropout(model):
            ours_N = completion_stats(model, row).logprobs_N
        theirs_N = torch.tensor(self.engine.logprobs_of(self.token_ids), device=ours_N.device)
        gap = float((ours_N - theirs_N).abs().mean())
        if not gap <= self.bound:  # NaN too
            why = (
                f"with the weights after step {step} engine and trainer differ by {gap:.3g} nats a token on the canary"
            )
            remedy = "the engine does not sample from the policy that is trained: no later step can be trusted"
            raise ConfigError("grpo.canary_bound", self.bound, why, remedy)
        return gap


@contextmanager
def _without_dropout(model: torch.nn.Module) -> Iterator[None]:
    """Dropout is the trainer's alone. Only its modules change mode: in `eval()` 4-bit weights would be packed anew."""
    dropping = [m for m in model.modules() if isinstance(m, torch.nn.Dropout) and m.training]
    for module in dropping:
        module.eval()
    try:
        yield
    finally:
        for module in dropping:
            module.train()


def check_names(before: frozenset[str], now: frozenset[str]) -> None:
    """ConfigError where the trainer's parameter names are not those that the engine took from the model folder."""
    missing, unknown = sorted(_loaded(before) - _loaded(now)), sorted(_loaded(now) - _loaded(before))
    if before and (missing or unknown):
        parts = [
            f"{len(names)} {what} ({names[0]} …)"
            for names, what in ((missing, "missing"), (unknown, "unknown"))
            if names
        ]
        why = (
            f"of the trainer's parameters {' and '.join(parts)} to the engine, which would keep old weights in silence"
        )
        raise ConfigError("model", "…", why, "use a model whose checkpoint names transformers keeps in memory")


def check_layers(sent: frozenset[str], taken: frozenset[str]) -> None:
    """ConfigError where the engine has not taken the adapter of each layer that the trainer changes."""
    missing = sorted(sent - taken)
    if missing:
        why = (
            f"of the trainer's {len(sent)} adapted layers {len(missing)} ({missing[0]} …) are missing to the engine, "
            "which would sample without them in silence"
        )
        raise ConfigError("engine.policy.lora_sync", "adapter", why, "use merged, or other model.lora.targets")


def _loaded(names: frozenset[str]) -> set[str]:
    # Old checkpoints carry the rotary tables, which every engine computes itself.
    return {name for name in names if "rotary_emb." not in name}
