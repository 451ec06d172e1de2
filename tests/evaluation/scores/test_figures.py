"""Figures of scored completions by hand: undecided rows, k samples, majority answers, weights, documents, Holm."""

from __future__ import annotations

from typing import Any

import pytest

from finr1.core.types import Completion, Question
from finr1.evaluation.scores.figures import Unit, at_k, compare, correct_for_many, majority
from finr1.evaluation.scores.figures import figures as figures_of
from finr1.evaluation.scores.rows import ScoredCompletion, grade_completion
from tests.helpers.scored import scored


def question(number: int) -> Question:
    message = {"role": "user", "content": f"What is {number} plus {number}?"}
    return Question("unit", f"doc{number}", "en", "reasoning business", "number", [message], str(2 * number))  # type: ignore[list-item]


def boxed(question_id: str, *answers: tuple[str, float | None]) -> list[ScoredCompletion]:
    return [scored(question_id, value, sample=i, answer=text) for i, (text, value) in enumerate(answers)]


def test_undecided_rows_are_counted_and_never_averaged() -> None:
    rows = [scored("a", 1.0), scored("b", 0.0), scored("c", None), scored("d", None)]
    figures = figures_of(rows, 0.95, 100, 0)
    assert figures["accuracy_strict"] == 0.5  # 1 of the 2 decided; 0.25 or 0.75 would count None
    assert (figures["undecided"], figures["n"], figures["n_decided_strict"]) == (0.5, 4, 2)
    nothing = figures_of(rows[2:], 0.95, 100, 0)
    assert (nothing["accuracy_strict"], nothing["low"], nothing["undecided"]) == (None, None, 1)
    assert nothing["intervals"]["accuracy_strict"] is None


def test_paired_test_leaves_out_what_either_side_left_undecided() -> None:
    a = [scored("a", 0.0), scored("b", None), scored("c", 0.0)]
    b = [scored("a", 1.0), scored("b", 1.0), scored("c", None)]
    test = compare(a, b, False, 0.95, 100, 0)
    assert test is not None and (test["n"], test["improved"], test["worsened"]) == (1, 1, 0)
    assert test["format"]["n"] == 3
    assert compare(a[1:2], b[2:], False, 0.95, 100, 0) is None


def test_figures_of_k_samples_by_hand() -> None:
    asked = {name: question(5) for name in ("a", "b", "c")}
    rows = boxed("a", ("10", 1.0), ("10.0", 1.0), ("11", 0.0), ("12", 0.0))  # 2 of 4; the two right ones are one answer
    rows += boxed("b", ("10", 1.0), ("11", 0.0), ("11.00", 0.0), ("-", 0.0))  # 1 of 4; 11 wins
    rows += boxed("c", ("10", 1.0), ("10", 1.0), ("9", 0.0), ("ten", None))  # 2 of 3 decided
    found = at_k(rows, asked, 0.95)
    assert list(found) == ["mean@4", "pass@1", "pass@2", "pass@4", "maj@4"]
    values = {name: (cell["value"], cell["n_questions"]) for name, cell in found.items()}
    assert values["mean@4"] == (pytest.approx((2 / 4 + 1 / 4 + 2 / 3) / 3), 3)
    assert values["pass@1"] == pytest.approx(values["mean@4"])
    assert values["pass@2"] == (pytest.approx((1 - 1 / 6 + 1 - 3 / 6 + 1 - 0) / 3), 3)
    assert values["pass@4"] == (1.0, 2)  # c has no four decided samples
    assert values["maj@4"] == (pytest.approx(2 / 3), 3)
    assert all(cell["low"] <= cell["value"] <= cell["high"] for cell in found.values())
    assert at_k(boxed("a", ("10", 1.0)), asked, 0.95) == {}


def test_votes_tie_as_a_coin_falls_and_empty_hands_do_not_vote() -> None:
    asked = question(5)
    assert majority(boxed("a", ("10", 1.0), ("11", 0.0)), asked) == 0.5
    assert majority(boxed("a", ("", 0.0), ("", 0.0), ("10", 1.0)), asked) == 1.0
    assert majority(boxed("a", ("", 0.0), ("", 0.0)), asked) == 0.0
    assert majority(boxed("a", ("x", None), ("x", None), ("10", 1.0)), asked) is None
    error = scored("a", None, finish_reason="error", answer=None)
    assert majority([error], asked) is None
    option = Question(
        "u", "d", "zh", "professional knowledge", "choice", asked.prompt, "B", choices={"A": "1", "B": "2"}
    )
    assert majority(boxed("a", ("B", 1.0), ("选B", 1.0), ("A", 0.0)), option) == 1.0


def test_questions_that_stand_for_more_count_more_and_documents_are_the_units() -> None:
    units = {"a": Unit(3.0, "p", ""), "b": Unit(1.0, "p", ""), "c": Unit(1.0, "q", "")}
    rows = [scored("a", 1.0), scored("b", 0.0), scored("c", 0.0, tokens=20)]
    found = figures_of(rows, 0.95, 100, 0, units)
    assert found["accuracy_strict"] == pytest.approx(3 / 5) and found["n"] == 3
    assert found["mean_tokens"] == pytest.approx((3 * 10 + 10 + 20) / 5)
    assert found["method"].endswith("over documents")
    better = [scored("a", 1.0), scored("b", 1.0), scored("c", 1.0)]
    test = compare(rows, better, False, 0.95, 100, 0, units)
    assert test is not None and test["diff"] == pytest.approx(2 / 5)
    assert test["mcnemar"]["diff"] == pytest.approx(2 / 3) and test["p"] == test["bootstrap"]["p"]
    equal = {key: Unit(2.0, key, "") for key in "abc"}
    assert figures_of(rows, 0.95, 100, 0, equal) == figures_of(rows, 0.95, 100, 0)
    plain = compare(rows, better, False, 0.95, 100, 0, equal)
    assert plain is not None and plain["p"] == plain["mcnemar"]["p"] == 0.5  # 2 · 1/4


def test_holm_goes_over_the_pairs_of_a_mode_and_figure() -> None:
    def test(p: float, form: float) -> dict[str, Any]:
        return {"p": p, "format": {"p": form}, "accuracy_scaled": None}

    paired = {"b_vs_a": {"greedy": test(0.01, 0.5)}, "c_vs_a": {"greedy": test(0.03, 0.2), "sampled": test(0.04, 0.9)}}
    correct_for_many({**paired, "c_vs_b": {"greedy": None}})
    assert (paired["b_vs_a"]["greedy"]["p_holm"], paired["c_vs_a"]["greedy"]["p_holm"]) == (0.02, 0.03)
    assert paired["c_vs_a"]["sampled"]["p_holm"] == 0.04
    assert paired["c_vs_a"]["greedy"]["format"]["p_holm"] == 0.4


def test_a_failed_call_has_no_verdict() -> None:
    failed = grade_completion(question(3), 0, Completion("", "error", error="too long"))
    assert (failed.well_formed, failed.strict, failed.scaled) == (None, None, None)
    assert "too long" in failed.strict_why
    figures = figures_of([failed, scored("a", 1.0)], 0.95, 100, 0)
    assert (figures["format"], figures["accuracy_strict"], figures["errors"], figures["mean_tokens"]) == (1, 1, 1, 10)
