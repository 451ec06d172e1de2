"""The step on a tiny model: what reaches the gradient, and that micro-batches and the order of groups do not matter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from stages import question
from tiny_model import VOCABULARY, tiny

from finr1.data.logprobs import completion_stats
from finr1.data.rows import Group as RowGroup
from finr1.data.rows import make_row
from finr1.grpo.advantage import centre
from finr1.grpo.module import GrpoModule, UpdateStats
from finr1.grpo.rollout import collate, grade
from finr1.grpo.settings import GrpoSettings
from finr1.reward.base import RewardItem
from finr1.tracking import Tracker
from finr1.types import Completion, Group, Verdict


def rollout(sizes: Sequence[Sequence[int]] = ((4, 6, 3), (5, 2, 7))) -> list[Group]:
    """Groups of completions with token ids and, as old log-probs, those of the tiny model itself, shifted a little."""
    generator = torch.Generator().manual_seed(1)
    draw = lambda n: torch.randint(1, VOCABULARY, (n,), generator=generator).tolist()  # noqa: E731
    groups = []
    for p, lengths in enumerate(sizes):
        prompt = draw(6 + p)
        completions = []
        for n in lengths:
            ids = draw(n)
            row = make_row([RowGroup(prompt, [ids], [0])])
            with torch.no_grad():
                logprobs = (completion_stats(tiny(), row).logprobs_N + 0.05).tolist()
            completions.append(Completion("", "stop", ids, logprobs, prompt))
        groups.append(Group(question(str(p)), completions))
    return groups


def module(tmp_path: Path, **settings: Any) -> GrpoModule:
    class Bar:
        def advance(self, *_: Any, **__: Any) -> None: ...

    options = GrpoSettings(**{"steps": 1, "warmup_steps": 0, "row_tokens": 1000, **settings})
    made = GrpoModule(
        tiny(),
        torch.optim.SGD,
        options,
        [],
        None,
        {},
        tmp_path,
        Tracker(tmp_path),
        Bar(),  # type: ignore[arg-type]
    )
    made.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign]
    return made


def gradients(made: GrpoModule, groups: list[Group], rewards: list[list[float]]) -> tuple[dict[str, Any], UpdateStats]:
    """The gradient that one update leaves, unclipped: `optimise` without its optimiser."""
    found: dict[str, Any] = {}

    def keep(losses: Any, lr: float, max_grad_norm: float) -> float:
        for loss in losses:
            loss.backward()
        found.update({name: p.grad.clone() for name, p in made.model.named_parameters()})
        return 1.0

    made.optimise = keep  # type: ignore[method-assign]
    s = made.settings
    advantages = centre(torch.tensor(rewards), s.scale, s.spread_tolerance)
    return found, made.update(collate(groups, advantages, s.row_tokens, s.mask_truncated), 0)


REWARDS = [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]


def same(one: dict[str, Any], other: dict[str, Any], tolerance: float = 1e-5) -> None:
    assert one.keys() == other.keys() and one
    for name in one:
        scale = float(other[name].abs().max().clamp_min(1e-6))
        assert float((one[name] - other[name]).abs().max()) / scale < tolerance, name


@pytest.mark.parametrize("loss", ["dapo", "grpo"])
def test_gradient_equals_the_plain_computation(tmp_path: Path, loss: str) -> None:
    """Against a loop over single completions with a dense forward pass and the equation written out."""
    groups = rollout()
    found, _ = gradients(module(tmp_path, loss=loss), groups, REWARDS)
    model = tiny()
    model.set_attn_implementation("eager")
    advantages = centre(torch.tensor(REWARDS)).advantages_PG
    n_tokens = sum(len(c.token_ids) for g in groups for c in g.completions)
    total = torch.zeros(())
    for p, group in enumerate(groups):
        for g, c in enumerate(group.completions):
            ids = torch.tensor([[*c.prompt_token_ids, *c.token_ids]])
            start = len(c.prompt_token_ids)
            logp = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
            mine = logp[start - 1 : -1].gather(-1, ids[0, start:, None])[:, 0]
            ratio = (mine - torch.tensor(c.logprobs)).exp()
            a = advantages[p, g]
            terms = torch.minimum(ratio * a, ratio.clamp(0.8, 1.28) * a)
            total = total - (terms.sum() / n_tokens if loss == "dapo" else terms.mean() / 6)
    total.backward()
    same(found, {name: p.grad for name, p in model.named_parameters()}, 1e-4)


@pytest.mark.parametrize("row_tokens", [8, 15, 25])
def test_micro_batches_change_nothing(tmp_path: Path, row_tokens: int) -> None:
    whole, all_stats = gradients(module(tmp_path), rollout(), REWARDS)
    split, stats = gradients(module(tmp_path, row_tokens=row_tokens), rollout(), REWARDS)
    same(split, whole)
    assert stats == pytest.approx(all_stats, rel=1e-4)


def test_order_of_groups_changes_nothing(tmp_path: Path) -> None:
    whole, _ = gradients(module(tmp_path), rollout(), REWARDS)
    turned, _ = gradients(module(tmp_path), rollout()[::-1], REWARDS[::-1])
    same(turned, whole)


def test_equal_rewards_cost_nothing_and_move_nothing(tmp_path: Path) -> None:
    found, stats = gradients(module(tmp_path), rollout(), [[1.0] * 3, [0.0] * 3])
    assert found == {} and stats == UpdateStats()


def test_a_group_without_spread_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    both, stats = gradients(module(tmp_path), rollout(), [REWARDS[0], [1.0] * 3])
    alone, lone_stats = gradients(module(tmp_path), rollout()[:1], REWARDS[:1])
    same(both, alone, 1e-6)
    assert stats.n_tokens == lone_stats.n_tokens == 13


def test_truncated_completions_leave_the_loss_only_when_asked(tmp_path: Path) -> None:
    groups = rollout()
    cut = Completion("", "length", *(getattr(groups[0].completions[1], k) for k in ("token_ids", "logprobs")))
    cut = Completion(cut.text, "length", cut.token_ids, cut.logprobs, groups[0].completions[1].prompt_token_ids)
    groups[0] = Group(groups[0].question, [groups[0].completions[0], cut, groups[0].completions[2]])
    _, kept = gradients(module(tmp_path), groups, REWARDS)
    _, masked = gradients(module(tmp_path, mask_truncated=True), groups, REWARDS)
    assert (kept.n_tokens, masked.n_tokens) == (27, 21)


def test_prompt_tokens_and_padding_carry_no_loss() -> None:
    """The positions that are read are those that predict completion tokens, and no other."""
    row = make_row([RowGroup([1, 2, 3], [[4, 5]], [0])])
    assert row.predict_N.tolist() == [2, 3] and row.target_N.tolist() == [4, 5]


class Fixed:
    """A reward that gives what it is told."""

    def __init__(self, values: list[float | None], weight: float = 1.0) -> None:
        self.name, self.values, self.weight = "fixed", values, weight

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        return [Verdict(v) for v, _ in zip(self.values, items, strict=True)]


def test_weighted_sum_and_undecided() -> None:
    groups = rollout(((2, 2),))
    graded = grade(groups, {"a": Fixed([1.0, 0.0], 2.0), "b": Fixed([1.0, None])})
    assert graded.rewards_PG[0, 0] == 3.0
    assert graded.rewards_PG[0, 1].isnan()
    assert [v.value for v in graded.groups[0].verdicts["b"]] == [1.0, None]
