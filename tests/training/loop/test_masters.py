"""fp32 master copies of bf16 weights: updates and sums that bf16 would lose, and what a resume and an export find."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from finr1.core.tracking import Tracker, read_metrics
from finr1.settings.checkpoint import CheckpointSettings
from finr1.settings.sft import SftSettings
from finr1.training.grpo.reference import Reference
from finr1.training.loop.checkpoints import Checkpoints
from finr1.training.loop.fit import fit
from finr1.training.loop.masters import Bf16Weights, Masters
from finr1.training.loop.step_module import StepModule
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row
from finr1.training.sft.step import SftModule
from tests.helpers.tiny_model import tiny

TRAINER = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "devices": 1}
BF16 = {**TRAINER, "plugins": [{"_target_": "finr1.training.loop.masters.Bf16Weights"}]}
N_STEPS, LR = 12, 5e-4


class Slopes(StepModule):
    """loss = slopes . weights in two micro-batches: the gradient is known, and the same for every weight."""

    def __init__(self, until: int = N_STEPS) -> None:
        self.slopes = [torch.tensor([1.0, -0.5, 2.0]), torch.tensor([2.0**-10, 0.0, -1.0])]
        weights = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor([[1.0, 2.0, -3.0]]))])
        super().__init__(weights, partial(torch.optim.AdamW), 0.0)
        self.until, self.seen = until, []

    def training_step(self, step: int, _: int) -> None:
        if step == self.until:
            raise RuntimeError("killed")
        losses = ((slope.to(self.model[0].dtype) * self.model[0]).sum() for slope in self.slopes)
        self.optimise(losses, LR, 100.0)
        self.seen.append((self.model[0].dtype, self.model[0].detach().float().clone()))
        self.steps_done += 1


def walk(folder: Path, trainer: dict[str, Any], module: Slopes) -> Slopes:
    folder.mkdir(exist_ok=True)
    fit(module, N_STEPS, Checkpoints(folder, CheckpointSettings(), print), trainer, every=5)
    return module


def test_training_is_that_of_fp32_weights_to_the_bit_where_the_gradient_is(tmp_path: Path) -> None:
    """12 steps of about 5e-4 from 1.0, whose neighbour in bf16 is 2^-8 below: none shows by itself, four of them do."""
    exact, mixed = walk(tmp_path / "fp32", TRAINER, Slopes()), walk(tmp_path / "bf16", BF16, Slopes())
    assert {dtype for dtype, _ in mixed.seen} == {torch.bfloat16}
    for (_, full), (_, rounded) in zip(exact.seen, mixed.seen, strict=True):
        assert torch.equal(full.bfloat16().float(), rounded)
    assert len({float(rounded[0, 0]) for _, rounded in mixed.seen}) > 1  # and the weights of the passes do follow
    assert mixed.model[0].dtype == torch.float32  # what is exported
    assert torch.equal(mixed.model[0], exact.model[0])
    assert float(exact.model[0][0, 0].detach()) == pytest.approx(1 - N_STEPS * LR, rel=1e-6)


def test_weights_in_fp32_have_no_copy() -> None:
    weights = [torch.nn.Parameter(torch.ones(2, dtype=kind)) for kind in (torch.float32, torch.float64)]
    masters = Masters(weights)
    assert all(w is m for w, m in zip(weights, masters.trained, strict=True)) and masters.state() == []


def test_gradients_of_micro_batches_are_summed_in_fp32() -> None:
    """1 + 2^-10 is no bf16 number: the weight's own gradient would stay 1."""
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    masters = Masters([weight])
    for grad in (1.0, 2.0**-10):
        (weight * grad).sum().backward()
        masters.pull()
        assert weight.grad is None
    assert masters.trained[0].grad == 1 + 2.0**-10


def test_resume_gives_what_an_unbroken_walk_gives(tmp_path: Path) -> None:
    """The copies come from the checkpoint: weights alone would begin again from rounded ones."""
    whole = walk(tmp_path / "whole", BF16, Slopes())
    with pytest.raises(RuntimeError, match="killed"):
        walk(tmp_path / "killed", BF16, Slopes(until=7))
    resumed = walk(tmp_path / "killed", BF16, Slopes())
    assert len(resumed.seen) == N_STEPS - 5
    assert torch.equal(whole.model[0], resumed.model[0])
    assert not torch.equal(whole.model[0], whole.model[0].bfloat16().float())


def test_only_parameters_change_their_type() -> None:
    model = Bf16Weights().convert_module(tiny())
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {b.dtype for b in model.buffers()} == {torch.float32} and list(model.buffers())


def test_loss_and_gradients_are_those_of_fp32_up_to_bf16s_rounding() -> None:
    row = make_row([RowGroup(list(range(1, 9)), [[3, 7, 1, 4], [9, 2]], [0, 1])])
    found = []
    for model in (tiny(), Bf16Weights().convert_module(tiny())):
        loss = -completion_stats(model, row).logprobs_N.mean()
        loss.backward()
        found.append((loss.detach(), torch.cat([p.grad.float().flatten() for p in model.parameters()])))
    (loss, grad), (rounded, rounded_grad) = found
    assert abs(rounded - loss) < 0.01 and rounded != loss
    assert 1e-4 < (rounded_grad - grad).norm() / grad.norm() < 0.03


class Bar:
    def advance(self, *_: Any, **__: Any) -> None: ...


@pytest.mark.slow
def test_a_whole_sft_run_learns_as_in_fp32(tmp_path: Path) -> None:
    """The loss falls from ln(50) by most of itself, and no step is more than bf16's roundings away from fp32's."""
    plan = [[[RowGroup([1, 2, 3], [[4, 5, 6, 7]], [0]), RowGroup([9, 8], [[7, 6, 5]], [1])]]] * 20
    losses = []
    for name, trainer in (("fp32", TRAINER), ("bf16", BF16)):
        (tmp_path / name).mkdir()
        settings, tracker = SftSettings(learning_rate=1e-2, row_tokens=16), Tracker(tmp_path / name)
        module = SftModule(tiny(), partial(torch.optim.AdamW), settings, plan, tracker, Bar())  # type: ignore[arg-type]
        fit(module, 20, Checkpoints(tmp_path / name, CheckpointSettings(), print), trainer, every=50)
        losses.append([metrics["loss"] for _, metrics in read_metrics(tmp_path / name, "sft")])
    exact, mixed = losses
    assert len(mixed) == 20 and mixed != exact
    assert exact[0] == pytest.approx(3.9, abs=0.2) and mixed[-1] < 1
    assert max(abs(a - b) for a, b in zip(exact, mixed, strict=True)) < 0.05


def test_the_reference_is_of_the_policys_type() -> None:
    """Of the same weights both give the same: divergence 0, not the rounding of one of them."""
    row, policy = make_row([RowGroup([1, 2, 3], [[4, 5]], [0])]), Bf16Weights().convert_module(tiny())
    reference = Reference(tiny).logprobs(policy, row, 1.0)
    assert torch.equal(reference, completion_stats(policy, row).logprobs_N)
