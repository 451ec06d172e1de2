"""The held-out benchmark: the choice of rows, and the figures of closed sets of answers by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from finr1.benchmark.base import Outcome
from finr1.benchmark.held_out import HeldOut, class_figures
from finr1.errors import ConfigError, DataError
from finr1.types import Message, Question

LABELS = {"0": "Bearish", "1": "Bullish", "2": "Neutral"}


def _question(i: int, gold: str | None = "0", split: str = "test") -> Question:
    prompt = [Message(role="user", content=f"q{i}")]
    return Question("made", str(i), "en", "non-reasoning business", "label", prompt, gold, split, LABELS)  # type: ignore[arg-type]


class Rows:
    """A source of given rows."""

    name = "made"

    def __init__(self, rows: list[Question]) -> None:
        self.rows = rows

    def load(self) -> Iterator[Question]:
        yield from self.rows


def test_scorable_rows_of_one_split_each_once() -> None:
    rows = [_question(0), _question(0), _question(1, None), _question(2, split="train"), _question(3)]
    benchmark = HeldOut(Rows(rows))
    assert [q.document_id for q in benchmark.load()] == ["0", "3"]
    assert benchmark.name == "made" and HeldOut(Rows(rows), name="other").name == "other"
    assert [q.document_id for q in HeldOut(Rows(rows), split="train").load()] == ["2"]


def test_limit_is_seeded_ordered_and_mostly_kept_when_rows_are_added() -> None:
    rows = [_question(i) for i in range(100)]
    first = [q.document_id for q in HeldOut(Rows(rows), limit=20).load()]
    assert len(first) == 20 and first == sorted(first, key=int)
    assert first == [q.document_id for q in HeldOut(Rows(rows), limit=20).load()]
    assert first != [q.document_id for q in HeldOut(Rows(rows), limit=20, seed=1).load()]
    grown = [q.document_id for q in HeldOut(Rows([*rows, _question(100)]), limit=20).load()]
    assert len(set(first) & set(grown)) >= 19
    assert len(HeldOut(Rows(rows), limit=1000).load()) == 100


def test_errors() -> None:
    with pytest.raises(DataError, match=r"benchmark\.made: no test question with gold"):
        HeldOut(Rows([_question(0, split="train")])).load()
    with pytest.raises(ConfigError, match=r"benchmark\.made\.limit=0"):
        HeldOut(Rows([]), limit=0)


def _outcomes(*pairs: tuple[str, str | None]) -> list[Outcome]:
    return [Outcome(_question(i, gold), answer, float(answer == gold)) for i, (gold, answer) in enumerate(pairs)]


def test_figures_by_hand() -> None:
    # gold 0 0 1 2 2 2, answered 0 1 1 2 - 2 ("-" names no class)
    outcomes = _outcomes(("0", "0"), ("0", "1"), ("1", "1"), ("2", "2"), ("2", None), ("2", "2"))
    figures = class_figures(outcomes)
    # class 0: P 1, R 1/2, F1 2/3; class 1: P 1/2, R 1, F1 2/3; class 2: P 1, R 2/3, F1 4/5
    assert figures["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 4 / 5) / 3)
    assert figures["recall_bearish"] == pytest.approx(1 / 2)
    assert figures["recall_bullish"] == 1
    assert figures["recall_neutral"] == pytest.approx(2 / 3)
    assert figures["unparsed"] == pytest.approx(1 / 6)
    assert figures["majority_accuracy"] == pytest.approx(1 / 2)
    # always "2": P 1/2, R 1, F1 2/3 for class 2, none for the others
    assert figures["majority_macro_f1"] == pytest.approx(2 / 9)


def test_always_answering_the_majority_gives_the_majority_figures() -> None:
    figures = class_figures(_outcomes(*[("2", "2")] * 7, ("0", "2"), ("1", "2")))
    assert figures["macro_f1"] == pytest.approx(figures["majority_macro_f1"])
    assert (figures["recall_neutral"], figures["recall_bearish"], figures["unparsed"]) == (1, 0, 0)


def test_a_meaning_names_its_class_and_figures_are_asked_for() -> None:
    outcomes = [Outcome(_question(0, "0"), "It is Bullish.", 0.0), Outcome(_question(1, "1"), "1", 1.0)]
    assert class_figures(outcomes)["macro_f1"] == pytest.approx((0 + 2 / 3) / 2)  # class 1: P 1/2, R 1
    assert HeldOut(Rows([])).figures(outcomes) == {}
    assert HeldOut(Rows([]), label_figures=True).figures(outcomes)["unparsed"] == 0
