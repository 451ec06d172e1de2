"""RMSNorm of Llama, Qwen2 and Qwen3 with fewer passes over memory, its bottleneck on CPU.

y = x w / sqrt(mean(x^2) + eps) (Zhang and Sennrich, arXiv 1910.07467 Eq. 4). Under autocast transformers' module
returns fp32, which every following linear layer casts again and saves. This one returns the autocast dtype, and saves
its input and one number per token for the backward pass.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor

KNOWN = ("LlamaRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")


def fuse_norms(model: torch.nn.Module) -> int:
    """Patch every RMSNorm of a known class to use `RmsNorm` on CPU; returns their number. Weights keep their names."""
    norms = [module for module in model.modules() if type(module).__name__ in KNOWN]
    for norm in norms:
        norm.forward = MethodType(_forward, norm)
    return len(norms)


def _forward(module: Any, x: Tensor) -> Tensor:
    if x.device.type != "cpu":
        return type(module).forward(module, x)  # type: ignore[no-any-return]
    kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    apply: Any = RmsNorm.apply
    return apply(x, module.weight, module.variance_epsilon, kind)  # type: ignore[no-any-return]


class RmsNorm(torch.autograd.Function):
    """RMSNorm over the last dimension, computed in at least fp32, returned in dtype `kind`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float, kind: torch.dtype) -> Tensor:
        """The normed input, in the shape of `x`."""
        wide = x.to(_wide(x))
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight_D, scale)
        normed: Tensor = wide * scale
        return normed.mul_(weight_D).to(kind)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """With n = x / rms: dw = sum g n, dx = (g w - n mean(g w n)) / rms."""
        x, weight_D, scale = ctx.saved_tensors
        kind = _wide(x)
        normed, grad, wide_D = x * scale, gradients[0].to(kind), weight_D.to(kind)
        product = (grad * normed).flatten(0, -2)
        # The sum over d of g w n of every token, as a matrix-vector product; autocast would round it.
        with torch.autocast("cpu", enabled=False):
            mean = product.mv(wide_D).div_(-x.shape[-1]).view_as(scale)
        d_x = (grad * wide_D).addcmul_(normed, mean).mul_(scale)
        return d_x.to(x.dtype), product.sum(0).to(weight_D.dtype), None, None


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
