"""A model that is elsewhere than its rows.

The meta device stands in for a GPU: it computes nothing, but mixes with no other.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import masking_utils

from finr1.training.rows.head import Logits
from finr1.training.rows.logprobs import row_stats
from finr1.training.rows.rows import RowGroup, make_row
from tests.helpers.tiny_model import SHAPES, tiny

ROW = make_row([RowGroup([1, 2, 3], [[4, 5], [6, 7, 8]], [0, 1]), RowGroup([9], [[10, 11]], [2])])


@pytest.mark.parametrize("kind", SHAPES)
def test_forward_and_backward_pass_take_the_row_to_the_model(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda _: None)  # it looks at values
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)  # which knows no such device
    with torch.device("meta"):
        model: Any = tiny(kind)
    model.head_logits = Logits()  # else learnt from values
    stats = row_stats(model, ROW, 0.7, entropy_grad=True)
    assert {values_N.device.type for values_N in stats} == {"meta"}
    assert {values_N.shape for values_N in stats} == {(7,)}
    (stats.logprobs_N.sum() + stats.entropy_N.sum()).backward()
    assert {p.grad.device.type for p in model.parameters() if p.grad is not None} == {"meta"}
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())


def test_moving_a_row_to_its_own_device_returns_the_row() -> None:
    assert ROW.to(torch.device("cpu")) is ROW
    moved = ROW.to(torch.device("meta"))
    assert {tensor.device.type for tensor in (moved.ids_T, moved.target_N, *moved.layout.padded)} == {"meta"}
    assert ROW.layout.padded.place_T.device.type == "cpu" and moved.layout.tiles.tiles == ROW.layout.tiles.tiles
