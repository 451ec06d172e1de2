"""The rules beside other projects' metrics on the same answers: where they differ it is known, and why is written down.

`tests/golden/peer_metrics.jsonl` holds what the peers' own code said: FinQA's official evaluator of programs, lm-eval's
`exact_match` as its gsm8k task sets it, evalscope's mathematical comparison, or its `extract_verdict` where yes or
no is asked. `differs` is the reason of a difference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stages import question

from finr1.answer import grade
from finr1.answer.program import ProgramError, execute

GOLDEN = Path(__file__).parents[1] / "golden" / "peer_metrics.jsonl"
ROWS = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
TABLE, PROGRAMS = next(row["table"] for row in ROWS if "table" in row), [row for row in ROWS if "program" in row]
ANSWERS = [row for row in ROWS if "answer" in row]
CHOICES = {"choice": {"A": "bonds", "B": "stocks", "C": "cash", "D": "gold"}}
CHOICES["label"] = {"0": "Bearish", "1": "Bullish", "2": "Neutral"}


def verdicts(row: dict[str, Any]) -> tuple[float | None, float | None]:
    asked = question("q", row["gold"], kind=row["kind"], choices=CHOICES.get(row["kind"], {}))
    grades = grade(row["answer"], asked)
    return grades.strict.value, grades.scaled.value


@pytest.mark.parametrize("row", PROGRAMS, ids=lambda row: row["program"])
def test_a_program_gives_what_finqas_evaluator_gives(row: dict[str, Any]) -> None:
    try:
        found = execute(row["program"], TABLE)
    except ProgramError:
        found = None
    rounded = round(found, 5) if isinstance(found, float) else found  # as the evaluator rounds
    assert rounded == row["ours" if "differs" in row else "official"]
    assert ("differs" in row) == (rounded != row["official"])


@pytest.mark.parametrize("row", ANSWERS, ids=lambda row: f"{row['gold']} | {row['answer']}")
def test_verdicts_on_the_peers_answers(row: dict[str, Any]) -> None:
    assert verdicts(row) == (row["strict"], row["scaled"])


def test_what_lm_eval_takes_for_equal_is_right_here() -> None:
    equal = [row for row in ANSWERS if row["lm_eval"] == 1]
    assert len(equal) > 10 and all(verdicts(row)[0] == 1 for row in equal)


def test_evalscope_differs_only_where_it_is_said_why() -> None:
    compared = [row for row in ANSWERS if row["evalscope"] is not None]
    assert len(compared) > 30
    for row in compared:
        assert (verdicts(row)[0] != row["evalscope"]) == ("differs" in row), row
