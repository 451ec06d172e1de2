"""Gradients of the vocabulary's matrices, added in place: torch's own numbers, without its copies."""

from __future__ import annotations

import copy

import pytest
import torch

from finr1.training.model.cpu.embedding import Lookup, in_place, lean_vocabulary
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row
from tests.helpers.tiny_model import tiny

ROWS = (
    [RowGroup([1, 2, 3], [[4, 5, 9], [6]], [0, 1])],
    [RowGroup([7, 7], [[8, 9]], [0]), RowGroup([3], [[3, 3]], [1])],
)


def test_rows_are_added_to_what_is_there_by_hand() -> None:
    weight = torch.nn.Parameter(torch.arange(8.0).view(4, 2))
    weight.grad = torch.full((4, 2), 0.5)
    kept = weight.grad
    out = Lookup.apply(torch.tensor([[3, 1, 3]]), weight, 1)
    assert out.tolist() == [[[6, 7], [2, 3], [6, 7]]]
    out.backward(torch.tensor([[[1.0, 2.0], [10.0, 20.0], [3.0, 4.0]]]))
    assert weight.grad is kept
    assert kept.tolist() == [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [4.5, 6.5]]  # 1 is the padding token


@pytest.mark.parametrize("tied", [True, False])
def test_micro_batches_add_up_to_torchs_gradients(tied: bool) -> None:
    plain = tiny("qwen2", tie_word_embeddings=tied)
    lean = copy.deepcopy(plain)
    lean_vocabulary(lean)
    for model in (plain, lean):
        for row in ROWS:
            (-completion_stats(model, make_row(row)).logprobs_N.sum()).backward()
    assert in_place(lean.get_output_embeddings().weight) and not in_place(plain.get_output_embeddings().weight)
    for (name, theirs), (_, ours) in zip(plain.named_parameters(), lean.named_parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-7, msg=name)


def test_the_heads_gradient_stays_where_it_was_and_a_frozen_one_has_none() -> None:
    model = tiny("llama", tie_word_embeddings=False)
    lean_vocabulary(model)
    head, table = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    (-completion_stats(model, make_row(ROWS[0])).logprobs_N.sum()).backward()
    places, first = (head.grad.data_ptr(), table.grad.data_ptr()), head.grad.clone()
    (-completion_stats(model, make_row(ROWS[0])).logprobs_N.sum()).backward()
    assert places == (head.grad.data_ptr(), table.grad.data_ptr())
    torch.testing.assert_close(head.grad, 2 * first)
    for weight in (head, table):
        weight.requires_grad_(False).grad = None
    (-completion_stats(model, make_row(ROWS[0])).logprobs_N.sum()).backward()
    assert head.grad is None and table.grad is None


@pytest.mark.parametrize("change", [{"max_norm": 1.0}, {"sparse": True}, {"scale_grad_by_freq": True}])
def test_an_embedding_that_does_more_than_look_up_stays_torchs(change: dict[str, float]) -> None:
    model = tiny()
    vars(model.get_input_embeddings()).update(change)
    lean_vocabulary(model)
    assert "forward" not in vars(model.get_input_embeddings())
