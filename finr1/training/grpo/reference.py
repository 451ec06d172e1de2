"""The frozen reference policy of the KL term: the weights that GRPO starts from."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from finr1.training.loop.masters import cast_weights
from finr1.training.loop.sharding import is_sharded, shard_like
from finr1.training.model.load import base_model
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import Row


class Reference:
    """With adapters: the policy with its adapters disabled, which takes no memory. Else a copy, loaded on first use.

    `load` returns the model that training started from, also in a resumed run. The copy is sharded as the policy is.
    """

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self._frozen: Any = None

    @torch.no_grad()
    def logprobs(self, policy: Any, row: Row, temperature: float) -> Tensor:
        """log pi_ref of the row's completion tokens [N], without gradient."""
        if base_model(policy) is not policy:
            with policy.disable_adapter():
                return completion_stats(policy, row, temperature).logprobs_N
        if self._frozen is None:
            self._frozen = self._load().requires_grad_(False)
            if is_sharded(policy):
                shard_like(self._frozen, policy)
            else:
                like = next(policy.parameters())  # compare bf16 weights with bf16 weights
                self._frozen = cast_weights(self._frozen.to(like.device), like.dtype)
        return completion_stats(self._frozen, row, temperature).logprobs_N
