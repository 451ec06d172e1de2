"""bf16 weights with fp32 master copies: forward and backward pass in bf16, everything that adds up in fp32.

A step of AdamW is far below a bf16 weight's spacing (2^-8 of it): added to the weight itself most of it is lost. The
optimiser therefore works on fp32 copies, and the weights are their rounded values (Micikevicius et al., Mixed precision
training, arXiv 1710.03740 §3.1). Gradients of micro-batches are summed in fp32 too. Against autocast over fp32 weights
nothing is cast at every use, and activations between layers are bf16 as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from pytorch_lightning.plugins import Precision
from torch import Tensor
from torch.distributed.tensor import DTensor

Module = TypeVar("Module", bound=torch.nn.Module)


class Bf16Weights(Precision):
    """Lightning's plug-in that makes a module's weights bf16: `trainer=cpu_bf16`.

    Not Lightning's own `bf16-true`, which also makes bf16 the type of every new tensor while a step runs, rewards and
    log-probabilities among them. Buffers stay as they are: rotary frequencies are no good in bf16.
    """

    precision: Any = "bf16-weights"

    def convert_module(self, module: torch.nn.Module) -> torch.nn.Module:
        """The same module, its parameters in bf16."""
        return cast_weights(module, torch.bfloat16)


def cast_weights(module: Module, dtype: torch.dtype) -> Module:
    """The same module, its parameters in this type; buffers, and weights in 4 bits, as they were."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    return module


class Masters:
    """What the optimiser sees of the trained weights: itself where a weight is fp32 or wider, else an fp32 copy.

    Of a weight in pieces (`data/sharding.py`) it is this rank's piece, in the weight's own memory.
    """

    def __init__(self, weights: Iterable[torch.nn.Parameter]) -> None:
        self.weights = list(weights)
        self.trained = [_master(weight) for weight in self.weights]

    def pull(self) -> None:
        """Add the weights' gradients to the masters' and drop them: after each micro-batch, so that fp32 sums them."""
        for weight, master in self._pairs():
            if weight.grad is not None:
                grad, weight.grad = _local(weight.grad), None
                master.grad = grad.float() if master.grad is None else master.grad.add_(grad)

    @torch.no_grad()
    def push(self) -> None:
        """The masters' values, rounded, into the weights: after each optimiser step."""
        for weight, master in self._copies():
            weight.copy_(master)

    def state(self) -> list[Tensor]:
        """The copies, for a checkpoint; nothing where there are none."""
        return [master.detach() for _, master in self._copies()]

    @torch.no_grad()
    def load(self, state: Sequence[Tensor]) -> None:
        """Those of a checkpoint."""
        for (_, master), saved in zip(self._copies(), state, strict=True):
            master.copy_(saved)
        self.push()

    def unfold(self) -> None:
        """Give the weights their full precision: after training, for an export in fp32."""
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
