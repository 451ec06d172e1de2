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
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import TorchCheckpointIO
from torch.utils.data import DataLoader, IterableDataset

from finr1.core.build import build
from finr1.core.ranks import lost_in_passes, sharded
from finr1.training.loop.checkpoints import Checkpoints, whole_file
from finr1.training.loop.step_module import StepModule
from finr1.training.loop.strategies import Replicas, Shards
from finr1.training.model.load import base_model


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
    newest = module.ranks.broadcast(kept.newest() if module.ranks.first else None)
    several: dict[str, Any] = {"strategy": "auto"}
    if module.ranks.world > 1:
        full = base_model(module.model) is module.model
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
