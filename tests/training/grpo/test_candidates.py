"""Loading and selecting the questions of GRPO: a fault is one line; a resumed selection chooses the same questions."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from finr1.core.errors import DataError
from finr1.core.types import Completion
from finr1.parts.engine.base import OnDone, Request
from finr1.settings.sampling import Sampling
from finr1.training.grpo import questions as chosen_questions
from finr1.training.grpo.questions import load_candidates, select_questions
from tests.helpers.stages import question, stage_context

QUESTIONS = [question("one"), question("two")]
ROWS = "".join(json.dumps(q.to_json()) + "\n" for q in QUESTIONS)
LAST = json.dumps({"question_id": QUESTIONS[1].id}) + "\n"


def candidates(run_dir: Path, questions: str, rl: str) -> list[str]:
    with stage_context(run_dir, "grpo") as ctx:
        for name, file, text in (("questions", "questions.jsonl", questions), ("filter", "rl.jsonl", rl)):
            ctx.inputs[name].mkdir()
            (ctx.inputs[name] / file).write_text(text)
        return [q.id for q in load_candidates(ctx)]


def test_candidates_keep_the_filters_order(tmp_path: Path) -> None:
    assert candidates(tmp_path, ROWS, LAST) == [QUESTIONS[1].id]


@pytest.mark.parametrize(
    ("questions", "rl", "message"),
    [
        (ROWS, LAST + "{oops\n", r"rl\.jsonl: corrupt JSON in line 2; fix"),
        (ROWS, LAST + '{"question": "x"}\n', r"rl\.jsonl: line 2 has no `question_id`; run"),
        (ROWS, LAST + '{"question_id": "x"}\n', r"rl\.jsonl: line 2 has an unknown question x; run"),
        (ROWS, "", r"rl\.jsonl: no question for GRPO"),
        (ROWS + "[]\n", LAST, r"questions\.jsonl: line 3 has no `id`; run"),
        (ROWS.replace('"gold"', '"golds"'), LAST, r"questions\.jsonl: line 1 has no `gold`; run"),
    ],
)
def test_a_fault_is_one_line(tmp_path: Path, questions: str, rl: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        candidates(tmp_path, questions, rl)
    assert "\n" not in str(error.value)


class BatchBound:
    """Answers that depend on who else is in the batch, as a real engine's do; stops dead after `lives` answers."""

    name = "batch_bound"

    def __init__(self, lives: int) -> None:
        self.lives, self.batches = lives, []

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        self.batches.append(len(requests))
        drawn = random.Random("".join(str(request.messages) for request in requests))
        answers = []
        for index, request in enumerate(requests):
            assert request.question is not None and request.question.gold is not None
            if self.lives == 0:
                raise KeyboardInterrupt
            self.lives -= 1
            right, wrong = f"\\boxed{{{request.question.gold}}}", "\\boxed{no}"
            texts = [drawn.choice((right, wrong)) for _ in range(sampling.n)]
            answers.append([Completion(f"<think>\nSo.\n</think>\n<answer>\n{t}\n</answer>", "stop") for t in texts])
            if on_done:
                on_done(index, answers[-1])
        return answers


@pytest.mark.parametrize("lives", [0, 1, 7, 8, 9, 15, 16, 19])
def test_a_resumed_selection_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives: int
) -> None:
    monkeypatch.setattr(chosen_questions, "SELECT_BATCH", 8)
    asked = [question(f"number {i}") for i in range(20)]

    def select(folder: str, engine: BatchBound) -> tuple[list[str], str]:
        with stage_context(tmp_path / folder, "grpo") as ctx:
            ctx.cfg.grpo.select.samples = 4
            chosen = [q.id for q in select_questions(ctx, asked, engine)]  # type: ignore[arg-type]
            return chosen, (ctx.folder / "questions.jsonl").read_text()

    whole = select("whole", BatchBound(20))
    assert 0 < len(whole[0]) < 20
    with pytest.raises(KeyboardInterrupt):
        select("killed", BatchBound(lives))
    again = BatchBound(20)
    assert select("killed", again) == whole
    assert again.batches == [8, 8, 4][lives // 8 :], "a complete batch is not sampled again"
