"""Checkpoints: what they hold in memory, what a failure while saving leaves, and where a resumed walk begins."""

from __future__ import annotations

import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from finr1.data import loop
from finr1.data.checkpoints import Checkpoints
from finr1.data.settings import CheckpointSettings

TRAINER = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "devices": 1}
N = 1 << 20  # weights, 4 MiB; AdamW doubles or triples them


class Walk(loop.StepModule):
    """Moves one big vector a step; stops before step `until` as a kill would."""

    def __init__(self, until: int = 9) -> None:
        model = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(N, 1))])
        super().__init__(model, partial(torch.optim.AdamW), 0.0)
        self.until, self.walked = until, []

    def training_step(self, step: int, _: int) -> None:
        if step == self.until:
            raise RuntimeError("killed")
        self.optimise(iter([(self.model[0] - 1).square().mean()]), 0.1, 1.0)
        self.walked.append(step)
        self.steps_done += 1


def fit(module: Walk, folder: Path) -> None:
    loop.fit(module, 4, Checkpoints(folder, CheckpointSettings(), print), TRAINER, every=2)


def test_a_checkpoint_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = []
    plain = loop.StreamedCheckpoints.save_checkpoint

    def measured(self: Any, *arguments: Any, **more: Any) -> None:
        tracemalloc.start()
        plain(self, *arguments, **more)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    monkeypatch.setattr(loop.StreamedCheckpoints, "save_checkpoint", measured)
    fit(Walk(), tmp_path)
    size = (tmp_path / "checkpoints" / "step-00000002.ckpt").stat().st_size
    assert size > 3 * 4 * N and len(peaks) == 1 and peaks[0] < size / 10


def test_resume_gives_what_an_unbroken_walk_gives(tmp_path: Path) -> None:
    whole, killed, resumed = Walk(), Walk(until=3), Walk()
    (tmp_path / "whole").mkdir()
    fit(whole, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        fit(killed, tmp_path)
    fit(resumed, tmp_path)
    assert (whole.walked, killed.walked, resumed.walked) == ([0, 1, 2, 3], [0, 1, 2], [2, 3])
    assert torch.equal(whole.model[0], resumed.model[0]) and whole.model[0][0] > 0.3
