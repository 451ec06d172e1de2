"""Held-out evaluation during training: what is held out, what is logged, the alarm, and the choice of weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from finr1.answer.tags import render
from finr1.core.errors import ConfigError
from finr1.core.jsonl import read_jsonl
from finr1.core.tracking import Tracker, read_metrics
from finr1.core.types import Completion
from finr1.evaluation.scores.figures import figures
from finr1.evaluation.scores.rows import score
from finr1.parts.engine.base import OnDone, Request
from finr1.settings.checkpoint import CheckpointSettings
from finr1.settings.grpo import GrpoSettings, HeldOutSettings
from finr1.settings.sampling import Sampling
from finr1.training.grpo.held_out import HeldOutEvaluation, hold_out
from finr1.training.grpo.questions import make_plan
from finr1.training.grpo.record import Services
from finr1.training.grpo.run import load_exported
from finr1.training.grpo.sampler import Sampler
from finr1.training.grpo.step import GrpoModule, Inference
from finr1.training.loop.checkpoints import Checkpoints
from finr1.training.loop.fit import fit
from tests.helpers.stages import question
from tests.helpers.tiny_engine import TinyEngine, weights
from tests.helpers.tiny_model import tiny
from tests.training.grpo.test_step import Bar, Odd

TRAINER = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "devices": 1}
HELD_OUT = [question(f"held out {i}", gold=str(i + 1)) for i in range(4)]


class Examined(TinyEngine):
    """Answers this many of the four held-out questions correctly, per evaluation; None: malformed answers."""

    def __init__(self, right: Sequence[int | None]) -> None:
        super().__init__()
        self.right, self.examined = list(right), 0
        self.samplings: list[Sampling] = []

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        if sampling.temperature > 0:
            return super().generate(requests, sampling, on_done)
        self.samplings.append(sampling)
        n, answers = self.right[self.examined], []
        self.examined += 1
        for i, request in enumerate(requests):
            value = request.question.gold if n is not None and i < n else "977"
            text = "malformed" if n is None else render("because", f"\\boxed{{{value}}}")
            answers.append([Completion(text, token_ids=[1, 2])])
            if on_done:
                on_done(i, answers[-1])
        return answers


def examine(tmp_path: Path, right: Sequence[int | None], rewards: Sequence[float], **settings: Any) -> tuple[Any, ...]:
    """One evaluation per step: the evaluation, its metrics, and what was said."""
    said: list[str] = []
    options = GrpoSettings(steps=len(right), eval=HeldOutSettings(every_steps=1, **settings))
    sampler = Sampler(Examined(right), Sampling(), None, "float32")
    held_out = HeldOutEvaluation(HELD_OUT, sampler, options, tmp_path, said.append)
    return held_out, [held_out.after_step(step + 1, reward) for step, reward in enumerate(rewards)], said


def test_metrics_equal_those_of_stage_evaluate(tmp_path: Path) -> None:
    held_out, (metrics,), _ = examine(tmp_path, [3], [0.5])
    rows = [row for rows in score(Examined([3]), HELD_OUT, None, Sampling(temperature=0.0)) for row in rows]
    same = figures(rows, 0.95, 10, 0)
    assert metrics["eval_accuracy"] == same["accuracy_strict"] == 0.75
    assert metrics["eval_format"] == same["format"] == 1.0
    assert metrics["eval_undecided"] == metrics["eval_truncated"] == metrics["eval_alarm"] == 0.0
    assert [row["steps_done"] for row in read_jsonl(tmp_path / "evals.jsonl")] == [1] * 4
    (asked,) = held_out.sampler.engine.samplings
    assert (asked.temperature, asked.n, asked.max_new_tokens) == (0.0, 1, 160)


def test_held_out_evaluation_runs_every_n_steps_and_after_the_last(tmp_path: Path) -> None:
    said: list[str] = []
    engine = Examined([1, 2, 3])
    sampler = Sampler(engine, Sampling(), None, "float32")
    settings = GrpoSettings(steps=5, eval=HeldOutSettings(every_steps=2))
    held_out = HeldOutEvaluation(HELD_OUT, sampler, settings, tmp_path, said.append)
    due = [bool(held_out.after_step(step + 1, float(step))) for step in range(5)]
    assert due == [False, True, False, True, True]
    # rewards 0, 1 | 2, 3 | 4
    assert held_out.history == [(2, 0.25, 0.5), (4, 0.5, 2.5), (5, 0.75, 4.0)] and held_out.best == 5
    off = HeldOutEvaluation([], sampler, GrpoSettings(), tmp_path, said.append)
    assert off.after_step(1, 1.0) == {} and off.best is None


@pytest.mark.parametrize(
    ("right", "rewards", "alarms"),
    [
        ([2, 3, 2, 1], [0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]),  # reward up, accuracy down
        ([2, 3, 2, 1], [0.1, 0.4, 0.3, 0.2], [0, 0, 0, 0]),  # both down: the run is bad, no reward is gamed
        ([1, 2, 3, 4], [0.4, 0.3, 0.2, 0.5], [0, 0, 0, 0]),  # both up
        ([3, 2, 3, 2], [0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1]),  # it recovers, and parts again
    ],
)
def test_the_alarm_is_raised_when_accuracy_falls_while_the_reward_rises(
    tmp_path: Path, right: list[int], rewards: list[float], alarms: list[int]
) -> None:
    _, metrics, said = examine(tmp_path, right, rewards)
    assert [row["eval_alarm"] for row in metrics] == alarms
    begins = sum(now > before for before, now in zip([0, *alarms], alarms, strict=False))
    assert len(said) == begins and all("\n" not in line for line in said)


def test_the_alarms_line_and_its_tolerance(tmp_path: Path) -> None:
    _, _, said = examine(tmp_path, [3, 2], [0.25, 0.5])
    assert said[0].startswith(
        "after step 2 accuracy on 4 held-out questions is 0.500, after step 1 it was 0.750, while"
    )
    assert "the reward rose from 0.250 to 0.500" in said[0]
    assert examine(tmp_path, [3, 2], [0.25, 0.5], alarm_drop=0.3)[2] == []  # a quarter is within three tenths


def test_held_out_questions_share_no_document_with_the_rest() -> None:
    candidates = [question(f"q{i}", document_id=f"page {i // 3}") for i in range(30)]
    candidates.append(question("no gold", gold=None, document_id="page 99"))
    settings = GrpoSettings(eval=HeldOutSettings(5, questions=7))
    held, rest = hold_out(candidates, settings, seed=0)
    assert len(held) == 7 and all(q.gold is not None for q in held)
    assert not {q.document_id for q in held} & {q.document_id for q in rest}
    assert len(rest) == 31 - 9  # 7 questions touch 3 pages of 3
    assert hold_out(candidates[::-1], settings, seed=0)[0] == held  # whatever their order
    assert hold_out(candidates, settings, seed=1)[0] != held
    assert hold_out(candidates, GrpoSettings(), seed=0) == ([], candidates)


@pytest.mark.parametrize("n", [40, 25])
def test_too_few_candidates_are_one_line(n: int) -> None:
    candidates = [question(f"q{i}") for i in range(30)]
    with pytest.raises(ConfigError, match=rf"grpo\.eval\.questions={n}: of 30 candidates, .* lower it, or turn it off"):
        hold_out(candidates, GrpoSettings(eval=HeldOutSettings(5, questions=n)), seed=0)


def walk(folder: Path, engine: Examined, until: int = 9, **rule: Any) -> tuple[GrpoModule, Checkpoints, list[str]]:
    """Four steps with an evaluation after each; the weights after each step are kept in `module.seen`."""
    folder.mkdir(exist_ok=True)
    said: list[str] = []
    sampling = Sampling(n=4, max_new_tokens=6)
    known = {"steps": 4, "questions_per_step": 3, "group_size": 4, "warmup_steps": 0, "learning_rate": 0.5}
    settings = GrpoSettings(**known, sampling=sampling, eval=HeldOutSettings(1), export_step="best")  # type: ignore[arg-type]
    sampler = Sampler(engine, sampling, None, "float32")
    plan = make_plan([question(f"question {i}") for i in range(12)], 4, 3, seed=0)
    seen: list[dict[str, torch.Tensor]] = []

    class Watched(GrpoModule):
        def training_step(self, step: int, batch_idx: int) -> None:
            super().training_step(step, batch_idx)
            seen.append(weights(self.model))
            if step == until:
                raise RuntimeError("killed")

    inference = Inference(sampler, held_out=HeldOutEvaluation(HELD_OUT, sampler, settings, folder, said.append))
    services = Services(folder, Tracker(folder), Bar())  # type: ignore[arg-type]
    module = Watched(tiny(), torch.optim.SGD, settings, plan, inference, {"odd": Odd()}, services)
    module.seen = seen  # type: ignore[assignment]
    kept = Checkpoints(folder, CheckpointSettings(keep_best=True, **rule), said.append)
    fit(module, 4, kept, TRAINER, every=10)
    return module, kept, said


def test_the_exported_weights_are_those_of_the_best_step(tmp_path: Path) -> None:
    module, kept, said = walk(tmp_path, Examined([1, 3, 2, 3]))
    assert kept.steps() == [1, 2] and module.best_steps == 2  # the first of equals
    assert load_exported(module, kept, "last", said.append) == 4
    assert all(torch.equal(p, module.seen[3][name]) for name, p in module.model.state_dict().items())
    assert load_exported(module, kept, "best", said.append) == 2 and said == []
    assert all(torch.equal(p, module.seen[1][name]) for name, p in module.model.state_dict().items())
    assert any(not torch.equal(module.seen[1][name], p) for name, p in module.seen[3].items())


def test_a_missing_or_corrupt_best_checkpoint_is_noted(tmp_path: Path) -> None:
    module, kept, said = walk(tmp_path, Examined([1, 3, 2, 1]))
    kept.path(2).write_bytes(b"damaged")
    assert load_exported(module, kept, "best", said.append) == 4
    kept.path(2).unlink()
    assert load_exported(module, kept, "best", said.append) == 4
    assert "the best checkpoint, step 2, cannot be used (File is not a zip file)" in said[0]
    assert "(checkpoint.disk_gib left no room for it): the weights of step 4 are exported" in said[1]


@pytest.mark.slow
def test_a_resumed_run_keeps_its_history(tmp_path: Path) -> None:
    whole, _, _ = walk(tmp_path / "whole", Examined([1, 3, 2, 1]))
    with pytest.raises(RuntimeError, match="killed"):
        walk(tmp_path / "killed", Examined([1, 3, 2]), until=2)
    resumed, kept, _ = walk(tmp_path / "killed", Examined([2, 1]))  # from the checkpoint of step 2, the best
    assert resumed.held_out.history == whole.held_out.history and len(whole.held_out.history) == 4  # type: ignore[union-attr]
    assert load_exported(resumed, kept, "best", print) == 2
    rows = [list(read_jsonl(tmp_path / name / "evals.jsonl")) for name in ("whole", "killed")]
    assert rows[0] == rows[1] and [row["steps_done"] for row in rows[0][::4]] == [1, 2, 3, 4]
    shown = [[m["eval_accuracy"] for _, m in read_metrics(tmp_path / name, "grpo")] for name in ("whole", "killed")]
    assert shown == [[0.25, 0.75, 0.5, 0.25]] * 2


def test_best_without_evaluations_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"grpo\.export_step=best: no accuracy is measured"):
        GrpoSettings(export_step="best")
