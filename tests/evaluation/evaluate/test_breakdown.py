"""Categories, lengths and cost of scored rows, by hand."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from finr1.evaluation.evaluate.breakdown import BINS, by_category, by_length, cost
from finr1.evaluation.scores import intervals as stats
from finr1.evaluation.scores.figures import compare, figures
from tests.helpers.scored import scored


def test_categories_have_the_share_of_their_decided_rows() -> None:
    rows = [scored("a", 1.0), scored("b", 0.0), scored("c", None), scored("d", 1.0), scored("e", None)]
    found = by_category(rows, {"a": "y", "b": "y", "c": "y", "d": "x", "e": "z"}, 0.95)
    assert [cell["category"] for cell in found] == ["x", "y", "z"]
    x, y, z = found
    assert (y["n"], y["n_decided"], y["value"], y["low"]) == (3, 2, 0.5, stats.wilson(1, 2).low)
    assert (x["n"], x["value"], z["n"], z["n_decided"], z["value"], z["low"]) == (1, 1, 1, 0, None, None)


def test_categories_together_are_the_whole() -> None:
    rng = random.Random(3)
    rows = [scored(str(i), rng.choice([0.0, 1.0, None])) for i in range(200)]
    found = by_category(rows, {str(i): "ab"[i % 2] for i in range(200)}, 0.95)
    right = sum(cell["value"] * cell["n_decided"] for cell in found)
    assert right / sum(cell["n_decided"] for cell in found) == pytest.approx(
        figures(rows, 0.95, 10, 0)["accuracy_strict"]
    )


def test_lengths_are_cut_at_quantiles_and_equal_ones_stay_together() -> None:
    rows = [scored(str(i), float(i >= 50), tokens=i + 1) for i in range(100)]
    random.Random(0).shuffle(rows)
    failed = scored("x", None, tokens=0, finish_reason="error")
    found = by_length([*rows, failed], 0.95)
    assert [b["tokens"] for b in found["bins"]] == [[1, 20], [21, 40], [41, 60], [61, 80], [81, 100]]
    assert [b["value"] for b in found["bins"]] == [0, 0, 0.5, 1, 1] and found["bins"][0]["mean_tokens"] == 10.5
    # right are 51..100, wrong 1..50
    assert (found["mean_tokens_right"], found["mean_tokens_wrong"]) == (75.5, 25.5)
    same = by_length([scored(str(i), 1.0, tokens=7) for i in range(9)], 0.95)
    assert [(b["tokens"], b["n"]) for b in same["bins"]] == [([7, 7], 9)] and same["mean_tokens_wrong"] is None
    assert by_length([failed], 0.95)["bins"] == []


def test_every_completion_is_in_one_group_by_length() -> None:
    rng = random.Random(1)
    for n in range(1, 60):
        rows = [scored(str(i), 1.0, tokens=rng.randrange(8)) for i in range(n)]
        bins = by_length(rows, 0.95)["bins"]
        assert sum(b["n"] for b in bins) == n and 1 <= len(bins) <= BINS
        edges = [edge for b in bins for edge in b["tokens"]]
        assert edges == sorted(edges) and all(a["tokens"][1] < b["tokens"][0] for a, b in pairwise(bins))


def test_cost_counts_what_was_paid_and_says_nothing_where_nothing_was() -> None:
    rows = [scored("a", 1.0, tokens=30, paid=[100, 40]), scored("b", 0.0, tokens=20, paid=[50, 20]), scored("c", 1.0)]
    assert cost(rows, 2.0, 10.0) == {
        "tokens": 60,
        "tokens_per_right_answer": 30,
        "paid_prompt_tokens": 150,
        "paid_completion_tokens": 60,
        "money": pytest.approx((150 * 2 + 60 * 10) / 1e6),
    }
    local = cost([scored("a", 0.0)])
    assert (local["paid_prompt_tokens"], local["money"], local["tokens_per_right_answer"]) == (None, None, None)
    assert cost(rows)["money"] is None, "tokens without a price are no money"


def test_the_judges_verdict_leads_where_there_is_one() -> None:
    rows = [
        scored("a", None, tokens=30, judged=1.0, judged_by="llm"),
        scored("b", 0.0, tokens=20, judged=1.0, judged_by="llm"),
    ]
    found = figures(rows, 0.95, 10, 0)
    assert (found["accuracy_judged"], found["accuracy_strict"], found["undecided"]) == (1, 0, 0)
    assert found["low"] == stats.wilson(2, 2).low
    assert by_category(rows, {"a": "x", "b": "x"}, 0.95)[0]["value"] == 1
    assert cost(rows)["tokens_per_right_answer"] == 25
    worse = [scored(key, 1.0, judged=0.0, judged_by="llm") for key in "ab"]
    test = compare(rows, worse, False, 0.95, 50, 0)
    assert test and (test["diff"], test["worsened"], test["accuracy_strict"]["diff"]) == (
        -1,
        2,
        1,
    )
