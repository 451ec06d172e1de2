"""Scores as CSV, Markdown and LaTeX, with the published rows of Fin-R1 beside ours where its benchmarks were run."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from finr1.evaluation.report import published, tables


def bench(**models: float | None) -> dict[str, Any]:
    """A benchmark's entry in the summary, greedy only."""
    scores = {
        name: {
            "greedy": {
                "accuracy_strict": v,
                "low": v and v - 0.1,
                "high": v and v + 0.05,
                "format": v and 0.9,
                "n": 40,
                "errors": 0,
            }
        }
        for name, v in models.items()
    }
    known = {"sft": {"state": "checked", "note": "none"}}
    return {"questions": 40, "headline": "accuracy_strict", "scores": scores, "training_rows": known}


FIVE = {name: bench(base=0.2, sft=0.5) for name in published.BENCHMARKS}
AVERAGES = {  # Fin-R1, arXiv 2503.16252 v5: what stands there beside the five columns
    "Fin-R1": 75.2,
    "Fin-R1, SFT only": 71.9,
    "Fin-R1-Zero": 67.8,
    "Qwen2.5-7B-Instruct": 65.6,
    "DeepSeek-R1": 78.2,
}


def test_published_rows_are_those_of_the_paper() -> None:
    for model, scores in published.SCORES.items():
        assert 100 * sum(scores.values()) / 5 == pytest.approx(AVERAGES[model], abs=0.11)  # of rounded columns


def test_leaders_put_ours_first_and_average_only_whole_rows() -> None:
    (table,) = tables.leaders({**FIVE, "worked": bench(base=0.1, sft=None)})
    rows = {name: [entry.text() for entry in row] for name, row in table.rows()}
    assert list(rows)[:3] == ["base", "sft", "Fin-R1 †"] and table.head()[-3:] == ["worked", "mean", "well-formed"]
    assert rows["base"][0] == "20.0 [10.0, 25.0]" and rows["base"][-2:] == ["18.3 [14.3, 20.4]", "90.0"]
    # (5 · 0.2 + 0.1) / 6; √(6 · 0.1²) / 6 = 0.041 below, √(6 · 0.05²) / 6 = 0.020 above
    assert rows["sft"][-3:] == ["–", "–", "–"]
    assert rows["Fin-R1 †"] == ["76.0", "85.0", "81.0", "71.0", "62.9", "–", "–", "–"]


def test_a_score_on_documents_that_were_trained_on_is_marked() -> None:
    seen = {**FIVE["tfns"], "training_rows": {"sft": {"state": "shares documents", "note": "2 of 40"}}}
    (table,) = tables.leaders({"finqa": FIVE["finqa"], "tfns": seen})
    rows = {name: [entry.text() for entry in row] for name, row in table.rows()}
    assert rows["sft"][:2] == ["50.0 [40.0, 55.0]", "50.0 ‡ [40.0, 55.0]"] and "‡" not in "".join(rows["base"])
    assert "‡ the model was trained on documents of this benchmark." in tables.to_markdown({"tfns": seen})
    latex = tables.to_latex({"tfns": seen})
    assert r"50.0 $^\ddagger$ [40.0, 55.0]" in latex
    assert "‡" not in tables.to_markdown(FIVE)


def test_without_one_of_the_five_nothing_is_published() -> None:
    only = {"worked": bench(base=0.1)}
    (table,) = tables.leaders(only)
    assert (
        not table.published
        and [name for name, _ in table.rows()] == ["base"]
        and table.head() == ["worked", "well-formed"]
    )
    text = "".join(f(only) for f in (tables.to_markdown, tables.to_latex, tables.to_csv))
    assert "published" not in text and "Fin-R1" not in text


def test_csv_has_every_figure_and_says_where_it_is_from() -> None:
    rows = list(csv.DictReader(io.StringIO(tables.to_csv({"finqa": FIVE["finqa"]}))))
    assert [row["model"] for row in rows] == ["base", "sft", *published.SCORES]
    assert (rows[1]["accuracy_strict"], rows[1]["low"], rows[1]["n"], rows[1]["source"]) == ("0.5", "0.4", "40", "ours")
    assert (rows[1]["training_rows"], rows[0]["training_rows"]) == ("checked", "")
    theirs = rows[2]
    assert (theirs["accuracy_strict"], theirs["low"], theirs["mode"]) == ("0.76", "", "")
    assert theirs["source"].startswith("published: arXiv 2503.16252")


def test_markdown_and_latex_are_whole_tables() -> None:
    lines = tables.to_markdown(FIVE).splitlines()
    grid = [line for line in lines if line.startswith("|")]
    assert len(grid) == 2 + 2 + 5 and {line.count("|") for line in grid} == {9}
    assert any(line.startswith("† published scores, not measured here: arXiv") for line in lines)
    latex = tables.to_latex({"a_b": bench(**{"x&y": 0.5}), "finqa": bench(**{"x&y": 0.25})})
    assert r"\begin{tabular}{lrrrr}" in latex and r"model & a\_b & finqa & mean & well-formed \\" in latex
    assert r"x\&y & 50.0 [40.0, 55.0] & 25.0 [15.0, 30.0] & 37.5 [30.4, 41.0] & 90.0 \\" in latex
    assert r"Fin-R1 $^\dagger$ & -- & 76.0 & -- & -- \\" in latex
