"""The rule table in the docstring of `finr1.answer.grade` and the examples of every docstring in that room hold."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re

import pytest

import finr1.answer
from finr1.answer import grade as rules
from finr1.core.types import Question

CHOICES = {
    "choice": {"A": "bonds", "B": "stocks", "C": "cash"},
    "label": {"0": "Bearish", "1": "Bullish", "2": "Neutral"},
}
ROWS = [
    re.split(r"\s{2,}", line.strip())
    for line in (rules.__doc__ or "").split("rule\n", 1)[1].split("\n\n", 1)[0].splitlines()
]
VALUES = {"1": 1.0, "0": 0.0, "-": None}
MODULES = [module.name for module in pkgutil.iter_modules(finr1.answer.__path__)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[1]} {row[2]}")
def test_each_row_of_the_rule_table(row: list[str]) -> None:
    kind, gold, answer, strict, scaled, _ = row
    question = Question("s", "d", "en", "reasoning business", kind, [], gold, choices=CHOICES.get(kind, {}))  # type: ignore[arg-type]
    found = rules.grade(answer, question)
    assert (found.strict.value, found.scaled.value) == (VALUES[strict], VALUES[scaled]), found


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"finr1.answer.{name}")).failed == 0


def test_the_table_and_examples_are_there() -> None:
    assert len(ROWS) >= 25 and {row[0] for row in ROWS} == {"number", "choice", "yes_no", "label", "text", "code"}
