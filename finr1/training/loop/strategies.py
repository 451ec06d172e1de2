"""How a module's weights lie on several ranks: a copy on each, or a piece.

Both are Lightning's DDP strategy (processes, devices, who is first) without DDP's wrapper, which reduces within each
backward pass. Here a loss is divided by counts over all ranks, and gradients are added up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import Precision
from pytorch_lightning.plugins.environments import TorchElasticEnvironment  # type: ignore[attr-defined]
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor

from finr1.training.loop.masters import Bf16Weights
from finr1.training.loop.sharding import copy, shard, whole_state


class Replicas(DDPStrategy):
    """A copy of the model on each rank; `StepModule.optimise` adds the gradients up.

    A rank has as many rows as fall to it, or none, and one exchange an optimiser step is enough.
    """

    def __init__(self) -> None:
        super().__init__(cluster_environment=TorchElasticEnvironment())

    def configure_ddp(self) -> None:
        """All ranks begin with the first one's weights."""
        module: Any = self.lightning_module
        module.ranks.broadcast_parameters(p for p in module.model.parameters() if p.requires_grad)


class Shards(Replicas):
    """A piece of every weight, gradient and optimiser state on each rank (`data/sharding.py`).

    A checkpoint is one file of the first rank, like that of copies: whole weights, and of each parameter the states of
    all ranks. A resume loads it before the weights are divided.
    """

    def setup(self, trainer: pl.Trainer) -> None:
        """The weights stay fp32; in which type they are gathered is what `Bf16Weights` says."""
        self.dtype = torch.float32
        if isinstance(self.precision_plugin, Bf16Weights):
            self.precision_plugin, self.dtype = Precision(), torch.bfloat16
        super().setup(trainer)

    def model_to_device(self) -> None:
        """Only pieces go there."""

    def configure_ddp(self) -> None:
        """Divide the weights. All ranks have read them from the same folder."""
        module: Any = self.lightning_module
        shard(module.model, self.root_device, self.dtype)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights on the first rank, nothing on others."""
        assert self.lightning_module is not None
        return dict(whole_state(self.lightning_module, keep=self.is_global_zero))

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """On the first rank: each parameter's state as a list over ranks. One parameter at a time is sent."""
        module: Any = self.lightning_module
        state: dict[str, Any] = super().optimizer_state(optimizer)
        numbers = [number for group in state["param_groups"] for number in group["params"]]
        sent = {number: module.ranks.to_first(copy(state["state"].get(number))) for number in numbers}
        return {**state, "state": sent if self.is_global_zero else {}}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """What is in the file, read where it is used: all ranks of a machine would hold all of it."""
        checkpoint: dict[str, Any] = torch.load(checkpoint_path, map_location="cpu", mmap=True, weights_only=True)
        return checkpoint

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Each rank takes its own state."""
        rank = self.global_rank
        own = []
        for state in checkpoint["optimizer_states"]:
            mine = {number: copy(ranks[rank]) for number, ranks in state["state"].items() if ranks[rank] is not None}
            own.append({**state, "state": mine})
        super().load_optimizer_state_dict({"optimizer_states": own})

    def teardown(self) -> None:
        """Nothing moves: the pieces are gathered once more, to be exported."""
        self.precision_plugin.teardown()
        assert self.accelerator is not None
        self.accelerator.teardown()
        self.checkpoint_io.teardown()
