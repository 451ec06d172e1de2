"""The update on a tiny model: what enters the gradient; invariance to micro-batches and to the order of groups."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from finr1.core.tracking import Tracker
from finr1.core.types import Completion, Group, Verdict
from finr1.parts.reward.base import RewardItem
from finr1.settings.grpo import CORRECTIONS, LOSSES, AdvantageSettings, CorrectionSettings, GrpoSettings, LossSettings
from finr1.settings.sampling import Sampling
from finr1.training.grpo.advantage import centre
from finr1.training.grpo.batch import collate
from finr1.training.grpo.questions import Plan
from finr1.training.grpo.record import Services, UpdateStats
from finr1.training.grpo.reference import Reference
from finr1.training.grpo.rollout import combine_rewards, grade_groups
from finr1.training.grpo.step import GrpoModule, Inference
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row
from tests.helpers.stages import question
from tests.helpers.tiny_engine import weights
from tests.helpers.tiny_model import VOCABULARY, tiny


def rollout(sizes: Sequence[Sequence[int]] = ((4, 6, 3), (5, 2, 7))) -> list[Group]:
    """Groups of completions with token ids; the engine's log-probs are the tiny model's, off by up to 0.6."""
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
                logprobs_N = completion_stats(tiny(), row).logprobs_N
            logprobs = (logprobs_N + 1.2 * (torch.rand(n, generator=generator) - 0.5)).tolist()
            completions.append(Completion("", "stop", ids, logprobs, prompt))
        groups.append(Group(question(str(p)), completions))
    return groups


def moved(model: Any, by: float = 0.05) -> Any:
    """The model with every weight shifted a little, deterministically."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(by * torch.randn(p.shape, generator=generator))
    return model


def module(tmp_path: Path, model: Any = None, **settings: Any) -> GrpoModule:
    class Bar:
        def advance(self, *_: Any, **__: Any) -> None: ...

    options = GrpoSettings(**{"steps": 1, "warmup_steps": 0, "row_tokens": 1000, **settings})
    made = GrpoModule(
        model or tiny(),
        torch.optim.SGD,
        options,
        Plan([], [], 0),
        Inference(None),  # type: ignore[arg-type]
        {},
        Services(tmp_path, Tracker(tmp_path), Bar()),  # type: ignore[arg-type]
        Reference(lambda: moved(tiny())) if options.loss.beta else None,
    )
    made.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign]
    return made


def gradients(made: GrpoModule, groups: list[Group], rewards: list[list[float]]) -> tuple[dict[str, Any], UpdateStats]:
    """The gradient that one update leaves, unclipped: `optimise` without its optimiser."""
    found: dict[str, Any] = {}

    def keep(losses: Any, lr: float, max_grad_norm: float) -> float:
        for loss in losses:
            loss.backward()
        found.update({name: p.grad.clone() for name, p in made.model.named_parameters()})  # summed over updates
        return 1.0

    made.optimise = keep  # type: ignore[method-assign]
    s = made.settings
    advantages = centre(torch.tensor(rewards), s.advantage.scale, s.advantage.spread_tolerance)
    return found, made.update(0, collate(groups, advantages, s))


REWARDS = [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
THREE = ((4, 6, 3), (5, 2, 7), (2, 3, 4))


def same(one: dict[str, Any], other: dict[str, Any], tolerance: float = 1e-5) -> None:
    assert one.keys() == other.keys() and one
    for name in one:
        scale = float(other[name].abs().max().clamp_min(1e-6))
        assert float((one[name] - other[name]).abs().max()) / scale < tolerance, name


@pytest.mark.parametrize("loss", ["dapo", "grpo"])
def test_gradient_equals_the_plain_computation(tmp_path: Path, loss: str) -> None:
    """Against a loop over single completions with a dense forward pass and the equation written out."""
    groups = rollout()
    found, _ = gradients(module(tmp_path, loss=LossSettings(kind=loss)), groups, REWARDS)
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


VARIANTS: dict[str, dict[str, Any]] = {
    **{kind: {"loss": LossSettings(kind)} for kind in LOSSES},
    **{kind: {"correction": CorrectionSettings(kind, high=1.0)} for kind in CORRECTIONS[1:]},
    "tight gspo": {"loss": LossSettings("gspo", clip_low=0.01, clip_high=0.01)},
    "dual clip": {"loss": LossSettings(dual_clip=1.3)},
    "divergence": {"loss": LossSettings(beta=0.2)},
    "entropy": {"loss": LossSettings(entropy_bonus=0.1)},
    "counted over all": {"loss": LossSettings(normaliser="all")},
    "everything": {
        "loss": LossSettings("gspo", beta=0.2, entropy_bonus=0.1),
        "correction": CorrectionSettings("sequence_truncate"),
    },
}


@pytest.mark.parametrize(("variant", "row_tokens"), [("dapo", 8), ("dapo", 25), *((name, 15) for name in VARIANTS)])
def test_the_number_of_micro_batches_does_not_change_the_gradient(
    tmp_path: Path, variant: str, row_tokens: int
) -> None:
    whole, all_stats = gradients(module(tmp_path, **VARIANTS[variant]), rollout(), REWARDS)
    split, stats = gradients(module(tmp_path, row_tokens=row_tokens, **VARIANTS[variant]), rollout(), REWARDS)
    same(split, whole, 2e-5)
    assert stats == pytest.approx(all_stats, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "dapo"])
def test_every_variant_differs_from_the_default(tmp_path: Path, variant: str) -> None:
    alike = {"bnpo"}  # with one optimiser step a rollout
    rewards = [*REWARDS, [1.0] * 3]
    default, before = gradients(module(tmp_path), rollout(THREE), rewards)
    other, stats = gradients(module(tmp_path, **VARIANTS[variant]), rollout(THREE), rewards)
    gap = max(float((default[name] - other[name]).abs().max()) for name in default)
    assert (gap < 1e-7) == (variant in alike)
    assert stats.n_tokens == before.n_tokens == 27


def test_counting_all_completions_makes_the_step_smaller(tmp_path: Path) -> None:
    # the third group has no spread: 27 tokens enter, 27 + 9 are counted
    rewards = [*REWARDS, [1.0] * 3]
    entering, _ = gradients(module(tmp_path), rollout(THREE), rewards)
    counted, _ = gradients(module(tmp_path, loss=LossSettings(normaliser="all")), rollout(THREE), rewards)
    same({name: g * 36 / 27 for name, g in counted.items()}, entering)


def test_the_gradient_of_the_entropy_is_that_of_the_plain_computation(tmp_path: Path) -> None:
    groups = rollout()
    without, _ = gradients(module(tmp_path), groups, REWARDS)
    with_bonus, _ = gradients(module(tmp_path, loss=LossSettings(entropy_bonus=0.5)), groups, REWARDS)
    model = tiny()
    model.set_attn_implementation("eager")
    total = torch.zeros(())
    for group in groups:
        for c in group.completions:
            ids = torch.tensor([[*c.prompt_token_ids, *c.token_ids]])
            logp = model(input_ids=ids, use_cache=False).logits[0, len(c.prompt_token_ids) - 1 : -1].log_softmax(-1)
            total = total - (logp.exp() * logp).sum()
    (-0.5 * total / 27).backward()  # 27 tokens
    expected = {name: p.grad for name, p in model.named_parameters()}
    same({name: with_bonus[name] - without[name] for name in without}, expected, 1e-4)


def test_the_reference_of_adapters_is_the_model_without_them() -> None:
    from peft import LoraConfig, get_peft_model

    row = make_row([RowGroup([1, 2, 3], [[4, 5, 6]], [0])])
    policy = get_peft_model(tiny(), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, p in policy.named_parameters():
            if ".lora_" in name:
                p.add_(0.3)
        base, own = completion_stats(tiny(), row).logprobs_N, completion_stats(policy, row).logprobs_N
    found = Reference(lambda: pytest.fail("adapters need no copy")).logprobs(policy, row, 1.0)
    torch.testing.assert_close(found, base, atol=1e-6, rtol=0)
    assert float((own - base).abs().max()) > 1e-2 and not found.requires_grad
    after = completion_stats(policy, row).logprobs_N  # the adapters are on again
    torch.testing.assert_close(after.detach(), own, atol=0, rtol=0)


def test_the_reference_of_a_whole_model_is_loaded_once_and_only_when_asked(tmp_path: Path) -> None:
    loads = []

    def load() -> Any:
        loads.append(1)
        return moved(tiny())

    reference = Reference(load)
    row = make_row([RowGroup([1, 2, 3], [[4, 5, 6]], [0])])
    assert loads == []
    found = [reference.logprobs(tiny(), row, 1.0) for _ in range(2)]
    with torch.no_grad():
        expected = completion_stats(moved(tiny()), row).logprobs_N
    assert loads == [1] and torch.equal(found[0], expected) and torch.equal(found[1], expected)
    with pytest.raises(ValueError, match="needs a reference"):
        settings, services = GrpoSettings(loss=LossSettings(beta=0.1)), Services(tmp_path, Tracker(tmp_path), None)  # type: ignore[arg-type]
        GrpoModule(tiny(), torch.optim.SGD, settings, Plan([], [], 0), Inference(None), {}, services)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"loss": LossSettings(beta=0.2)}, {"updates_per_rollout": 2}], ids=str)
def test_no_grad_passes_do_not_break_the_gradient_under_autocast(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Autocast keeps cast weights for the whole step: none made without gradient may be taken for those with one."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = gradients(module(tmp_path, **settings), rollout(), REWARDS)
    assert all(float(g.abs().max()) > 0 for g in found.values())


TO_TRAINER = CorrectionSettings("token_truncate", high=100.0)  # the ratio is to the trainer


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("count", ["entering", "all"])
def test_several_updates_without_motion_sum_to_one_update(tmp_path: Path, loss: str, count: str) -> None:
    """Each completion is used once, with the same weight: the mean over updates is what one update has."""
    rewards = [*REWARDS, [0.0, 1.0, 0.0], [1.0] * 3]
    sizes = (*THREE, (3, 3, 3))
    settings = {"correction": TO_TRAINER, "loss": LossSettings(loss, normaliser=count)}
    one, all_stats = gradients(module(tmp_path, **settings), rollout(sizes), rewards)
    made = module(tmp_path, updates_per_rollout=3, **settings)
    three, stats = gradients(made, rollout(sizes), rewards)
    if loss == "bnpo" and count == "entering":  # its own tokens: 13, 14 and 9, not a third of 36 each
        assert max(float((three[name] / 3 - one[name]).abs().max()) for name in one) > 1e-4
    else:
        same({name: g / 3 for name, g in three.items()}, one, 2e-5)
        assert stats.loss == pytest.approx(all_stats.loss, abs=1e-6)
    assert stats[2:] == pytest.approx(all_stats[2:], rel=1e-5)


def test_several_updates_by_the_equation(tmp_path: Path) -> None:
    """Two plain SGD steps, each on its groups, with the ratio to the weights that sampled, written out."""
    groups, rewards = rollout(THREE), [*REWARDS, [0.0, 1.0, 0.0]]
    made = module(tmp_path, updates_per_rollout=2, learning_rate=2.0, max_grad_norm=1e9)
    optimizer = made.configure_optimizers()
    made.optimizers = lambda: optimizer  # type: ignore[method-assign,assignment]
    advantages = centre(torch.tensor(rewards))
    batch = collate(groups, advantages, made.settings, seed=3)
    shares = [sorted({n // 3 for row in rows for group in row for n in group.numbers}) for rows in batch.updates]
    assert sorted(map(len, shares)) == [1, 2] and sorted([*shares[0], *shares[1]]) == [0, 1, 2]
    stats = made.update(0, batch)
    model = tiny()
    model.set_attn_implementation("eager")

    def logprobs(c: Completion) -> torch.Tensor:
        ids = torch.tensor([[*c.prompt_token_ids, *c.token_ids]])
        logp = model(input_ids=ids, use_cache=False).logits[0, len(c.prompt_token_ids) - 1 : -1].log_softmax(-1)
        return logp.gather(-1, torch.tensor(c.token_ids)[:, None])[:, 0]

    with torch.no_grad():
        old = {(p, g): logprobs(c) for p, group in enumerate(groups) for g, c in enumerate(group.completions)}
    n_tokens = sum(len(c.token_ids) for group in groups for c in group.completions)
    for share in shares:
        total = torch.zeros(())
        for p in share:
            for g, c in enumerate(groups[p].completions):
                ratio, a = (logprobs(c) - old[p, g]).exp(), advantages.advantages_PG[p, g]
                total = total - torch.minimum(ratio * a, ratio.clamp(0.8, 1.28) * a).sum() / (n_tokens / 2)
        model.zero_grad()
        total.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 2.0 * parameter.grad
    same(weights(made.model), weights(model), 1e-4)
    start, end = weights(tiny()), weights(model)
    assert max(float((start[name] - end[name]).abs().max()) for name in start) > 1e-2
    assert stats.clipped > 0  # the second step did see a moved policy


def test_there_are_never_more_updates_than_groups(tmp_path: Path) -> None:
    batch = collate(rollout(), centre(torch.tensor(REWARDS)), GrpoSettings(updates_per_rollout=5))
    assert len(batch.updates) == 2 and all(batch.updates)


def test_order_of_groups_changes_nothing(tmp_path: Path) -> None:
    whole, _ = gradients(module(tmp_path), rollout(), REWARDS)
    turned, _ = gradients(module(tmp_path), rollout()[::-1], REWARDS[::-1])
    same(turned, whole)


def test_groups_with_equal_rewards_give_no_update(tmp_path: Path) -> None:
    found, stats = gradients(module(tmp_path), rollout(), [[1.0] * 3, [0.0] * 3])
    assert found == {} and stats == UpdateStats()


def test_a_group_without_spread_does_not_change_the_gradient(tmp_path: Path) -> None:
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
    _, masked = gradients(module(tmp_path, loss=LossSettings(mask_truncated=True)), groups, REWARDS)
    assert (kept.n_tokens, masked.n_tokens) == (27, 21)


def test_prompt_tokens_and_padding_carry_no_loss() -> None:
    """The positions that are read are those that predict completion tokens, and no other."""
    row = make_row([RowGroup([1, 2, 3], [[4, 5]], [0])])
    assert row.predict_N.tolist() == [2, 3] and row.target_N.tolist() == [4, 5]


class Fixed:
    """A reward with fixed values."""

    def __init__(self, values: list[float | None], weight: float = 1.0) -> None:
        self.name, self.values, self.weight = "fixed", values, weight

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        return [Verdict(v) for v, _ in zip(self.values, items, strict=True)]


def test_weighted_sum_and_undecided() -> None:
    groups = rollout(((2, 2),))
    two = {"a": Fixed([1.0, 0.0], 2.0), "b": Fixed([1.0, None])}
    graded = combine_rewards(grade_groups(groups, two), two, GrpoSettings())
    assert graded.rewards_PG[0, 0] == 3.0
    assert graded.rewards_PG[0, 1].isnan()
    assert [v.value for v in graded.groups[0].verdicts["b"]] == [1.0, None]


def test_a_product_of_rewards_and_the_overlong_penalty() -> None:
    # two completions of 2 and 4 tokens, limit 4, buffer 4: penalties -0.5 and -1, of weight 0.5
    groups = rollout(((2, 4),))
    rewards = {"a": Fixed([1.0, 1.0], 2.0), "b": Fixed([1.0, 0.0])}
    sampling = Sampling(max_new_tokens=4)
    settings = GrpoSettings(
        sampling=sampling, advantage=AdvantageSettings(overlong_buffer_tokens=4, overlong_weight=0.5)
    )
    assert combine_rewards(grade_groups(groups, rewards), rewards, settings).rewards_PG.tolist() == [[2.75, 1.5]]
    settings.advantage.combine = "product"
    assert combine_rewards(grade_groups(groups, rewards), rewards, settings).rewards_PG.tolist() == [[0.75, -0.5]]
