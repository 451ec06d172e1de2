"""The canary: after every weight sync, engine and trainer score one short text and must agree.

A sync that fails silently (an output head that is not replaced, a renamed parameter, a reload without effect) makes
the engine sample from another policy than the one being trained, which no other metric shows reliably.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from finr1.core.errors import ConfigError
from finr1.parts.engine.base import PolicyEngine
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row


class Canary:
    """Scores the same tokens with engine and trainer: one forward pass each, no sampling."""

    def __init__(self, engine: PolicyEngine, token_ids: Sequence[int], bound: float) -> None:
        self.engine, self.token_ids, self.bound = engine, list(token_ids), bound

    @torch.no_grad()
    def check(self, model: Any, step: int) -> float:
        """Mean |log p(trainer) - log p(engine)| per token, nats; ConfigError naming the step if above the bound."""
        row = make_row([RowGroup(self.token_ids[:1], [self.token_ids[1:]], [0])])
        with _without_dropout(model):
            trainer_N = completion_stats(model, row).logprobs_N
        engine_N = torch.tensor(self.engine.logprobs_of(self.token_ids), device=trainer_N.device)
        gap = float((trainer_N - engine_N).abs().mean())
        if not gap <= self.bound:  # NaN too
            why = f"with the weights after step {step} engine and trainer differ by {gap:.3g} nats per token"
            remedy = "the engine does not sample from the trained policy: do not trust any later step"
            raise ConfigError("grpo.canary.bound", self.bound, why, remedy)
        return gap


@contextmanager
def _without_dropout(model: torch.nn.Module) -> Iterator[None]:
    """Switch off dropout, which the engine lacks. Not by `model.eval()`: it would repack 4-bit weights."""
    dropping = [m for m in model.modules() if isinstance(m, torch.nn.Dropout) and m.training]
    for module in dropping:
        module.eval()
    try:
        yield
    finally:
        for module in dropping:
            module.train()


def check_names(before: frozenset[str], now: frozenset[str]) -> None:
    """ConfigError where the trainer's parameter names differ from those the engine loaded from the model folder."""
    missing, unknown = sorted(_loaded(before) - _loaded(now)), sorted(_loaded(now) - _loaded(before))
    if before and (missing or unknown):
        named = (("missing", missing), ("unknown", unknown))
        parts = [f"{len(names)} {what} ({names[0]} …)" for what, names in named if names]
        why = (
            f"engine and trainer name their parameters differently: {' and '.join(parts)}; "
            "the engine would silently keep old weights"
        )
        raise ConfigError("model", "…", why, "use a model whose checkpoint names transformers keeps in memory")


def check_layers(sent: frozenset[str], taken: frozenset[str]) -> None:
    """ConfigError where the engine has not loaded the adapter of every layer that the trainer changes."""
    missing = sorted(sent - taken)
    if missing:
        why = (
            f"the engine lacks {len(missing)} of the trainer's {len(sent)} adapted layers ({missing[0]} …) and "
            "would silently sample without them"
        )
        raise ConfigError("engine.policy.lora_sync", "adapter", why, "use merged, or other model.lora.targets")


def _loaded(names: frozenset[str]) -> set[str]:
    # Old checkpoints hold the rotary tables, which engines compute themselves.
    return {name for name in names if "rotary_emb." not in name}
