"""NEFTune's noise: its size by text length, off by default, and its effect on a step."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from finr1.core.errors import ConfigError
from finr1.core.tracking import Tracker, read_metrics
from finr1.settings.checkpoint import CheckpointSettings
from finr1.settings.sft import SftSettings
from finr1.training.loop.checkpoints import Checkpoints
from finr1.training.loop.fit import fit
from finr1.training.rows.rows import RowGroup, make_row
from finr1.training.sft.noise import noisy
from finr1.training.sft.step import SftModule
from tests.helpers.tiny_model import tiny

TRAINER = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "devices": 1}
GROUPS = [RowGroup([1, 2, 3], [[4, 5, 6, 7, 8, 9]], [0]), RowGroup([7] * 20, [[8] * 16], [1])]  # 9 and 36 tokens
WIDTH = 32


class Bar:
    def advance(self, *_: Any, **__: Any) -> None: ...


def embedded(model: Any) -> Tensor:
    return model.get_input_embeddings()(make_row(GROUPS).ids_T[None])  # type: ignore[no-any-return]


def test_the_noise_is_uniform_and_by_each_texts_own_length() -> None:
    """6 / sqrt(9 32) = 0.354 and 6 / sqrt(36 32) = 0.177; the mean square of U(-b, b) is b^2 / 3."""
    model = tiny()
    plain = embedded(model)
    torch.manual_seed(0)
    with noisy(model, GROUPS, 6.0):
        noise = (embedded(model) - plain)[0].detach()
    for part, length in ((noise[:9], 9), (noise[9:], 36)):
        bound = 6 / math.sqrt(length * WIDTH)
        assert 0.97 * bound < float(part.abs().max()) <= bound * (1 + 1e-5)
        assert float(part.square().mean()) == pytest.approx(bound**2 / 3, rel=0.15)
        assert abs(float(part.mean())) < 0.1 * bound
    assert torch.equal(embedded(model), plain)  # gone after the block
    with noisy(model, GROUPS, 0.0):
        assert torch.equal(embedded(model), plain)


def test_single_rows_get_the_noise_of_their_length() -> None:
    model = tiny()
    model.single_rows = True
    ids_CL = make_row(GROUPS).apart[0]
    plain = model.get_input_embeddings()(ids_CL)
    with noisy(model, GROUPS, 6.0):
        noise_CLD = (model.get_input_embeddings()(ids_CL) - plain).detach()
    for noise_LD, length in zip(noise_CLD, (9, 36), strict=True):
        bound = 6 / math.sqrt(length * WIDTH)
        assert 0.97 * bound < float(noise_LD.abs().max()) <= bound * (1 + 1e-5)


def train(folder: Path, alpha: float) -> tuple[list[float], Tensor]:
    """Two steps; their losses, and a weight after them."""
    settings = SftSettings(learning_rate=0.01, neftune_alpha=alpha)
    folder.mkdir()
    module = SftModule(tiny(), partial(torch.optim.AdamW), settings, [[GROUPS]] * 2, Tracker(folder), Bar())  # type: ignore[arg-type]
    fit(module, 2, Checkpoints(folder, CheckpointSettings(), print), TRAINER, every=9, seed=5)
    return [m["loss"] for _, m in read_metrics(folder, "sft")], module.model.lm_head.weight.detach()


def test_noise_changes_a_step_reproducibly(tmp_path: Path) -> None:
    plain, noise, again = (train(tmp_path / name, alpha) for name, alpha in (("a", 0.0), ("b", 5.0), ("c", 5.0)))
    assert noise[0] == again[0] and torch.equal(noise[1], again[1])
    assert noise[0][0] != plain[0][0] and not torch.equal(noise[1], plain[1])


def test_negative_noise_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sft\.neftune_alpha=-1"):
        SftSettings(neftune_alpha=-1)
