"""The LightningModule that SFT and GRPO share: optimiser, schedule, gradient checks, one update per step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from torch import Tensor

from finr1.core.errors import ConfigError
from finr1.core.ranks import ALONE, Ranks
from finr1.training.loop.checkpoints import random_state, seed_random, set_random_state
from finr1.training.loop.masters import Masters
from finr1.training.loop.sharding import is_sharded, load_whole
from finr1.training.model.load import base_model
from finr1.training.rows.rows import is_single

T = TypeVar("T")


class StepModule(pl.LightningModule):
    """A LightningModule that runs a plan of steps with manual optimisation.

    Subclasses define a step (`training_step`); this class holds the model, the optimiser and the number of steps done.
    """

    settings_of = "sft"  # the config section of the learning rate

    def __init__(
        self,
        model: Any,
        optimizer: Callable[..., torch.optim.Optimizer],
        weight_decay: float,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.ranks = ranks
        self.model, self.single = model, is_single(base_model(model))
        self.make_optimizer = optimizer
        self.weight_decay = weight_decay
        self.steps_done = 0
        self.best_steps: int | None = None  # steps done at the best task metric so far
        self._random: dict[str, Any] | None = None  # from a checkpoint, until the first step after it
        self._masters: list[Tensor] = []  # from a checkpoint, until the optimiser is created

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Create the optimiser over the trainable parameters; no weight decay on vectors (norms, biases)."""
        self.masters = Masters(p for p in self.model.parameters() if p.requires_grad)
        if self._masters:
            self.masters.load(self._masters)
            self._masters = []
        parameters = self.masters.trained
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        return self.make_optimizer([group for group in groups if group["params"]], lr=0.0)

    def optimise(self, losses: Iterator[Tensor], lr: float, max_grad_norm: float) -> float:
        """One optimiser step: back-propagate each micro-batch's loss, sum gradients over ranks, clip, update.

        Returns the gradient norm before clipping; ConfigError if it is not finite, before any weight changes.
        """
        optimizer: Any = self.optimizers()
        for loss in losses:
            self.manual_backward(loss)
            self.masters.pull()
        norm = self.sum_gradients()
        if not torch.isfinite(norm):
            why = f"the gradient norm of step {self.steps_done} is {float(norm)} (the weights are unchanged)"
            remedy = "lower it, or use trainer.fit.precision=32-true"
            raise ConfigError(f"{self.settings_of}.learning_rate", f"{lr:g}", why, remedy)
        if norm + 1e-6 > max_grad_norm:  # else torch would multiply every gradient by 1
            torch.nn.utils.clip_grads_with_norm_(self.masters.trained, max_grad_norm, norm)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.masters.push()
        # Autocast caches bf16 copies of the weights for the whole training step: they are stale now.
        torch.clear_autocast_cache()
        return float(norm)

    def sum_gradients(self) -> Tensor:
        """Sum the gradients over ranks (sharded ones have been summed already); returns their global norm."""
        shards = is_sharded(self.model)
        if not shards:
            self.ranks.add_gradients(self.masters.trained)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.masters.trained if p.grad is not None])
        return self.ranks.sum(norm.double().square().cpu()).sqrt().to(norm) if shards else norm

    def divide(self, rows: Sequence[T], sizes: Sequence[int]) -> list[tuple[T, float]]:
        """This rank's rows of an optimiser step, each with the weight of its loss: 1, or 0 for a repeated row.

        Sharded weights are gathered by all ranks at once in each pass, so all ranks must run the same number of passes.
        """
        if is_sharded(self.model):
            return [(row, float(counts)) for row, counts in self.ranks.rounds(rows, sizes)]
        return [(row, 1.0) for row in self.ranks.share(rows, sizes)]

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Load a checkpoint's state dict into the trained model; every rank must call this."""
        load_whole(self, state)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the steps done and every rank's random states; drop Lightning's loop state."""
        checkpoint["steps_done"], checkpoint["best_steps"] = self.steps_done, self.best_steps
        checkpoint["random"] = self.ranks.gather(random_state())
        checkpoint["masters"] = self.masters.state()
        checkpoint.pop("loops", None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the steps done; random states and master weights are kept until they are needed."""
        self.steps_done, self.best_steps = checkpoint["steps_done"], checkpoint["best_steps"]
        ranks = len(checkpoint["random"])
        if ranks != self.ranks.world:
            why = f"the checkpoint after {self.steps_done} steps has {ranks} ranks"
            remedy = f"continue with {ranks}, or choose another name"
            raise ConfigError("trainer.fit.devices", self.ranks.world, why, remedy)
        self._random, self._masters = checkpoint["random"][self.ranks.rank], checkpoint["masters"]

    def on_train_end(self) -> None:
        """Give the model the fp32 weights it was trained with."""
        self.masters.unfold()

    def checkpoint_kept(self, oldest: int) -> None:
        """Called after each save with the steps done of the oldest kept checkpoint: no resume starts before it."""

    def set_random(self, seed: int) -> None:
        """Set this rank's random states before the first step: from the checkpoint, or seeded."""
        if self._random is None:
            seed_random(seed + self.ranks.rank)
        else:
            set_random_state(self._random)
            self._random = None
