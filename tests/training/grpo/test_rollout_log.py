"""The rollout log: rounds come back bit for bit, and only for the same questions and weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy
import pytest

from finr1.core.tracking import read_metrics
from finr1.core.types import Completion, Group, Verdict
from finr1.training.grpo.rollout_log import RolloutLog, Round
from tests.helpers.stages import question
from tests.helpers.tiny_engine import TinyEngine
from tests.training.grpo.test_step import SHORT, Killed, walk


def made(text: str = "one") -> Round:
    completions = [
        Completion("a\nb — 亿", "stop", [5, 6], [-1 / 3, -1e-300], [1, 2, 3], meta={"paid": [3, 2]}),
        Completion("", "length", [7], [float(numpy.float32(-0.1))], [1, 2, 3], reasoning="because"),
    ]
    verdicts = {"judge": [Verdict(None, None, "timed out"), Verdict(0.1 + 0.2, "4", "")]}
    return Round([Group(question(text), completions, verdicts)], 2, {"sample_s": 1.5})


def test_a_round_comes_back_unchanged(tmp_path: Path) -> None:
    RolloutLog(tmp_path).put(3, 1, "step 3", made())
    found = RolloutLog(tmp_path).take(3, 1, "step 3", [question("one")])
    assert found == made()


@pytest.mark.parametrize(
    "other",
    [{"step": 2}, {"round": 0}, {"version": "step 2"}, {"questions": [question("two")]}, {"questions": []}],
    ids=str,
)
def test_another_step_round_version_or_question_is_not_found(tmp_path: Path, other: dict[str, Any]) -> None:
    RolloutLog(tmp_path).put(3, 1, "step 3", made())
    wanted: dict[str, Any] = {"step": 3, "round": 1, "version": "step 3", "questions": [question("one")], **other}
    assert RolloutLog(tmp_path).take(**wanted) is None


def test_numbers_of_numpy_and_infinities_survive(tmp_path: Path) -> None:
    scalar: Any = numpy.float32(0.1)
    completions = [Completion("x", "stop", [1], [-math.inf], [1]), Completion("y", "stop", [1], [scalar], [1])]
    group = Group(question("one"), completions, {"r": [Verdict(scalar), Verdict(1.0)]})
    RolloutLog(tmp_path).put(0, 0, "", Round([group], 0, {}))
    found = RolloutLog(tmp_path).take(0, 0, "", [question("one")])
    assert found is not None
    (back,) = found.groups
    assert [c.logprobs for c in back.completions] == [[-math.inf], [float(scalar)]]
    assert back.verdicts["r"][0].value == float(scalar)


def test_a_torn_row_is_ignored(tmp_path: Path) -> None:
    RolloutLog(tmp_path).put(3, 0, "step 3", made())
    path = tmp_path / "rollouts" / "00000003.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert RolloutLog(tmp_path).take(3, 0, "step 3", [question("one")]) is None
    RolloutLog(tmp_path).put(3, 0, "step 3", made())
    assert RolloutLog(tmp_path).take(3, 0, "step 3", [question("one")]) == made()


def test_only_steps_that_may_be_repeated_are_kept(tmp_path: Path) -> None:
    pending = RolloutLog(tmp_path)
    for step in range(5):
        pending.put(step, 0, f"step {step}", made())
    pending.forget_before(3)
    assert sorted(path.name for path in pending.folder.iterdir()) == ["00000003.jsonl", "00000004.jsonl"]
    pending.clear()
    assert not pending.folder.exists()


@pytest.mark.slow
def test_a_resumed_run_does_not_sample_logged_rounds_again(tmp_path: Path) -> None:
    """Killed in the update of step 2, the last: the resumed run samples nothing."""
    with pytest.raises(RuntimeError, match="killed"):
        walk(tmp_path, TinyEngine(SHORT), Killed, refill_rounds=2)
    engine = TinyEngine(SHORT)
    module = walk(tmp_path, engine, refill_rounds=2)
    assert module.steps_done == 3 and engine.asked == []
    seconds = [row["sample_s"] for _, row in read_metrics(tmp_path, "grpo")]
    assert len(seconds) == 3 and min(seconds) > 1e-3  # what sampling took, not what reading took
