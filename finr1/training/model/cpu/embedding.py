"""Gradients of the vocabulary's matrices written where they are kept, on CPU.

Embedding and head are the largest weights of a small model (of SmolLM2-135M one matrix, 113 MB in fp32). autograd makes
each of their gradients a tensor of its own, for the embedding a matrix that is zero but for the row's tokens, and then
copies or adds it. Here both are added to the weight's gradient (as by Megatron-LM's gradient accumulation fusion).
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding

MARK = "adds_up_in_place"


def lean_vocabulary(model: Any) -> None:
    """Have the gradients of input embedding and head go straight into their weights', on CPU; names stay.

    For `Tensor.backward` alone: `torch.autograd.grad` would find no gradient of them.
    """
    module, head = model.get_input_embeddings(), model.get_output_embeddings()
    plain = type(module) is torch.nn.Embedding and not (module.max_norm or module.sparse or module.scale_grad_by_freq)
    if plain and type(head) is torch.nn.Linear:
        module.forward = MethodType(_forward, module)
        for weight in (module.weight, head.weight):
            setattr(weight, MARK, True)


def _forward(module: Any, ids: Tensor) -> Tensor:
    if not in_place(module.weight):
        return type(module).forward(module, ids)  # type: ignore[no-any-return]
    apply: Any = Lookup.apply
    return apply(ids, module.weight, module.padding_idx)  # type: ignore[no-any-return]


class Lookup(torch.autograd.Function):
    """Rows of the weight."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight_VD: Tensor, padding_idx: int | None) -> Tensor:
        """The shape of `ids`, and D."""
        ctx.save_for_backward(ids, weight_VD)
        ctx.padding_idx = padding_idx
        return embedding(ids, weight_VD)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Into the weight's gradient. A padding token has none, as in torch."""
        ids, weight_VD = ctx.saved_tensors
        if ctx.needs_input_grad[1]:
            grad_TD, ids_T = gradients[0].flatten(0, -2), ids.flatten()
            if ctx.padding_idx is not None:
                grad_TD = grad_TD.masked_fill((ids_T == ctx.padding_idx)[:, None], 0.0)
            if weight_VD.grad is None:
                weight_VD.grad = torch.zeros_like(weight_VD)
            weight_VD.grad.index_add_(0, ids_T, grad_TD.to(weight_VD.dtype))
        return None, None, None


def in_place(weight: Tensor) -> bool:
    """Whether gradients are to be added to the weight's own: it is marked, on CPU, and nobody gathers it for a pass."""
    # FSDP computes with parameters of its own, which carry no mark.
    return hasattr(weight, MARK) and weight.device.type == "cpu"
