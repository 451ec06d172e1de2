"""The gated MLP of Llama, Qwen2 and Qwen3 with less kept for the backward pass.

down(silu(gate) up), where gate and up are the widest activations of a layer (Shazeer, arXiv 2002.05202 Eq. 6). torch
keeps gate, silu(gate), up and their product; here silu(gate) and the product are computed anew in the backward pass, by
the same operations, once for both of its uses: results and gradients are the same to the last bit.
"""

from __future__ import annotations

from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import silu

KNOWN = ("LlamaMLP", "Qwen2MLP", "Qwen3MLP")


def lean_mlps(model: torch.nn.Module) -> int:
    """Have every gated MLP of a known class keep less; returns how many. Weights keep their names."""
    found = [m for m in model.modules() if type(m).__name__ in KNOWN and _is_silu(m)]
    for module in found:
        module.forward = MethodType(_forward, module)
    return len(found)


def _is_silu(module: Any) -> bool:
    return isinstance(module.act_fn, torch.nn.SiLU) or type(module.act_fn).__name__ == "SiLUActivation"


def _forward(module: Any, x: Tensor) -> Tensor:
    gate, up = module.gate_proj(x), module.up_proj(x)
    apply: Any = Gated.apply
    activated: list[Tensor] = []
    product = apply(gate, up, activated)
    # What is saved keeps `pack` alive, which therefore must not hold the product itself.
    parts, place = (gate.detach(), up.detach()), _place(product)

    def pack(saved: Tensor) -> Any:
        return Kept(*parts, saved.shape, activated) if _place(saved) == place and saved.is_contiguous() else saved

    with torch.autograd.graph.saved_tensors_hooks(pack, _unpack):
        return module.down_proj(product)  # type: ignore[no-any-return]


def _place(x: Tensor) -> tuple[int, int, torch.dtype]:
    return x.data_ptr(), x.numel(), x.dtype


class Kept(NamedTuple):
    """What a product is computed from, in place of the product."""

    gate: Tensor
    up: Tensor
    shape: torch.Size
    activated: list[Tensor]  # silu(gate), between its two uses of a backward pass


def _unpack(saved: Any) -> Tensor:
    if not isinstance(saved, Kept):
        return saved  # type: ignore[no-any-return]
    saved.activated[:] = [silu(saved.gate)]
    return (saved.activated[0] * saved.up).view(saved.shape)


class Gated(torch.autograd.Function):
    """silu(gate) up; `activated` may hold silu(gate) when the backward pass comes, which takes it."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activated: list[Tensor]) -> Tensor:
        """The shape of both."""
        ctx.save_for_backward(gate, up)
        ctx.activated = activated
        return silu(gate) * up

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """d up = g silu(gate); d gate = g up silu'(gate)."""
        gate, up = ctx.saved_tensors
        (grad,) = gradients
        activated = ctx.activated.pop() if ctx.activated else silu(gate)
        return torch.ops.aten.silu_backward(grad * up, gate), grad * activated, None
