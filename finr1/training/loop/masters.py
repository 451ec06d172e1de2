"""bf16 weights with fp32 master copies: forward and backward passes in bf16, sums in fp32.

An AdamW update is far below the resolution of a bf16 weight (2^-8 of its value) and would be mostly lost. The optimiser
therefore updates fp32 copies, and the weights are these copies rounded (Micikevicius et al., Mixed precision training,
arXiv 1710.03740 §3.1). Gradients of micro-batches are summed in fp32 too. Unlike autocast over fp32 weights, no weight
is cast at every use, and activations between layers are bf16 as well.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from pytorch_lightning.plugins import Precision
from torch import Tensor
from torch.distributed.tensor import DTensor

Module = TypeVar("Module", bound=torch.nn.Module)


class Bf16Weights(Precision):
    """Lightning precision plug-in that casts a module's weights to bf16: `trainer=cpu_bf16`.

    Lightning's own `bf16-true` also makes bf16 the default dtype during a step, so that rewards and log-probs would be
    bf16 too. Buffers are not cast: rotary frequencies need fp32.
    """

    precision: Any = "bf16-weights"

    def convert_module(self, module: torch.nn.Module) -> torch.nn.Module:
        return cast_weights(module, torch.bfloat16)


def cast_weights(module: Module, dtype: torch.dtype) -> Module:
    """Cast the parameters in place, except 4-bit weights; returns the module."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    return module


class Masters:
    """The parameters that the optimiser updates (`trained`): fp32 copies of bf16 weights, fp32 weights themselves.

    Of a sharded weight (`sharding.py`) it is this rank's shard as a plain tensor, in the weight's own memory.
    """

    def __init__(self, weights: Iterable[torch.nn.Parameter]) -> None:
        self.weights = list(weights)
        self.trained = [_master(weight) for weight in self.weights]

    def pull(self) -> None:
        """Move the weights' gradients to the masters, summed in fp32; called after each micro-batch."""
        for weight, master in self._pairs():
            if weight.grad is not None:
                grad, weight.grad = _local(weight.grad), None
                master.grad = grad.float() if master.grad is None else master.grad.add_(grad)

    @torch.no_grad()
    def push(self) -> None:
        """Copy the masters, rounded, into the weights; called after each optimiser step."""
        for weight, master in self._copies():
            weight.copy_(master)

    def state(self) -> list[Tensor]:
        """The fp32 copies, for a checkpoint."""
        return [master.detach() for _, master in self._copies()]

    @torch.no_grad()
    def load(self, state: Sequence[Tensor]) -> None:
        for (_, master), saved in zip(self._copies(), state, strict=True):
            master.copy_(saved)
        self.push()

    def unfold(self) -> None:
        """Give the weights the fp32 copies as values; called after training, for an export in fp32."""
        for weight, master in self._copies():
            weight.data = master.data

    def _pairs(self) -> list[tuple[torch.nn.Parameter, torch.nn.Parameter]]:
        return [(w, m) for w, m in zip(self.weights, self.trained, strict=True) if w is not m]

    def _copies(self) -> list[tuple[torch.nn.Parameter, torch.nn.Parameter]]:
        return [(w, m) for w, m in self._pairs() if not isinstance(w, DTensor)]


def _master(weight: torch.nn.Parameter) -> torch.nn.Parameter:
    if isinstance(weight, DTensor):
        return torch.nn.Parameter(_local(weight.detach()))
    return torch.nn.Parameter(weight.detach().float()) if weight.dtype.itemsize < 4 else weight


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
