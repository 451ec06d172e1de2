"""Checkpoints of a training stage: written atomically, pruned by a rule, verified before a resume.

A checkpoint is `<stage>/checkpoints/step-<steps done>.ckpt`. Before a resume the checksums inside the file are
verified; a corrupt checkpoint is deleted, and the one before it is used.
"""

import random
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy
import torch
from pytorch_lightning import seed_everything

from finr1.core.errors import Finr1Error, causes
from finr1.core.files import partial_name, replacing
from finr1.settings.checkpoint import CheckpointSettings

FOLDER = "checkpoints"
GIB = 2**30


class Checkpoints:
    """The checkpoints of one stage folder, kept by a rule; `note` is called with one-line messages for the user."""

    def __init__(self, folder: Path, rule: CheckpointSettings, note: Callable[[str], None]) -> None:
        self.folder, self.rule, self.note = folder / FOLDER, rule, note
        self._over_budget = False

    def path(self, steps_done: int) -> Path:
        return self.folder / f"step-{steps_done:08d}.ckpt"

    def steps(self) -> list[int]:
        """Steps done of the checkpoints on disk, oldest first."""
        files = (path for path in self.folder.glob("step-*.ckpt") if path.is_file())
        names = (re.fullmatch(r"step-(\d{8})\.ckpt", path.name) for path in files)
        return sorted(int(name[1]) for name in names if name)

    def newest(self) -> Path | None:
        """The newest intact checkpoint; newer ones that are corrupt or incomplete are deleted."""
        for incomplete in self.folder.glob(partial_name(Path("step-*.ckpt")).name):
            incomplete.unlink()
        for steps in reversed(self.steps()):
            path = self.path(steps)
            fault = fault_of(path)
            if fault is None:
                return path
            path.unlink()
            rest = self.steps()
            where = f"step {rest[-1]}" if rest else "the first step"
            self.note(f"{path.name} is corrupt ({fault}) and was deleted; training resumes from {where}")
        return None

    def make_room(self, best: int | None) -> None:
        """Delete old checkpoints until one more of the newest one's size fits the disk budget.

        The newest always stays; `best` (steps done) is deleted last.
        """
        if steps := self.steps():
            self._fit_budget(extra=self.path(steps[-1]).stat().st_size, best=best)

    def prune(self, best: int | None) -> None:
        """Delete the checkpoints that the rule does not keep, oldest first; `best`: steps done at the best metric."""
        steps = self.steps()
        kept = set(steps[-self.rule.keep_last :])
        if self.rule.keep_best and best is not None:
            kept.add(best)
        for step in steps:
            if step not in kept:
                self.path(step).unlink()
        self._fit_budget(extra=0, best=best)

    def _fit_budget(self, extra: int, best: int | None) -> None:
        """Delete checkpoints until the rest and `extra` bytes fit the disk budget; the newest always stays."""
        if self.rule.disk_gib is None:
            return
        sizes = {step: self.path(step).stat().st_size for step in self.steps()}
        needed = sum(sizes.values()) + extra
        for step in sorted(list(sizes)[:-1], key=lambda step: step == best):  # the best one last
            if needed <= self.rule.disk_gib * GIB:
                return
            self.path(step).unlink()
            needed -= sizes[step]
        if needed > self.rule.disk_gib * GIB and not self._over_budget:
            self._over_budget = True
            why = "a new checkpoint beside the last one" if extra else "the newest checkpoint"
            self.note(f"checkpoint.disk_gib={self.rule.disk_gib:g}: {why} takes {needed / GIB:.2g} GiB; increase it")

    def clear(self) -> None:
        """Delete all checkpoints: the stage is done."""
        shutil.rmtree(self.folder, ignore_errors=True)


def fault_of(path: Path) -> str | None:
    """Verify the checksums inside a file written by torch; returns what is wrong, or None."""
    try:
        with zipfile.ZipFile(path) as file:
            corrupt = file.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        return str(error) or type(error).__name__
    return f"wrong checksum in {corrupt}" if corrupt else None


@contextmanager
def checkpoint_file(path: Path) -> Iterator[BinaryIO]:
    """Open a checkpoint for an atomic write; Finr1Error (one line) if the disk is full. Earlier ones stay intact."""
    try:
        with replacing(path) as file:
            yield file
    except (OSError, RuntimeError) as error:
        cause = next((cause for cause in causes(error) if isinstance(cause, OSError)), None)  # torch wraps it
        if cause is None:
            raise
        before = max(path.parent.glob("step-*.ckpt"), default=None)
        start = before.name if before else "the first step, as there is no earlier checkpoint"
        why = f"cannot be written ({cause.strerror or cause}; {shutil.disk_usage(path.parent).free / GIB:.2g} GiB free)"
        remedy = f"free some space or lower checkpoint.keep_last, and start again: it resumes from {start}"
        raise Finr1Error(f"{path}: {why}; {remedy}") from error


def random_state() -> dict[str, Any]:
    """The random states of Python, NumPy, torch and this process's GPU, as tensors and numbers (for `weights_only`)."""
    version, numbers, gauss = random.getstate()
    _, keys, position, has_gauss, cached = numpy.random.get_state()
    return {
        "python": [version, torch.tensor(numbers, dtype=torch.int64), gauss],
        "numpy": [torch.from_numpy(numpy.asarray(keys).astype(numpy.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state(("MT19937", keys.numpy().astype(numpy.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state(*state["cuda"])


def seed_random(seed: int) -> None:
    """Seed Python, NumPy, torch and the GPUs."""
    seed_everything(seed % 2**32, verbose=False)
