"""Lightning strategies for several ranks: a copy of the weights on each, or a shard.

Both are Lightning's DDP strategy (processes, devices, first rank) without DDP's wrapper, which would average gradients
in every backward pass. Here losses are divided by global counts, and gradients are summed once per optimiser step.
"""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import Precision
from pytorch_lightning.plugins.environments import TorchElasticEnvironment  # type: ignore[attr-defined]
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor

from finr1.training.loop.masters import Bf16Weights
from finr1.training.loop.sharding import cpu_copy, shard, whole_state


class Replicas(DDPStrategy):
    """A copy of the model on each rank; `StepModule.optimise` sums the gradients.

    Ranks may have different numbers of rows, or none.
    """

    def __init__(self) -> None:
        super().__init__(cluster_environment=TorchElasticEnvironment())

    def configure_ddp(self) -> None:
        """Start all ranks with the first one's weights."""
        module: Any = self.lightning_module
        module.ranks.broadcast_parameters(p for p in module.model.parameters() if p.requires_grad)


class Shards(Replicas):
    """A shard of every weight, gradient and optimiser state on each rank (`sharding.py`).

    The first rank writes a checkpoint as one file: full weights, and each parameter's optimiser states of all ranks.
    A resume loads it before the weights are sharded.
    """

    def setup(self, trainer: pl.Trainer) -> None:
        """Keep the weights in fp32, and gather them in bf16 if the trainer has `Bf16Weights`."""
        self.dtype = torch.float32
        if isinstance(self.precision_plugin, Bf16Weights):
            self.precision_plugin, self.dtype = Precision(), torch.bfloat16
        super().setup(trainer)

    def model_to_device(self) -> None:
        """Nothing to move: only shards go to the device."""

    def configure_ddp(self) -> None:
        """Shard the weights, which all ranks have read from the same folder."""
        module: Any = self.lightning_module
        shard(module.model, self.root_device, self.dtype)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Full weights on the first rank, nothing on the others."""
        assert self.lightning_module is not None
        return dict(whole_state(self.lightning_module, keep=self.is_global_zero))

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Gather each parameter's state as a list over ranks on the first rank, one parameter at a time."""
        module: Any = self.lightning_module
        state: dict[str, Any] = super().optimizer_state(optimizer)
        numbers = [number for group in state["param_groups"] for number in group["params"]]
        gathered = {number: module.ranks.to_first(cpu_copy(state["state"].get(number))) for number in numbers}
        return {**state, "state": gathered if self.is_global_zero else {}}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Memory-map the file, so that the ranks of a machine do not each hold all of it."""
        checkpoint: dict[str, Any] = torch.load(checkpoint_path, map_location="cpu", mmap=True, weights_only=True)
        return checkpoint

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load this rank's part of the optimiser states."""
        states = []
        for saved in checkpoint["optimizer_states"]:
            own = {number: cpu_copy(of_rank[self.global_rank]) for number, of_rank in saved["state"].items()}
            states.append({**saved, "state": {number: state for number, state in own.items() if state is not None}})
        super().load_optimizer_state_dict({"optimizer_states": states})

    def teardown(self) -> None:
        """Leave the shards where they are: they are gathered once more for the export."""
        self.precision_plugin.teardown()
        assert self.accelerator is not None
        self.accelerator.teardown()
        self.checkpoint_io.teardown()
