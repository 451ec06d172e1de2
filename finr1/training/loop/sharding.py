"""Weights, gradients and optimiser states divided over the ranks: for a model that does not fit on each of them.

torch's `fully_shard` (FSDP2; stage 3 of ZeRO, Rajbhandari et al., arXiv 1910.02054 §5): each rank holds a piece of
every weight, cut along its first dimension. A layer is gathered before its forward and its backward pass and dropped
after them, and its gradients are added up into pieces. So every rank must take the same passes (`StepModule.divide`).

The pieces are the fp32 master copies of `data/masters.py`. With `Bf16Weights` they are gathered in bf16: at no time
does a rank hold all weights, in either type. The optimiser works on the pieces as plain tensors, whatever it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from finr1.training.model.load import base_model
from finr1.training.model.weights import whole as gathered
from finr1.training.rows.logprobs import row_stats


def shard(model: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Divide a causal language model's weights over all ranks, in place, the pieces on `device`.

    Passes are computed in `dtype`, gradients added in fp32 (added, not averaged). Each of the layers that transformers
    never splits is gathered by itself; embedding, last norm and head are together. TypeError where there are none.
    """
    inner: Any = base_model(model)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.promote_types(dtype, torch.float32))
    layers = [m for m in inner.modules() if type(m).__name__ in (inner._no_split_modules or ())]
    if not layers:
        raise TypeError(
            f"{type(inner).__name__} names no layer that is never split: all weights would be gathered at once"
        )
    for module in (*layers, inner):
        part: Any = fully_shard(module, mesh=mesh, mp_policy=policy)
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # a sum that is divided otherwise is none of gloo's operations
    inner.row_stats = MethodType(row_stats, inner)
    register_fsdp_forward_method(inner, "row_stats")
    inner.computing_type = dtype


def shard_like(model: Any, like: Any) -> None:
    """Divide a model as another one is."""
    known: Any = base_model(like)
    shard(model, next(known.parameters()).device, known.computing_type)


def is_sharded(model: Any) -> bool:
    """Whether `shard` has been here."""
    return isinstance(base_model(model), FSDPModule)


def whole_state(module: torch.nn.Module, keep: bool) -> dict[str, Tensor]:
    """A state dict of whole weights on the CPU, where it is to be kept; every rank must call this at once.

    One weight at a time is whole on the ranks that keep nothing: they return {}.
    """
    kept: dict[int, Tensor] = {}  # tied weights are one
    state: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in kept:
            whole = gathered(tensor.detach())
            kept[id(tensor)] = whole.cpu() if keep else whole.new_empty(0)
        if keep:
            state[name] = kept[id(tensor)]
    return state


@torch.no_grad()
def load_whole(module: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
    """The inverse of `whole_state`, for weights that are whole or in pieces: each rank takes its own. KeyError."""
    for name, tensor in module.state_dict(keep_vars=True).items():
        if isinstance(tensor, DTensor):
            pieces, rank = state[name].chunk(tensor.device_mesh.size()), tensor.device_mesh.get_local_rank()
            if rank < len(pieces):
                tensor.to_local().copy_(pieces[rank])
        else:
            tensor.copy_(state[name])


def copy(state: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A parameter's state of an optimiser, its tensors copied to the CPU; None where it has none yet."""
    return (
        None if state is None else {k: v.to("cpu", copy=True) if isinstance(v, Tensor) else v for k, v in state.items()}
    )
