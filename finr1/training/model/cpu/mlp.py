"""The gated MLP of Llama, Qwen2 and Qwen3 with fewer activations saved for the backward pass.

down(silu(gate) * up), where gate and up are the widest activations of a layer (Shazeer, arXiv 2002.05202 Eq. 6). torch
saves gate, up, silu(gate) and their product. Here silu(gate) and the product are recomputed in the backward pass by the
same operations: outputs and gradients are bit-identical.
"""

from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import silu

KNOWN = ("LlamaMLP", "Qwen2MLP", "Qwen3MLP")


def lean_mlps(model: torch.nn.Module) -> int:
    """Patch every gated MLP of a known class; returns their number. Weights keep their names."""
    mlps = [m for m in model.modules() if type(m).__name__ in KNOWN and _is_silu(m)]
    for mlp in mlps:
        mlp.forward = MethodType(_forward, mlp)
    return len(mlps)


def _is_silu(module: Any) -> bool:
    return isinstance(module.act_fn, torch.nn.SiLU) or type(module.act_fn).__name__ == "SiLUActivation"


def _forward(module: Any, x: Tensor) -> Tensor:
    gate, up = module.gate_proj(x), module.up_proj(x)
    apply: Any = Gated.apply
    activated: list[Tensor] = []
    product = apply(gate, up, activated)
    # A saved tensor keeps `pack` alive, so `pack` must not hold the product: it recognises it by its memory.
    inputs, place = (gate.detach(), up.detach()), _place(product)

    def pack(saved: Tensor) -> Any:
        return Recompute(*inputs, saved.shape, activated) if _place(saved) == place and saved.is_contiguous() else saved

    with torch.autograd.graph.saved_tensors_hooks(pack, _unpack):
        return module.down_proj(product)  # type: ignore[no-any-return]


def _place(x: Tensor) -> tuple[int, int, torch.dtype]:
    return x.data_ptr(), x.numel(), x.dtype


class Recompute(NamedTuple):
    """Saved instead of the product: what to recompute it from."""

    gate: Tensor
    up: Tensor
    shape: torch.Size
    activated: list[Tensor]  # silu(gate), handed from `_unpack` to `Gated.backward`


def _unpack(saved: Any) -> Tensor:
    if not isinstance(saved, Recompute):
        return saved  # type: ignore[no-any-return]
    saved.activated[:] = [silu(saved.gate)]
    return (saved.activated[0] * saved.up).view(saved.shape)


class Gated(torch.autograd.Function):
    """silu(gate) * up; the backward pass takes silu(gate) from `activated` if `_unpack` has put it there."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activated: list[Tensor]) -> Tensor:
        """The product, in the shape of both inputs."""
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
