"""The verdicts on real replies to FinanceReasoning's hard questions are that project's own."""

import json
from pathlib import Path

import pytest

from finr1.answer.golds import kind_of
from finr1.answer.grade import grade
from finr1.core.types import Question

TOLERANCE = 0.002  # published: right within 0.2% of the gold
WANTED = 0.985


def test_verdicts_agree_with_those_of_the_project(data: Path) -> None:
    folder = data / "financereasoning"
    if not folder.is_dir():
        pytest.skip(f"no FinanceReasoning in {data}")
    rows = json.loads((folder / "hard.json").read_text(encoding="utf-8"))
    questions = {}
    for row in rows:
        prompt, gold = f"{row['context']}\n\n{row['question']}", str(row["ground_truth"])
        message = {"role": "user", "content": prompt}
        meta = {"tolerance": TOLERANCE}
        kind = kind_of(gold, {})
        questions[row["question_id"]] = Question("f", "d", "en", "reasoning business", kind, [message], gold, meta=meta)  # type: ignore[list-item]
    replies = [
        json.loads(line)
        for path in sorted((folder / "completions").glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    same = [grade(row["output"], questions[row["question_id"]]).strict.value == row["result"]["acc"] for row in replies]
    assert len(questions) == 193 and len(same) >= 4 * 193
    assert sum(same) / len(same) >= WANTED
