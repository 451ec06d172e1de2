"""The training loop that SFT and GRPO share: a Lightning trainer with checkpoints that survive a kill.

A training run is a fixed plan of steps. The module counts the steps done (`steps_done`). A checkpoint holds that
number, the weights, optimiser and random states, and a resumed run does the rest of the plan; the learning rate depends
on the step alone. Lightning's loop position is not saved: its `global_step` counts optimiser steps, and a GRPO step may
have none.

With several ranks each does the same steps with the same weights. The rows of a step are split across ranks, and the
gradients are summed before the optimiser step (not averaged: losses are divided by global counts).
"""

import contextlib
import ctypes
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import TorchCheckpointIO
from torch.utils.data import DataLoader, IterableDataset

from finr1.core.build import build
from finr1.core.ranks import lost_in_passes, sharded
from finr1.training.loop.checkpoints import Checkpoints, checkpoint_file
from finr1.training.loop.step_module import StepModule
from finr1.training.loop.strategies import Replicas, Shards
from finr1.training.model.load import base_model


class Steps(IterableDataset[int]):
    """The numbers of a module's remaining steps, the same on every rank; the module knows the rows of each step."""

    def __init__(self, module: StepModule, n_steps: int) -> None:
        self.module, self.n_steps = module, n_steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.module.steps_done, self.n_steps))  # read after a checkpoint has been loaded


class StreamedCheckpoints(TorchCheckpointIO):
    """Writes checkpoints straight to disk, atomically.

    Lightning's own plug-in holds the whole file in memory first (1.6 GB for the 135M model with AdamW).
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with checkpoint_file(Path(path)) as file:
            torch.save(checkpoint, file)


class Checkpoint(pl.Callback):
    """Saves a checkpoint every `every` steps and at a new best task metric (`keep_best`), but not after the last step.

    All ranks take part in a checkpoint; the first one writes it and prunes the older ones.
    """

    def __init__(self, kept: Checkpoints, every: int, n_steps: int, seed: int) -> None:
        self.kept, self.every, self.n_steps, self.seed = kept, every, n_steps, seed
        self.begun = False

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        """Set the random states last, so that nothing drawn during start-up matters."""
        if not self.begun:
            module.set_random(self.seed)
            self.begun = True

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        done, best = module.steps_done, module.best_steps
        if done < self.n_steps and (done % self.every == 0 or (self.kept.rule.keep_best and best == done)):
            if module.ranks.first:
                self.kept.make_room(best)
            trainer.save_checkpoint(self.kept.path(done))
            if module.ranks.first:
                self.kept.prune(best)
                module.checkpoint_kept(self.kept.steps()[0])


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks instead of returning each to the kernel; no effect without glibc.

    A micro-batch allocates gigabytes in blocks that glibc would map and unmap each time; on CPU the page faults cost a
    large part of the step (measured by `experiments/benchmarks/allocator.py`).
    """
    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_mmap_threshold, 32 << 20)  # glibc's maximum; larger blocks (checkpoints) are still returned
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def fit(
    module: StepModule, n_steps: int, kept: Checkpoints, trainer_node: Mapping[str, Any], every: int, seed: int = 0
) -> None:
    """Run the plan from the newest intact checkpoint, or from the start; `seed` is for what the steps draw.

    Every rank calls this; the first one chooses the checkpoint.
    """
    keep_freed_memory()
    newest = module.ranks.broadcast(kept.newest() if module.ranks.first else None)
    strategy: Any = "auto"
    if module.ranks.world > 1:
        full = base_model(module.model) is module.model
        strategy = Shards() if sharded(trainer_node, full) else Replicas()
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers, loggers and checkpoints does not apply here
        trainer: pl.Trainer = build(
            {**trainer_node, "strategy": strategy},
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
            trainer.fit(module, DataLoader(Steps(module, n_steps), batch_size=None), ckpt_path=newest)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if module.steps_done != n_steps:
        raise RuntimeError(f"training ended after {module.steps_done} of {n_steps} steps")
