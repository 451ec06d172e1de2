"""Weights, gradients and optimiser states sharded over the ranks, for models that do not fit on one of them.

Uses torch's `fully_shard` (FSDP2; stage 3 of ZeRO, Rajbhandari et al., arXiv 1910.02054 §5): each rank holds a shard of
every weight, split along its first dimension. A layer is gathered before its forward and backward pass and freed
after it, and its gradients are reduced to shards. All ranks must therefore run the same passes (`StepModule.divide`).

The shards are fp32, like the master copies of `masters.py`; with `Bf16Weights` they are gathered in bf16. No rank ever
holds all weights. The optimiser, of any kind, updates the shards as plain tensors.
"""

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
    """Shard a causal language model's weights over all ranks, in place, on `device`.

    Passes are computed in `dtype`; gradients are summed (not averaged) in fp32. Each decoder layer is gathered by
    itself; embedding, final norm and head together. TypeError if transformers names no decoder layer of the model.
    """
    inner: Any = base_model(model)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.promote_types(dtype, torch.float32))
    layers = [m for m in inner.modules() if type(m).__name__ in (inner._no_split_modules or ())]
    if not layers:
        raise TypeError(f"{type(inner).__name__} has no `_no_split_modules`: all weights would be gathered at once")
    for module in (*layers, inner):
        part: Any = fully_shard(module, mesh=mesh, mp_policy=policy)
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # gloo supports no averaging reduction
    inner.row_stats = MethodType(row_stats, inner)
    register_fsdp_forward_method(inner, "row_stats")
    inner.compute_dtype = dtype


def shard_like(model: Any, like: Any) -> None:
    sharded: Any = base_model(like)
    shard(model, next(sharded.parameters()).device, sharded.compute_dtype)


def is_sharded(model: Any) -> bool:
    return isinstance(base_model(model), FSDPModule)


def whole_state(module: torch.nn.Module, keep: bool) -> dict[str, Tensor]:
    """Gather a state dict of full weights on the CPU of the ranks with `keep`; the others return {}.

    All ranks must call this together. Only one weight at a time is full on the others.
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
    """Load full weights into a module, sharded or not; KeyError for a missing name. The inverse of `whole_state`."""
    for name, tensor in module.state_dict(keep_vars=True).items():
        if isinstance(tensor, DTensor):
            shards, rank = state[name].chunk(tensor.device_mesh.size()), tensor.device_mesh.get_local_rank()
            if rank < len(shards):
                tensor.to_local().copy_(shards[rank])
        else:
            tensor.copy_(state[name])


def cpu_copy(state: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Copy a parameter's optimiser state to the CPU; None if there is none yet."""
    if state is None:
        return None
    return {key: value.to("cpu", copy=True) if isinstance(value, Tensor) else value for key, value in state.items()}
