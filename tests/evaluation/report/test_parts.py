"""The parts of the report one by one: ticks, curves, numbers in words, which samples are shown."""

from __future__ import annotations

import pytest

from finr1.evaluation.report import charts, gather, page, samples


def test_balanced_takes_every_kind_in_turn() -> None:
    rows = [{"question_id": str(i), "right": i < 2} for i in range(50)]
    chosen = samples.balanced(rows, lambda row: row["right"], lambda row: (row["question_id"],), 10)
    assert len(chosen) == 10 and sum(row["right"] for row in chosen) == 2
    assert samples.balanced(rows[::-1], lambda row: row["right"], lambda row: (row["question_id"],), 10) == chosen


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1.0]),
        (0.42, 0.83, [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        (3, 3, [2.6, 2.8, 3.0, 3.2, 3.4]),
    ],
)
def test_ticks_are_round_and_enclose_the_data(low: float, high: float, expected: list[float]) -> None:
    marks = charts.ticks(low, high)
    assert marks[0] <= low and marks[-1] >= high
    assert marks == pytest.approx(expected)


def test_a_gap_in_a_curve_is_not_drawn_over() -> None:
    svg = charts.line("loss", [[0, 1.0], [1, 2.0], [2, None], [3, 1.0], [4, 3.0]])
    assert svg.count("<polyline") == 2
    assert "no value" in charts.line("loss", [[0, None]])


def test_a_share_above_1_is_drawn_too() -> None:
    """Utilisation against a peak that was measured while the machine was busy."""
    svg = charts.line("mfu", [[0, 2.3], [1, 2.1]], share=True)
    assert "from 2.3 at step 0 to 2.1 at step 1" in svg


def test_a_long_curve_is_thinned_to_means() -> None:
    thin = gather.thin([[i, float(i % 2)] for i in range(1000)], 100)
    assert len(thin) == 100 and thin[-1] == [999, 0.5]
    assert gather.thin([[0, float("nan")], [1, 4.0]], 1) == [[1, 4.0]]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00002, "2e-5"),
        (1234.5, "1,234"),
        (0.4567, "0.457"),
        (None, "–"),
        (float("nan"), "–"),
        (0.0, "0"),
        (-0.5, "-0.5"),
    ],
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert charts.number(value) == text


def test_figures_are_written_with_their_unit() -> None:
    assert page.percent(0.9876) == "98.8%" and page.percent(None) == "–"
    assert page.points(-0.104) == "−10.4" and page.points(0.2) == "+20.0"
    assert page.p_value(0.0004) == "p < 0.001" and page.p_value(0.031) == "p = 0.031"
    assert [page.duration(s) for s in (4.21, 200, 3725, None)] == ["4.2 s", "3 min 20 s", "1 h 02 min", "–"]


def test_a_drop_is_not_called_an_improvement() -> None:
    test = {"n": 100, "diff": -0.2, "low": -0.3, "high": -0.1, "p": 0.001, "format": None}
    scores = {
        m: {mode: {"accuracy_strict": v, "format": 1.0} for mode in ("greedy", "sampled")}
        for m, v in (("a", 0.7), ("b", 0.5))
    }
    one = {"headline": "accuracy_strict"}
    paired = {"b_vs_a": {"greedy": test, "sampled": {**test, "high": 0.1}}}
    found = page.findings({"scores": scores, "paired": paired, "benchmarks": {"one": one}})
    assert [f["word"] for f in found] == ["no clear change", "worsened"]
    held = {"b_vs_a": {"greedy": {**test, "p_holm": 0.06}}}  # what many pairs make of it counts
    (card,) = page.findings({"scores": scores, "paired": held, "benchmarks": {"one": one, "two": one}})
    assert (card["word"], card["p"], card["title"]) == (
        "no clear change",
        0.06,
        "one, b vs a: accuracy (strict), greedy",
    )


def test_settings_by_dotted_key() -> None:
    settings = {
        "engine.teacher": {"_target_": "finr1.parts.engine.worked.engine.WorkedEngine"},
        "sft": {"epochs": 2},
        "source": {"a": {}, "b": {}},
    }
    assert gather.lookup(settings, "engine.teacher") == "WorkedEngine"
    assert gather.lookup(settings, "sft.epochs") == 2
    assert gather.lookup(settings, "source") == "a, b"
    assert gather.lookup(settings, "sft.none") is None
