"""What SFT and GRPO share of a training loop: learning rate, checkpoints that survive a kill, the Lightning trainer.

A training run is a fixed plan of steps. The module counts the steps it has done (`steps_done`); a checkpoint carries
that number beside weights, optimiser and random states, and a resumed run walks the rest of the plan; the learning rate
is a function of the step alone. Lightning's own loop position is left out of the checkpoint: its `global_step` counts
optimiser steps, and a GRPO step may have none.

Over several ranks every one walks the same plan with the same weights. A step's rows are divided over them, and their
gradients are added up before the optimiser's step (not averaged: each loss is divided by counts over all ranks).
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import TorchCheckpointIO
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from finr1.context import build
from finr1.data.checkpoints import Checkpoints, random_state, seed_random, set_random_state, whole_file
from finr1.data.masters import Masters
from finr1.data.sharding import is_sharded, load_whole
from finr1.data.strategies import Replicas, Shards
from finr1.errors import ConfigError
from finr1.model.load import core
from finr1.ranks import ALONE, Ranks, lost_in_passes, sharded

T = TypeVar("T")


def learning_rate(step: int, n_steps: int, warmup_steps: int, peak: float, schedule: str) -> float:
    """Linear warm-up, then constant, linear to zero, or a half cosine to zero. Steps count from 0."""
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return peak
    done = (step - warmup_steps) / max(1, n_steps - warmup_steps)
    return peak * (1 - done if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done)))


class Steps(IterableDataset[int]):
    """The numbers of the steps still to do, read when training begins (after a checkpoint was loaded)."""

    def __init__(self, first: Callable[[], int], n_steps: int) -> None:
        self.first, self.n_steps = first, n_steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first(), self.n_steps))


class PlanData(pl.LightningDataModule):
    """The steps of a module's plan, for every rank alike: what a step's rows are, the module knows."""

    def __init__(self, module: StepModule, n_steps: int) -> None:
        super().__init__()
        self.steps = Steps(lambda: module.steps_done, n_steps)

    def train_dataloader(self) -> DataLoader[int]:
        """One step at a time."""
        return DataLoader(self.steps, batch_size=None)


class StepModule(pl.LightningModule):
    """A LightningModule that walks a plan of steps with manual optimisation.

    Subclasses say what a step does (`training_step`); this class holds the model, its optimiser and the position.
    """

    settings_of = "sft"  # the group of settings that the learning rate is in

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
        self.model = model
        self.make_optimizer = optimizer
        self.weight_decay = weight_decay
        self.steps_done = 0
        self.best_steps: int | None = None  # steps done at the best task metric so far
        self._random: dict[str, Any] | None = None  # of a checkpoint, until the first step after it
        self._masters: list[Tensor] = []  # of a checkpoint, until the optimiser is made

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The configured optimiser over the trainable parameters; no weight decay on vectors (norms, biases)."""
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
        """Back-propagate each micro-batch's loss, add all ranks' gradients, clip, step; returns the norm before that.

        ConfigError where that norm is not finite, before the weights are touched.
        """
        optimizer: Any = self.optimizers()
        for loss in losses:
            self.manual_backward(loss)
            self.masters.pull()
        norm = self.add_up()
        if not torch.isfinite(norm):
            why = f"the gradient norm of step {self.steps_done} is {float(norm)}; no weight was changed by it"
            raise ConfigError(
                f"{self.settings_of}.learning_rate", f"{lr:g}", why, "use a lower one, or trainer.fit.precision=32-true"
            )
        if norm + 1e-6 > max_grad_norm:  # else torch would multiply every gradient by one
            torch.nn.utils.clip_grads_with_norm_(self.masters.trained, max_grad_norm, norm)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.masters.push()
        # Autocast keeps bf16 copies of the weights for the whole training step: they are stale now.
        torch.clear_autocast_cache()
        return float(norm)

    def add_up(self) -> Tensor:
        """Add the gradients of all ranks; returns their norm, over all weights. Those in pieces have been added."""
        pieces = is_sharded(self.model)
        if not pieces:
            self.ranks.add_gradients(self.masters.trained)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.masters.trained if p.grad is not None])
        return self.ranks.sum(norm.double().square().cpu()).sqrt().to(norm) if pieces else norm

    def divide(self, rows: Sequence[T], sizes: Sequence[int]) -> list[tuple[T, float]]:
        """This rank's rows of an optimiser step, each with what its loss counts: 1, or 0 where it only keeps pace.

        Weights in pieces are gathered by all ranks at once, in each pass: all take as many.
        """
        if is_sharded(self.model):
            return [(row, float(counts)) for row, counts in self.ranks.rounds(rows, sizes)]
        return [(row, 1.0) for row in self.ranks.share(rows, sizes)]

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """The weights of a checkpoint's state dict into a model that has been trained; every rank must call this."""
        load_whole(self, state)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the own position and every rank's random states, leave out Lightning's loops."""
        checkpoint["steps_done"], checkpoint["best_steps"] = self.steps_done, self.best_steps
        checkpoint["random"] = self.ranks.gather(random_state())
        checkpoint["masters"] = self.masters.state()
        checkpoint.pop("loops", None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the position up again."""
        self.steps_done, self.best_steps = checkpoint["steps_done"], checkpoint["best_steps"]
        ranks = len(checkpoint["random"])
        if ranks != self.ranks.world:
            why = f"the checkpoint after {self.steps_done} steps is of {ranks} ranks"
            remedy = f"go on with {ranks}, or choose another name"
            raise ConfigError("trainer.fit.devices", self.ranks.world, why, remedy)
        self._random, self._masters = checkpoint["random"][self.ranks.rank], checkpoint["masters"]

    def on_train_end(self) -> None:
        """The model leaves training with all the precision it was trained in."""
        self.masters.unfold()

    def checkpoint_kept(self, oldest: int) -> None:
        """Told after each checkpoint how many steps the oldest one kept has done: a resume begins there at most."""

    def set_random(self, seed: int) -> None:
        """Before the first step of this process: the random states of the checkpoint, or seeded ones, a rank's own."""
        if self._random is None:
            seed_random(seed + self.ranks.rank)
        else:
            set_random_state(self._random)
            self._random = None


class StreamedCheckpoints(TorchCheckpointIO):
    """Checkpoints go straight to a file that then takes its place: a kill while saving leaves the one before.

    Lightning's own way holds the whole file in memory first (1.6 GB for the 135M model with AdamW).
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write the file, make sure that it is on disk, put it in place."""
        with whole_file(Path(path)) as file:
            torch.save(checkpoint, file)


class Checkpoint(pl.Callback):
    """Saves every `every` steps and at a new best task metric that is to be kept, but not after the last step.

    All ranks have a part in a checkpoint; the first one writes it, and keeps the others to the rule.
    """

    def __init__(self, kept: Checkpoints, every: int, n_steps: int, seed: int) -> None:
        self.kept, self.every, self.n_steps, self.seed = kept, every, n_steps, seed
        self.begun = False

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        """The random states are set after all else that a start does: what it draws changes nothing."""
        if not self.begun:
            module.set_random(self.seed)
            self.begun = True

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        """After each step of the plan."""
        done, best = module.steps_done, module.best_steps
        if done < self.n_steps and (done % self.every == 0 or (self.kept.rule.keep_best and best == done)):
            if module.ranks.first:
                self.kept.make_room(best)
            trainer.save_checkpoint(self.kept.path(done))
            if module.ranks.first:
                self.kept.prune(best)
                module.checkpoint_kept(self.kept.steps()[0])


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks instead of giving each back to the kernel; nothing where there is no glibc.

    A micro-batch allocates gigabytes in blocks that glibc would map and unmap every time; on CPU the page faults cost a
    good part of the step (`experiments/benchmarks/allocator.py` measures it).
    """
    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_mmap_threshold, 32 << 20)  # glibc's upper bound; larger blocks (checkpoints) still go back
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def fit(
    module: StepModule, n_steps: int, kept: Checkpoints, trainer_node: Mapping[str, Any], every: int, seed: int = 0
) -> None:
    """Walk the plan from the newest whole checkpoint, or from the start; `seed` is of what the steps draw.

    Every rank calls this; which checkpoint is taken up, the first one says.
    """
    keep_freed_memory()
    newest = module.ranks.of_first(kept.newest() if module.ranks.first else None)
    several: dict[str, Any] = {"strategy": "auto"}
    if module.ranks.world > 1:
        full = core(module.model) is module.model
        several = {"strategy": Shards() if sharded(trainer_node, full) else Replicas()}
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers, loggers and checkpoints does not apply here
        trainer: pl.Trainer = build(
            {**trainer_node, **several},
            max_epochs=1,
            logger=False,
            callbacks=[Checkpoint(kept, every, n_steps, seed)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        trainer.strategy.checkpoint_io = StreamedCheckpoints()
        with lost_in_passes():
            trainer.fit(module, datamodule=PlanData(module, n_steps), ckpt_path=newest)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if module.steps_done != n_steps:
        raise RuntimeError(f"training ended after {module.steps_done} of {n_steps} steps")


def shuffled(n: int, epochs: int, seed: int) -> list[list[int]]:
    """For each epoch the numbers 0 … n-1 in a seeded order of its own."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(n, generator=generator).tolist() for _ in range(epochs)]


def batches(order: Sequence[int], size: int) -> list[Sequence[int]]:
    """Cut into pieces of `size`; the last may be shorter."""
    return [order[i : i + size] for i in range(0, len(order), size)]
