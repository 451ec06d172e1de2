"""Accumulate the gradients of embedding and head in place, on CPU.

Embedding and head are the largest weights of a small model (in SmolLM2-135M one tied matrix, 113 MB in fp32). autograd
allocates a full gradient for each use, for the embedding a matrix of mostly zeros, and then adds it. Here both are
added to the weight's `.grad` directly (as Megatron-LM's gradient accumulation fusion does).
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding

MARK = "accumulates_in_place"


def lean_vocabulary(model: Any) -> None:
    """Make input embedding and head add their gradients to `.grad` in place, on CPU; weight names stay.

    Only for `Tensor.backward`: `torch.autograd.grad` would find no gradient of these weights.
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
    """Embedding lookup with an in-place gradient."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight_VD: Tensor, padding_idx: int | None) -> Tensor:
        """Look up rows of the weight; returns [*ids.shape, D]."""
        ctx.save_for_backward(ids, weight_VD)
        ctx.padding_idx = padding_idx
        return embedding(ids, weight_VD)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Add to the weight's `.grad`. The padding token gets no gradient, as in torch."""
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
    """Whether a weight's gradient is accumulated in place: it is marked, and on CPU."""
    # FSDP computes with parameters of its own, which are not marked.
    return hasattr(weight, MARK) and weight.device.type == "cpu"
