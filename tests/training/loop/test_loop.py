"""A step by hand; checkpoints: what they hold in memory, what a failure leaves, and where a resumed walk begins."""

from __future__ import annotations

import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from finr1.core.errors import ConfigError
from finr1.settings.checkpoint import CheckpointSettings
from finr1.training.loop.checkpoints import Checkpoints
from finr1.training.loop.fit import StreamedCheckpoints
from finr1.training.loop.fit import fit as fit_module
from finr1.training.loop.step_module import StepModule

TRAINER = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "devices": 1}
N = 1 << 20  # weights, 4 MiB; AdamW doubles or triples them


class Walk(StepModule):
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
    fit_module(module, 4, Checkpoints(folder, CheckpointSettings(), print), TRAINER, every=2)


def test_a_checkpoint_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = []
    plain = StreamedCheckpoints.save_checkpoint

    def measured(self: Any, *arguments: Any, **more: Any) -> None:
        tracemalloc.start()
        plain(self, *arguments, **more)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    monkeypatch.setattr(StreamedCheckpoints, "save_checkpoint", measured)
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


class Pulled(StepModule):
    """One step of plain descent on a matrix and a vector, whose gradients are given."""

    def __init__(self, matrix: float, vector: float, bound: float, weight_decay: float = 0.0, parts: int = 1) -> None:
        model = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(1, 1)), torch.nn.Parameter(torch.ones(1))])
        super().__init__(model, partial(torch.optim.SGD), weight_decay)
        self.pull, self.bound, self.parts, self.norm = (matrix, vector), bound, parts, 0.0

    def training_step(self, step: int, _: int) -> None:
        loss = lambda: sum(p.sum() * g for p, g in zip(self.model, self.pull, strict=True)) / self.parts  # noqa: E731
        self.norm = self.optimise((loss() for _ in range(self.parts)), 0.1, self.bound)
        self.steps_done += 1


@pytest.mark.parametrize(
    ("module", "moved"),
    [
        # gradients 3 and 4, norm 5; learning rate 0.1
        (Pulled(3.0, 4.0, bound=10.0), (-0.3, -0.4)),
        (Pulled(3.0, 4.0, bound=1.0), (-0.06, -0.08)),  # both by 1 / 5: one norm over all weights
        (Pulled(3.0, 4.0, bound=1.0, parts=4), (-0.06, -0.08)),  # of the sum of micro-batches, not of each
        # weight decay 0.5 is added to the matrix's clipped gradient (0.6 + 0.5), never to a vector's
        (Pulled(3.0, 4.0, bound=1.0, weight_decay=0.5), (-0.11, -0.08)),
    ],
)
def test_a_step_by_hand(module: Pulled, moved: tuple[float, float], tmp_path: Path) -> None:
    fit_module(module, 1, Checkpoints(tmp_path, CheckpointSettings(), print), TRAINER, every=9)
    assert [float(p.detach()) - 1 for p in module.model] == pytest.approx(moved, abs=1e-6)
    assert module.norm == pytest.approx(5.0, abs=1e-5)  # what is logged is the norm before clipping


def test_a_gradient_that_is_no_number_ends_the_run_before_it_moves_a_weight(tmp_path: Path) -> None:
    module = Pulled(float("nan"), 4.0, bound=1.0)
    with pytest.raises(ConfigError, match=r"^sft\.learning_rate=\S+: the gradient norm of step 0 is nan \(the weights"):
        fit_module(module, 1, Checkpoints(tmp_path, CheckpointSettings(), print), TRAINER, every=9)
    assert all(float(p.detach()) == 1 for p in module.model)


class Twice(StepModule):
    """Two optimiser steps inside one training step, on the square of a product with the weight."""

    def __init__(self) -> None:
        model = torch.nn.ModuleList([torch.nn.Linear(1, 1, bias=False)])
        torch.nn.init.ones_(model[0].weight)
        super().__init__(model, partial(torch.optim.SGD), 0.0)
        self.norms: list[float] = []

    def training_step(self, step: int, _: int) -> None:
        for _ in range(2):
            self.norms.append(self.optimise(iter([self.model[0](torch.ones(1, 1)).square().sum()]), 0.25, 100.0))
        self.steps_done += 1


def test_the_second_update_of_a_step_sees_the_first_ones_weights_under_autocast(tmp_path: Path) -> None:
    """d(w^2)/dw = 2 at w = 1; a step of 0.25 leaves w = 0.5, where it is 1. Stale bf16 copies would give 2 again."""
    module = Twice()
    fit_in = {**TRAINER, "precision": "bf16-mixed"}
    fit_module(module, 1, Checkpoints(tmp_path, CheckpointSettings(), print), fit_in, every=9)
    assert module.norms == pytest.approx([2.0, 1.0], abs=0.02)
