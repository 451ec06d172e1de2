"""The questions that GRPO may choose from: rows with a fault end in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stages import question, stage_context

from finr1.errors import DataError
from finr1.grpo.run import _candidates

QUESTIONS = [question("one"), question("two")]
ROWS = "".join(json.dumps(q.to_json()) + "\n" for q in QUESTIONS)
LAST = json.dumps({"question_id": QUESTIONS[1].id}) + "\n"


def candidates(run_dir: Path, questions: str, rl: str) -> list[str]:
    with stage_context(run_dir, "grpo") as ctx:
        for name, file, text in (("questions", "questions.jsonl", questions), ("filter", "rl.jsonl", rl)):
            ctx.inputs[name].mkdir()
            (ctx.inputs[name] / file).write_text(text)
        return [q.id for q in _candidates(ctx)]


def test_the_filters_questions_in_its_order(tmp_path: Path) -> None:
    assert candidates(tmp_path, ROWS, LAST) == [QUESTIONS[1].id]


@pytest.mark.parametrize(
    ("questions", "rl", "message"),
    [
        (ROWS, LAST + "{oops\n", r"rl\.jsonl: broken JSON in line 2; mend"),
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
