"""The held-out benchmark: sampling of rows, and class metrics computed by hand."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from finr1.core.errors import ConfigError, DataError
from finr1.core.types import Message, Question
from finr1.evaluation.evaluate.breakdown import own_intervals
from finr1.evaluation.scores import intervals as stats
from finr1.evaluation.scores.figures import figures as figures_of
from finr1.evaluation.scores.figures import units_of
from finr1.parts.benchmark.base import Outcome
from finr1.parts.benchmark.held_out import HeldOut, allocate, class_figures
from finr1.parts.source.files import _held_out
from finr1.parts.source.tfns import Tfns
from tests.helpers.scored import scored

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
    assert benchmark.left_out == {"duplicate": 1, "without_gold": 1}


def test_rows_that_the_source_sets_aside_are_counted(tmp_path: Path) -> None:
    (tmp_path / "sent_train.csv").write_text("text,label\nUp,1\nDown,7\nFlat,9\n")
    (tmp_path / "sent_valid.csv").write_text("text,label\nUp again,1\nDown again,8\n")
    benchmark = HeldOut(Tfns(str(tmp_path)))
    assert len(benchmark.load()) == 1 and benchmark.left_out == {"unreadable": 1}  # of the held-out file
    shared = HeldOut(Tfns(str(tmp_path)), share=1.0)
    assert len(shared.load()) == 2 and shared.left_out == {"unreadable": 3}


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


@pytest.mark.parametrize(
    ("sizes", "total", "drawn"),
    [
        ({"a": 600, "b": 300, "c": 100}, 100, {"a": 60, "b": 30, "c": 10}),
        # quotas 70.9, 28.2, 0.95: 1 for c and the floors make 99; a's .9 is the largest part left
        ({"a": 1495, "b": 594, "c": 20}, 100, {"a": 71, "b": 28, "c": 1}),
        # five categories of one row each have one each: 4.98 too much, all from a
        ({"a": 995, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1}, 10, {"a": 5, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1}),
        ({"a": 3, "b": 2}, 2, {"a": 1, "b": 1}),
        ({"a": 3, "b": 2}, 5, {"a": 3, "b": 2}),
    ],
)
def test_a_sample_is_proportional_with_at_least_one_each(
    sizes: dict[str, int], total: int, drawn: dict[str, int]
) -> None:
    assert allocate(sizes, total) == drawn


def _labelled(i: int, label: str) -> Question:
    prompt = [Message(role="user", content=f"q{i}")]
    made = Question("made", str(i), "en", "non-reasoning business", "label", prompt, label, "test", LABELS)
    return Question.from_json({**made.to_json(), "meta": {"task": "rare" if i % 500 == 0 else "usual"}})


def test_the_size_rule_samples_above_its_limit_and_says_what_each_row_stands_for() -> None:
    rows = [_labelled(i, "2" if i % 10 else "0") for i in range(2000)]  # 200 of "0", of which four are rare
    assert HeldOut(Rows(rows), limit=2000, stratify=["task"]).load() == rows  # all: nothing was drawn
    benchmark = HeldOut(Rows(rows), limit=101, stratify=["task", "gold"])
    chosen = benchmark.load()
    assert chosen == benchmark.load() and len(chosen) == 101
    by_stratum: dict[str, list[Question]] = {}
    for question in chosen:
        by_stratum.setdefault(question.meta["stratum"], []).append(question)
    assert {key: len(group) for key, group in by_stratum.items()} == {"usual / 2": 91, "usual / 0": 9, "rare / 0": 1}
    assert by_stratum["rare / 0"][0].meta["weight"] == 4
    assert by_stratum["usual / 2"][0].meta["weight"] == pytest.approx(1800 / 91)
    assert sum(question.meta["weight"] for question in chosen) == pytest.approx(2000)
    assert {q.id for q in chosen} <= {q.id for q in rows}
    assert {q.id for q in chosen} != {q.id for q in HeldOut(Rows(rows), limit=101, stratify=["task"], seed=1).load()}
    # a model that is right on "2" alone: 0.9 of all rows, and so says the weighted sample
    rows_of_model = [scored(q.id, float(q.gold == "2"), tokens=1) for q in chosen]
    figures = figures_of(rows_of_model, 0.95, 100, 0, units_of(chosen))
    assert figures["accuracy_strict"] == pytest.approx(0.9) != 91 / 101
    assert figures["method"] == "wilson at effective n over questions within categories"
    assert figures["low"] > stats.wilson(91, 101).low - 0.02
    outcomes = [Outcome(q, q.gold, float(q.gold == "2")) for q in chosen]
    assert benchmark.figures(outcomes) == {"accuracy/rare / 0": 0, "accuracy/usual / 0": 0, "accuracy/usual / 2": 1}


def test_a_stratified_share_is_what_a_source_holds_out_by_itself() -> None:
    rows = [_question(i, "0" if i % 4 else "1", split="train") for i in range(4000)]
    rows += [_question(i, None, split="train") for i in range(4000, 4100)]
    chosen = HeldOut(Rows(rows), share=0.1, stratify=["gold"]).load()
    assert [sum(q.gold == gold for q in chosen) for gold in "01"] == [300, 100]
    held = {q.id for q in rows if _held_out(q.document_id, 0.1)}
    assert len(held & {q.id for q in chosen}) > 350  # but for the rounding of each category
    assert len(HeldOut(Rows(rows), share=0.1, limit=40, stratify=["gold"]).load()) == 40
    assert len(HeldOut(Rows(rows[:3]), share=0.1).load()) == 1


def test_categories_that_cannot_be() -> None:
    rows = [_labelled(i, "012"[i % 3]) for i in range(9)]
    with pytest.raises(ConfigError, match=r"benchmark\.made\.stratify=subject: .* use some of kind, .*, task"):
        HeldOut(Rows(rows), limit=5, stratify=["subject"]).load()
    with pytest.raises(ConfigError, match=r"benchmark\.made\.limit=2: there are 4 categories"):
        HeldOut(Rows(rows), limit=2, stratify=["task", "gold"]).load()
    with pytest.raises(ConfigError, match=r"benchmark\.made\.share=0"):
        HeldOut(Rows(rows), share=0)


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


def test_class_figures_count_rows_as_often_as_they_stand_for_and_failed_calls_not_at_all() -> None:
    def weighted(i: int, gold: str, weight: float) -> Question:
        made = _question(i, gold)
        return Question.from_json({**made.to_json(), "meta": {"weight": weight}})

    right, wrong = Outcome(weighted(0, "0", 3.0), "0", 1.0), Outcome(weighted(1, "1", 1.0), "0", 0.0)
    failed = Outcome(weighted(2, "1", 5.0), None, None)
    figures = class_figures([right, wrong, failed])
    # class 0: P 3/4, R 1, F1 6/7; class 1: never read, F1 0
    assert figures["macro_f1"] == pytest.approx(6 / 7 / 2) and figures["majority_accuracy"] == 3 / 4
    assert (figures["recall_bearish"], figures["recall_bullish"], figures["unparsed"]) == (1, 0, 0)
    assert class_figures([failed]) == {}
    # no answer is an answer of no class
    assert class_figures([right, Outcome(weighted(1, "1", 1.0), None, 0.0)])["unparsed"] == 1 / 4


def test_figures_of_resamples_are_those_of_the_rows_drawn() -> None:
    outcomes = _outcomes(("0", "0"), ("0", "1"), ("1", "1"), ("2", None))
    benchmark = HeldOut(Rows([]), label_figures=True)
    times = np.array([[1, 1, 1, 1], [2, 0, 1, 1], [1, 0, 0, 3], [0, 2, 2, 0]], float)
    of_weights = benchmark.resampled(outcomes)
    assert of_weights is not None
    found = of_weights(times)
    for b, row in enumerate(times.astype(int)):
        drawn = class_figures([outcome for outcome, n in zip(outcomes, row, strict=True) for _ in range(n)])
        for name, value in found.items():
            assert value[b] == pytest.approx(drawn[name]) if name in drawn else np.isnan(value[b]), (b, name)
    assert HeldOut(Rows([])).resampled(outcomes) is None
    failed = [*_outcomes(("0", "0")), Outcome(_question(8, "1"), None, None), Outcome(_question(9, "1"), None, None)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = own_intervals(benchmark, failed, 200, 0, 0.95, None)
    assert kept["macro_f1"] == {"low": 1.0, "high": 1.0, "method": "bootstrap over questions"}


@pytest.mark.slow
def test_macro_f1_has_an_interval_that_covers_as_it_says() -> None:
    """250 answers of three classes, seven of ten right: 0.93 to 0.97 of the intervals hold the true macro-F1."""
    rng, share, right = np.random.default_rng(19), np.array([0.2, 0.3, 0.5]), 0.7
    confusion = share[:, None] * np.where(np.eye(3) == 1, right, (1 - right) / 2)  # gold x answer
    truth = float(np.mean(2 * np.diag(confusion) / (confusion.sum(axis=1) + confusion.sum(axis=0))))
    benchmark, covered, trials = HeldOut(Rows([]), label_figures=True), 0, 300
    for trial in range(trials):
        cells = rng.choice(9, 250, p=confusion.ravel())
        outcomes = _outcomes(*((str(c // 3), str(c % 3)) for c in cells))
        found = own_intervals(benchmark, outcomes, 400, trial, 0.95, None)["macro_f1"]
        covered += found["low"] <= truth <= found["high"]
    assert 0.92 <= covered / trials <= 0.98 and found["method"] == "bootstrap over questions"


def test_a_meaning_names_its_class_and_figures_are_asked_for() -> None:
    outcomes = [Outcome(_question(0, "0"), "It is Bullish.", 0.0), Outcome(_question(1, "1"), "1", 1.0)]
    assert class_figures(outcomes)["macro_f1"] == pytest.approx((0 + 2 / 3) / 2)  # class 1: P 1/2, R 1
    assert HeldOut(Rows([])).figures(outcomes) == {}
    assert HeldOut(Rows([]), label_figures=True).figures(outcomes)["unparsed"] == 0
