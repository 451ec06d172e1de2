"""Checkpoints of a training stage: whole or not at all, kept by a rule, looked through before they are trusted.

A checkpoint is `<stage>/checkpoints/step-<steps done>.ckpt`. It is written under another name, brought to disk and then
renamed; what a kill leaves under the other name is removed at the next start. Before a resume every record's checksum
is compared: a damaged file is removed, and the one before it is taken.
"""

from __future__ import annotations

import os
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

from finr1.core.errors import Finr1Error
from finr1.settings.checkpoint import CheckpointSettings

FOLDER = "checkpoints"
WRITING = ".writing.tmp"
GIB = 2**30


class Checkpoints:
    """The checkpoints of one stage folder.

    Args:
        folder: of the stage.
        rule: which are kept.
        say: is told, in one line, what the user should know.
    """

    def __init__(self, folder: Path, rule: CheckpointSettings, say: Callable[[str], None]) -> None:
        self.folder, self.rule, self.say = folder / FOLDER, rule, say
        self._over_budget = False

    def path(self, steps_done: int) -> Path:
        """The checkpoint after so many steps."""
        return self.folder / f"step-{steps_done:08d}.ckpt"

    def steps(self) -> list[int]:
        """Those on disk, by the steps they had done, oldest first."""
        found = (re.fullmatch(r"step-(\d{8})\.ckpt", path.name) for path in self.folder.glob("step-*.ckpt"))
        return sorted(int(match[1]) for match in found if match)

    def newest(self) -> Path | None:
        """The newest whole one; damaged ones after it are removed, and named in one line each."""
        (self.folder / WRITING).unlink(missing_ok=True)
        for steps in reversed(self.steps()):
            path = self.path(steps)
            fault = fault_of(path)
            if fault is None:
                return path
            path.unlink()
            rest = self.steps()
            where = f"step {rest[-1]}" if rest else "the first step"
            self.say(f"{path.name} is damaged ({fault}) and was removed; training goes on from {where}")
        return None

    def make_room(self, best: int | None) -> None:
        """Remove what the budget will not hold once a checkpoint of the newest one's size is added; one always stays.

        `best` (steps done) goes last.
        """
        steps = self.steps()
        if self.rule.disk_gib is None or not steps:
            return
        self._fit_budget(extra=self.path(steps[-1]).stat().st_size, best=best)

    def prune(self, best: int | None) -> None:
        """Remove those that the rule does not keep, oldest first; `best` is the one of the best task metric, if any."""
        steps = self.steps()
        kept = set(steps[-self.rule.keep_last :])
        if self.rule.keep_best and best is not None:
            kept.add(best)
        for step in steps:
            if step not in kept:
                self.path(step).unlink()
        if self.rule.disk_gib is not None:
            self._fit_budget(extra=0, best=best)

    def _fit_budget(self, extra: int, best: int | None) -> None:
        assert self.rule.disk_gib is not None
        sizes = {step: self.path(step).stat().st_size for step in self.steps()}
        removable = [step for step in list(sizes)[:-1] if step != best] + [s for s in list(sizes)[:-1] if s == best]
        for step in removable:
            if sum(sizes.values()) + extra <= self.rule.disk_gib * GIB:
                return
            self.path(step).unlink()
            del sizes[step]
        if sum(sizes.values()) + extra > self.rule.disk_gib * GIB and not self._over_budget:
            self._over_budget = True
            needed = (sum(sizes.values()) + extra) / GIB
            why = "while the one before must stay" if extra else "by the newest alone, which must stay"
            self.say(f"checkpoint.disk_gib={self.rule.disk_gib:g}: {needed:.2g} GiB are taken {why}; raise it")

    def clear(self) -> None:
        """Remove all of them: the stage is done."""
        shutil.rmtree(self.folder, ignore_errors=True)


def fault_of(path: Path) -> str | None:
    """What is wrong with a file that torch wrote, by the checksums inside it; None if nothing."""
    try:
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        return str(error) or type(error).__name__
    return f"wrong checksum in {broken}" if broken else None


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block ends well, its bytes and its name on disk.

    Finr1Error (one line) where the disk cannot take it: the file under the other name is removed, and all checkpoints
    written before stay as they are.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(WRITING)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        cause = _os_error(error)
        if cause is None:
            raise
        written = temporary.stat().st_size / GIB if temporary.exists() else 0.0
        temporary.unlink(missing_ok=True)
        before = max(path.parent.glob("step-*.ckpt"), default=None)
        goes_on = f"from {before.name}" if before else "from the first step, as none was written before"
        free = shutil.disk_usage(path.parent).free / GIB
        why = f"cannot be written ({cause.strerror or cause}; {written:.2g} GiB were, {free:.2g} GiB are free now)"
        raise Finr1Error(
            f"{path}: {why}; free some space or lower checkpoint.keep_last, and start again: it goes on {goes_on}"
        ) from error


def _os_error(error: BaseException) -> OSError | None:
    """The system's own error; torch's writer hides it behind a RuntimeError of its own."""
    here: BaseException | None = error
    while here is not None and not isinstance(here, OSError):
        here = here.__cause__ or here.__context__
    return here


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def random_state() -> dict[str, Any]:
    """The random states of Python, NumPy, torch and every GPU, as tensors and plain numbers."""
    version, numbers, gauss = random.getstate()
    _, keys, position, has_gauss, cached = numpy.random.get_state()
    return {
        "python": [version, torch.tensor(numbers, dtype=torch.int64), gauss],
        "numpy": [torch.from_numpy(numpy.asarray(keys).astype(numpy.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],  # of the GPU of this process
    }


def set_random_state(state: dict[str, Any]) -> None:
    """The inverse of `random_state`."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state(("MT19937", keys.numpy().astype(numpy.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state(*state["cuda"])


def seed_random(seed: int) -> None:
    """Seed Python, NumPy, torch and every GPU."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)
