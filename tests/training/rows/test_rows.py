"""Packed rows give the numbers of single sequences, for log-probs and for gradients; nothing leaks between pieces."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from finr1.training.rows.head import Logits
from finr1.training.rows.logprobs import Head, completion_stats
from finr1.training.rows.rows import RowGroup, make_row, pack
from tests.helpers.tiny_model import SHAPES, VOCABULARY, tiny


def groups(seed: int = 0) -> list[RowGroup]:
    rng = random.Random(seed)
    tokens = lambda n: [rng.randrange(VOCABULARY) for _ in range(n)]  # noqa: E731
    sizes = [(7, [3, 9, 1]), (12, [5]), (1, [4, 4]), (20, [11, 2, 6, 8])]
    made, number = [], 0
    for prompt, lengths in sizes:
        made.append(RowGroup(tokens(prompt), [tokens(n) for n in lengths], range(number, number + len(lengths))))
        number += len(lengths)
    return made


def single(model: torch.nn.Module, group: RowGroup) -> list[Tensor]:
    """Log-probs of each completion by a plain forward pass of prompt + completion alone."""
    found = []
    for completion in group.completions:
        ids = torch.tensor([[*group.prompt, *completion]])
        logits = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
        start = len(group.prompt)
        found.append(logits[start - 1 : -1].gather(-1, ids[0, start:, None])[:, 0])
    return found


def batch(model: torch.nn.Module, made: Sequence[RowGroup]) -> list[Tensor]:
    """The same of all groups in one batch, each prompt as often as it has completions, padded on the right."""
    rows = [[*group.prompt, *completion] for group in made for completion in group.completions]
    lengths = [len(row) for row in rows]
    ids = torch.tensor([row + [0] * (max(lengths) - n) for row, n in zip(rows, lengths, strict=True)])
    mask = torch.tensor([[1] * n + [0] * (max(lengths) - n) for n in lengths])
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.log_softmax(-1)
    starts = [len(group.prompt) for group in made for _ in group.completions]
    return [
        logits[i, start - 1 : n - 1].gather(-1, ids[i, start:n, None])[:, 0]
        for i, (start, n) in enumerate(zip(starts, lengths, strict=True))
    ]


@pytest.mark.parametrize("plainly", ["single", "batch"])
@pytest.mark.parametrize("kind", SHAPES)
def test_shared_row_equals_single_sequences_and_a_padded_batch(kind: str, plainly: str) -> None:
    """Gradients to 1e-5: of each parameter's largest, entry by entry, and of the whole model's norm (found: 3e-7)."""
    ours, plain = tiny(kind), tiny(kind, "eager" if plainly == "single" else "sdpa")
    weights = torch.linspace(-1, 1, 60)
    row = make_row(groups())
    stats = completion_stats(ours, row)
    pieces = [p for g in groups() for p in single(plain, g)] if plainly == "single" else batch(plain, groups())
    expected = torch.cat(pieces)
    torch.testing.assert_close(stats.logprobs_N, expected, atol=1e-5, rtol=0)
    (stats.logprobs_N * weights[: len(expected)]).sum().backward()
    (expected * weights[: len(expected)]).sum().backward()
    for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters(), strict=True):
        scale = theirs.grad.abs().max().clamp_min(1e-3)
        assert (mine.grad - theirs.grad).abs().max() / scale < 1e-5, name
    mine, theirs = (torch.cat([p.grad.flatten() for p in model.parameters()]) for model in (ours, plain))
    assert (mine - theirs).norm() / theirs.norm() <= 1e-5


def test_autocast_rounds_products_but_not_what_the_entropy_is_summed_from() -> None:
    """Of the logits that bf16 products give, the exact entropy; under autocast it was off by up to 0.1."""
    model = tiny()
    with torch.no_grad():
        model.lm_head.weight.mul_(200)
    row = make_row(groups())
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.base_model(
            input_ids=row.ids_T[None], position_ids=row.positions_T[None], use_cache=False, layout=row.layout
        ).last_hidden_state[0][row.predict_N]
        logits = torch.mm(hidden, model.lm_head.weight.t()).double()
        stats = completion_stats(model, row)
    logp = logits.log_softmax(-1)
    torch.testing.assert_close(stats.entropy_N.double(), -(logp.exp() * logp).sum(-1), atol=1e-4, rtol=0)


def test_entropy_and_temperature_by_hand() -> None:
    model = tiny()
    group = RowGroup([3, 5, 7], [[11, 13]], [0])
    stats = completion_stats(model, make_row([group]), temperature=0.5)
    logits = tiny("llama", "eager")(input_ids=torch.tensor([[3, 5, 7, 11, 13]]), use_cache=False).logits[0, 2:4] / 0.5
    logp = logits.log_softmax(-1)
    torch.testing.assert_close(stats.logprobs_N, logp[[0, 1], [11, 13]], atol=1e-5, rtol=0)
    torch.testing.assert_close(stats.entropy_N, -(logp.exp() * logp).sum(-1), atol=1e-5, rtol=0)


def test_chunked_head_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    row = make_row(groups())
    whole = completion_stats(model, row)
    whole.logprobs_N.sum().backward()
    gradient = model.model.embed_tokens.weight.grad.clone()
    model.zero_grad()
    monkeypatch.setattr("finr1.training.rows.logprobs.CPU_BLOCK", (7, 5))
    parts = completion_stats(model, row)
    parts.logprobs_N.sum().backward()
    torch.testing.assert_close(parts.logprobs_N, whole.logprobs_N, atol=1e-6, rtol=0)
    torch.testing.assert_close(parts.entropy_N, whole.entropy_N, atol=1e-6, rtol=0)
    torch.testing.assert_close(model.model.embed_tokens.weight.grad, gradient, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("entropy_grad", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("output", [Logits(), Logits(0.25), Logits(1.0, 2.0), Logits(1.5, 3.0)])
def test_gradients_of_the_head_are_those_of_plain_log_softmax(
    entropy_grad: bool, temperature: float, output: Logits
) -> None:
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    target, of_logprobs, of_entropy = torch.tensor([3, 0, 6, 3, 2]), draw(5), draw(5)
    drawn = draw(5, 4), draw(7, 4), draw(7)
    found = []
    for plain in (True, False):
        h, w, b = (tensor.clone().requires_grad_() for tensor in drawn)
        if plain:
            logits = (h @ w.T + b) * output.scale
            logits = torch.tanh(logits / output.cap) * output.cap if output.cap else logits
            logp = (logits / temperature).log_softmax(-1)
            logprobs, entropy = logp[range(5), target], -(logp.exp() * logp).sum(-1)
        else:
            logprobs, entropy = Head.apply(h, w, b, target, output, temperature, True, entropy_grad, h.dtype, (2, 3))
            assert entropy.requires_grad == entropy_grad
        loss = (logprobs * of_logprobs).sum()
        (loss + (entropy * of_entropy).sum() if entropy_grad else loss).backward()
        found.append((logprobs, entropy, h.grad, w.grad, b.grad))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-10)


def test_a_row_without_completions_gives_no_gradient_to_the_head() -> None:
    model = tiny()
    stats = completion_stats(model, make_row([RowGroup([3, 5], [], [])]))
    (stats.logprobs_N.sum() + 0 * model.lm_head.weight.sum()).backward()
    assert len(stats.logprobs_N) == 0 and not model.lm_head.weight.grad.any()


def test_without_entropy_there_is_none_and_the_rest_stays() -> None:
    model, row = tiny(), make_row(groups())
    with_it, without = completion_stats(model, row), completion_stats(model, row, entropy=False)
    assert torch.equal(with_it.logprobs_N, without.logprobs_N) and without.entropy_N.isnan().all()


def test_a_head_of_another_form_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    model.lm_head = torch.nn.Sequential(model.lm_head)
    with pytest.raises(ValueError, match=r"container\.Sequential, not a plain linear layer"):
        completion_stats(model, make_row(groups()))
    model, own = tiny(), type(model).forward
    normed = lambda *args, **more: SimpleNamespace(logits=own(*args, **more).logits.log_softmax(-1))  # noqa: E731
    monkeypatch.setattr(type(model), "forward", normed)
    with pytest.raises(ValueError, match="its logits are no scaled or capped product of its head"):
        completion_stats(model, make_row(groups()))


def test_no_completion_sees_another() -> None:
    model = tiny()
    first = groups()[0]
    changed = RowGroup(first.prompt, [first.completions[0], [1] * 9, first.completions[2]], first.numbers)
    before = completion_stats(model, make_row([first, groups()[1]]))
    after = completion_stats(model, make_row([changed, groups()[1]]))
    assert torch.equal(before.logprobs_N[:3], after.logprobs_N[:3])
    assert torch.equal(before.logprobs_N[12:], after.logprobs_N[12:])
    assert not torch.equal(before.logprobs_N[3:12], after.logprobs_N[3:12])


@pytest.mark.parametrize("budget", [1, 20, 30, 45, 1000])
def test_packing_keeps_every_completion_once_and_the_budget(budget: int) -> None:
    rows = pack(groups(), budget)
    numbers = sorted(n for row in rows for group in row for n in group.numbers)
    assert numbers == list(range(10))
    for row in rows:
        alone = len(row) == 1 and len(row[0].completions) == 1
        assert alone or sum(group.n_tokens for group in row) <= budget


def test_split_rows_give_the_same_logprobs() -> None:
    model = tiny("qwen2")
    whole = make_row(groups())
    by_number = {n: whole.number_N == n for n in range(10)}
    expected = completion_stats(model, whole).logprobs_N
    for row_groups in pack(groups(), 30):
        row = make_row(row_groups)
        found = completion_stats(model, row).logprobs_N
        for n in set(row.number_N.tolist()):
            torch.testing.assert_close(found[row.number_N == n], expected[by_number[n]], atol=1e-5, rtol=0)


def test_a_group_needs_a_prompt() -> None:
    with pytest.raises(ValueError, match="at least one prompt token"):
        make_row([RowGroup([], [[1]], [0])])
