"""Whole steps with a tiny model and engine: refills, resume after a kill, weight versions, the canary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from finr1.core.errors import ConfigError
from finr1.core.jsonl import read_jsonl
from finr1.core.tracking import Tracker, read_metrics
from finr1.core.types import Verdict
from finr1.parts.reward.base import RewardItem
from finr1.settings.checkpoint import CheckpointSettings
from finr1.settings.grpo import CorrectionSettings, GrpoSettings
from finr1.settings.sampling import Sampling
from finr1.training.grpo.batch import Batch
from finr1.training.grpo.canary import Canary, check_names
from finr1.training.grpo.questions import make_plan
from finr1.training.grpo.record import Services, UpdateStats
from finr1.training.grpo.rollout import Graded, refill_questions
from finr1.training.grpo.sampler import Sampler
from finr1.training.grpo.step import GrpoModule, Inference
from finr1.training.loop.checkpoints import Checkpoints
from finr1.training.loop.fit import fit
from finr1.training.rows.rows import RowGroup as RowGroup
from finr1.training.rows.rows import make_row
from tests.helpers.stages import question
from tests.helpers.tiny_engine import TinyEngine, weights
from tests.helpers.tiny_model import tiny

TRAINER = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "devices": 1}
QUESTIONS = [question(f"question {i}") for i in range(12)]
SHORT = [f"question {i}" for i in (1, 4, 5, 7, 8, 10)]  # half of them have no spread


class Odd:
    """1 for an odd number of tokens."""

    name, weight = "odd", 1.0

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        return [Verdict(float(len(item.text.split()) % 2)) for item in items]


class Bar:
    def advance(self, *_: Any, **__: Any) -> None: ...


class Killed(GrpoModule):
    """Dies in step 2 as if killed, after the update and before anything of the step is on disk."""

    def update(self, step: int, batch: Batch) -> UpdateStats:
        stats = super().update(step, batch)
        if step == 2:
            raise RuntimeError("killed")
        return stats


def walk(
    folder: Path,
    engine: TinyEngine,
    kind: type[GrpoModule] = GrpoModule,
    tracker: Tracker | None = None,
    model: Any = None,
    **settings: Any,
) -> GrpoModule:
    """Three steps of three questions and four completions, from the folder's checkpoint if it has one."""
    folder.mkdir(exist_ok=True)
    known = {"steps": 3, "questions_per_step": 3, "group_size": 4, "learning_rate": 0.5, "warmup_steps": 0}
    options = GrpoSettings(**{**known, "sampling": Sampling(max_new_tokens=6), "max_grad_norm": 0.5, **settings})
    plan = make_plan(QUESTIONS, 3, 3, seed=0)
    sampler = Sampler(engine, Sampling(n=4, max_new_tokens=6), None, "float32")
    inference = Inference(sampler, Canary(engine, range(1, 20), bound=0.01))
    services = Services(folder, tracker or Tracker(folder), Bar())  # type: ignore[arg-type]
    module = kind(model or tiny(), torch.optim.SGD, options, plan, inference, {"odd": Odd()}, services)
    fit(module, 3, Checkpoints(folder, CheckpointSettings(), print), TRAINER, every=1)
    return module


REFILL = {"refill_rounds": 3}
UPDATES = {"updates_per_rollout": 2}
VARIANTS: list[dict[str, Any]] = [
    {},
    REFILL,
    UPDATES,
    {**REFILL, **UPDATES, "correction": CorrectionSettings("sequence_mask")},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
@pytest.mark.slow
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path, settings: dict[str, Any]) -> None:
    whole = walk(tmp_path / "whole", TinyEngine(SHORT), **settings)
    with pytest.raises(RuntimeError, match="killed"):
        walk(tmp_path / "killed", TinyEngine(SHORT), Killed, **settings)
    resumed = walk(tmp_path / "killed", TinyEngine(SHORT), **settings)
    for (name, one), (_, other) in zip(whole.model.named_parameters(), resumed.model.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    samples = [list(read_jsonl(tmp_path / folder / "samples.jsonl")) for folder in ("whole", "killed")]
    assert samples[0] == samples[1] and [row["step"] for row in samples[0]].count(2) > 0
    start, end = weights(tiny()), weights(whole.model)
    assert max(float((start[name] - end[name]).abs().max()) for name in start) > 1e-3


def test_single_rows_train_the_weights_of_packed_ones(tmp_path: Path) -> None:
    apart = tiny(attention="sdpa")
    apart.single_rows = True
    packed, single = (
        weights(walk(tmp_path / name, TinyEngine(), model=model, row_tokens=30, **UPDATES).model)
        for name, model in (("packed", None), ("single", apart))
    )
    start = weights(tiny())
    for name, weight in packed.items():
        assert (single[name] - weight).norm() <= 1e-4 * (start[name] - weight).norm()


def test_weights_without_an_update_keep_their_version_after_a_kill(tmp_path: Path) -> None:
    """Without spread nothing is synced: a resumed run must not label the same weights with a later step."""
    everything = [q.text for q in QUESTIONS]
    with pytest.raises(RuntimeError, match="killed"):
        walk(tmp_path, TinyEngine(everything), Killed)
    walk(tmp_path, TinyEngine(everything))
    assert [row["weights_version"] for row in read_jsonl(tmp_path / "samples.jsonl")] == ["step 0"] * 3 * 12


@pytest.mark.slow
def test_dynamic_sampling_refills_until_enough_groups_have_spread(tmp_path: Path) -> None:
    engine = TinyEngine(SHORT)
    walk(tmp_path, engine, refill_rounds=10)
    metrics = [row for _, row in read_metrics(tmp_path, "grpo")]
    plan = make_plan(QUESTIONS, 3, 3, seed=0)
    calls = iter(engine.asked)
    for step, row in enumerate(metrics):
        asked: list[str] = next(calls)
        assert asked == [q.text for q in plan[step]]
        while len(asked) < row["groups_asked"]:
            asked = asked + next(calls)
        assert len(set(asked)) == len(asked) == row["groups_asked"]  # no question twice in a step
        spread = [text not in SHORT for text in asked]
        assert row["groups_with_spread"] == pytest.approx(sum(spread) / len(asked))
        assert sum(spread) >= 3 or len(asked) == len(QUESTIONS)
    assert next(calls, None) is None
    assert max(row["groups_asked"] for row in metrics) > 3


@pytest.mark.slow
def test_refill_rounds_are_bounded_and_off_by_default(tmp_path: Path) -> None:
    everything = [q.text for q in QUESTIONS]
    for rounds, calls in ((0, 1), (2, 3)):
        engine = TinyEngine(everything)
        module = walk(tmp_path / str(rounds), engine, refill_rounds=rounds)
        assert [len(texts) for texts in engine.asked] == [3] * 3 * calls
        assert module.steps_done == 3  # steps are rollouts, though no group had spread
        assert all(torch.equal(p, q) for p, q in zip(module.model.parameters(), tiny().parameters(), strict=True))
        assert all("loss" not in row for _, row in read_metrics(tmp_path / str(rounds), "grpo"))


def test_refill_questions_by_hand() -> None:
    spare = QUESTIONS
    spread = lambda *values: torch.tensor(values, dtype=torch.bool)  # noqa: E731
    assert refill_questions(spread(1, 1, 1), 3, spare) == []
    assert refill_questions(spread(0, 0, 0), 3, spare) == spare[:3]  # nothing known yet: a whole round
    assert refill_questions(spread(1, 0, 1), 3, spare) == spare[:2]  # 1 missing at a share of 2/3: 1.5, so 2
    assert refill_questions(spread(1, 0, 1, 0, 0), 3, spare) == spare[2:5]  # 1 missing at 2/5: 2.5, so 3
    assert (
        refill_questions(spread(1, 0, 0, 0, 0, 0), 3, spare[:4]) == spare[3:4]
    )  # 2 missing at 1/6: 12, at most 3, 1 is left


def test_groups_beyond_the_wanted_number_stay_out_of_the_loss() -> None:
    rewards_PG = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    graded = Graded([], rewards_PG, rewards_PG, rewards_PG)
    module: Any = SimpleNamespace(settings=GrpoSettings())
    for wanted, enter in ((1, [False, True, False]), (2, [False, True, True])):
        assert GrpoModule.advantages(module, graded, wanted).enters_PG.all(1).tolist() == enter


def test_spare_questions_depend_on_the_step_alone() -> None:
    plan = make_plan(QUESTIONS, 3, 3, seed=0)
    orders = [[q.text for q in plan.spare(step)] for step in (0, 1, 2)]
    for step in range(3):
        assert sorted(orders[step] + [q.text for q in plan[step]]) == sorted(q.text for q in QUESTIONS)
        assert orders[step] == [q.text for q in plan.spare(step)]
    moved = replace(plan, steps=[plan[0], plan[0], plan[1]])  # the questions of step 1 in step 2
    assert orders[1] != [q.text for q in moved.spare(2)]
    assert orders[1] != [q.text for q in replace(plan, seed=5).spare(1)]


def test_the_engine_has_the_trainers_weights_after_every_step(tmp_path: Path) -> None:
    engine = TinyEngine(SHORT)
    module = walk(tmp_path, engine)
    assert engine.weights_version == "step 3"
    for name, tensor in weights(module.model).items():
        assert torch.equal(engine.model.state_dict()[name], tensor)
    for _, row in read_metrics(tmp_path, "grpo"):
        assert row.get("mismatch", 0.0) < 1e-5


def test_the_canary_is_checked_after_every_sync(tmp_path: Path) -> None:
    walk(tmp_path, TinyEngine())
    metrics = [row for _, row in read_metrics(tmp_path, "grpo")]
    assert len(metrics) == 3 and all(row["canary"] < 1e-5 and row["canary_s"] > 0 for row in metrics)


def test_an_engine_with_stale_weights_is_an_error_that_names_the_step(tmp_path: Path) -> None:
    engine = TinyEngine(stale=True)
    with pytest.raises(
        ConfigError, match=r"grpo\.canary\.bound=0\.01: with the weights after step 1 engine and trainer"
    ):
        walk(tmp_path, engine)
    assert len(engine.asked) == 1  # nothing was sampled from the wrong policy


def test_a_canary_by_hand() -> None:
    """Engine scores shifted by 0.3 and -0.1 in turn: a mean absolute difference of 0.2."""
    model, engine = tiny(), TinyEngine()
    true = engine.logprobs_of(range(1, 6))
    engine.logprobs_of = lambda ids: [x + (0.3, -0.1)[i % 2] for i, x in enumerate(true)]  # type: ignore[method-assign]
    assert Canary(engine, range(1, 6), 0.21).check(model, 4) == pytest.approx(0.2, abs=1e-6)
    with pytest.raises(ConfigError, match=r"canary\.bound=0\.19: with the weights after step 4 .* differ by 0\.2 nats"):
        Canary(engine, range(1, 6), 0.19).check(model, 4)
    engine.logprobs_of = lambda ids: [float("nan")] * 4  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="differ by nan"):
        Canary(engine, range(1, 6), 10.0).check(model, 4)


@pytest.mark.parametrize("training", [True, False])
def test_the_canary_is_scored_without_dropout(training: bool) -> None:
    model, engine, modes = tiny(), TinyEngine(), []
    model.drop = torch.nn.Dropout(0.5)
    model.train(training)
    model.get_input_embeddings().register_forward_hook(lambda module, _, x_BTD: model.drop(x_BTD))
    model.model.norm.register_forward_hook(lambda module, *_: modes.append(module.training))
    assert Canary(engine, range(1, 20), 1e-5).check(model, 0) < 1e-5
    assert modes == [training], "weights in 4 bits must not see eval()"
    assert all(module.training is training for module in model.modules())


def test_the_canary_does_not_stop_the_gradient_under_autocast() -> None:
    model, engine = tiny(), TinyEngine()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Canary(engine, range(1, 20), 10.0).check(model, 0)
        model(
            input_ids=torch.tensor([[1, 2, 3]]), layout=make_row([RowGroup([1], [[2, 3]], [0])]).layout
        ).logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_parameter_names_are_compared_once_at_the_start(tmp_path: Path) -> None:
    names = frozenset(tiny().state_dict())
    check_names(names, names)
    check_names(names | {"model.layers.0.self_attn.rotary_emb.inv_freq"}, names)  # computed, not loaded
    check_names(frozenset(), names)  # an engine that has loaded nothing yet
    with pytest.raises(ConfigError, match=r"1 missing \(lm_head\.weight …\); the engine would silently"):
        check_names(names, names - {"lm_head.weight"})
    engine = TinyEngine()
    engine.weight_names = frozenset(name.replace("model.", "model.language_model.") for name in names)
    with pytest.raises(ConfigError, match=r"\d+ missing \(model\.language_model\..* and \d+ unknown \(model\."):
        walk(tmp_path, engine)
    assert engine.asked == []
