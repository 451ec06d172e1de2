"""The report's views of what scores are made of: the same numbers on the page, in summary.json and in the CSVs."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from finr1.evaluation.report import charts, views
from finr1.evaluation.report.page import percent
from tests.helpers import judged_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Path]:
    """Summary, page and folder of the report on a judged run."""
    summary, page = judged_run.make(tmp_path_factory.mktemp("run"))
    return summary, page.read_text(encoding="utf-8"), page.parent


def text_of(html: str) -> str:
    """The words of the page without its scripts."""
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style).*?</\1>", " ", html, flags=re.S)).split())


def test_the_page_shows_the_numbers_of_the_summary(made: tuple[dict[str, Any], str, Path]) -> None:
    summary, html, _ = made
    text = text_of(html)
    for heading in ("By category", "Accuracy by length", "Judge agreement", "Cost and tokens"):
        assert text.count(heading) == 2, heading  # once a benchmark
    for bench in summary["benchmarks"].values():
        assert bench["headline"] == "accuracy_judged"
        for modes in bench["scores"].values():
            for cell in modes.values():
                judge = cell["judge"]
                for value in (cell["accuracy_judged"], judge["repeats"]["unanimous"], judge["rules"]["agreement"]):
                    assert value is not None and percent(value) in text
                assert f"{cell['cost']['tokens']:,}" in text and charts.number(cell["cost"]["money"]) in text
                for group in cell["categories"]:
                    assert f"{group['category']} " in text and percent(group["value"]) in text
    asked = summary["judge"]
    assert asked["failed"] > 0 and f"Judge model: {asked['asked']:,} calls, {asked['failed']:,} failed" in text
    assert html.count('<svg class="line"') == 2 * 2 * 2  # two benchmarks, models and modes
    assert "accuracy (judged)" in text and "accuracy (judged), greedy" in text


def test_the_csvs_have_the_numbers_of_the_summary(made: tuple[dict[str, Any], str, Path]) -> None:
    summary, _, folder = made
    scores = list(csv.DictReader((folder / "scores.csv").open(encoding="utf-8")))
    broken = list(csv.DictReader((folder / "breakdown.csv").open(encoding="utf-8")))
    assert len(scores) == 2 * 2 * 2
    for line in scores:
        cell = summary["benchmarks"][line["benchmark"]]["scores"][line["model"]][line["mode"]]
        assert float(line["accuracy_judged"]) == cell["accuracy_judged"] and line["headline"] == "accuracy_judged"
        assert float(line["repeats_unanimous"]) == cell["judge"]["repeats"]["unanimous"]
        assert int(line["tokens"]) == cell["cost"]["tokens"] and float(line["money"]) == cell["cost"]["money"]
        mine = [r for r in broken if all(r[key] == line[key] for key in ("benchmark", "model", "mode"))]
        by_view = {view: [r for r in mine if r["view"] == view] for view in ("category", "length", "judge")}
        assert [float(r["value"]) for r in by_view["category"]] == [c["value"] for c in cell["categories"]]
        assert [int(r["n"]) for r in by_view["length"]] == [b["n"] for b in cell["length"]["bins"]]
        assert float(by_view["judge"][1]["value"]) == cell["judge"]["rules"]["agreement"]


def test_samples_of_a_question_and_every_paired_test_are_there(made: tuple[dict[str, Any], str, Path]) -> None:
    summary, html, folder = made
    text = text_of(html)
    broken = list(csv.DictReader((folder / "breakdown.csv").open(encoding="utf-8")))
    lines = list(csv.DictReader((folder / "paired.csv").open(encoding="utf-8")))
    for name, bench in summary["benchmarks"].items():
        for model, modes in bench["scores"].items():
            for figure, cell in modes["sampled"]["at_k"].items():  # mean@2, pass@1, pass@2, maj@2
                shown = f"{percent(cell['value'])} {percent(cell['low'])} to {percent(cell['high'])}"
                assert figure in text and shown in text
                (line,) = (r for r in broken if (r["benchmark"], r["model"], r["key"]) == (name, model, figure))
                assert (line["view"], float(line["value"]), float(line["low"])) == ("at_k", cell["value"], cell["low"])
        ((pair, modes),) = bench["paired"].items()
        for mode, test in modes.items():
            mine = [r for r in lines if (r["benchmark"], r["mode"]) == (name, mode)]
            assert {f"{r['model']}_vs_{r['against']}" for r in mine} == {pair}
            assert {r["figure"] for r in mine} == {"accuracy_judged", "accuracy_strict", "accuracy_scaled", "format"}
            leads = [r for r in mine if r["figure"] == "accuracy_judged"]
            assert [r["test"] for r in leads] == (["mcnemar", "bootstrap"] if mode == "greedy" else ["bootstrap"])
            (first,) = (r for r in leads if r["leads"] == "True")
            assert (float(first["p"]), float(first["p_holm"])) == (test["p"], test["p_holm"])
    assert text.count("p (Holm)") == text.count("p (McNemar) p (resampling)") == 2  # once a benchmark


def test_the_p_of_each_test_of_a_pair() -> None:
    exact, drawn = {"p": 0.01, "method": "exact McNemar test"}, {"p": 0.04, "method": "sign-flip"}
    clustered = {**drawn, "p_holm": 0.08, "mcnemar": exact, "bootstrap": drawn}
    assert views.tests(clustered) == {"p": 0.04, "holm": 0.08, "mcnemar": 0.01, "drawn": 0.04}
    assert views.tests(drawn) == {"p": 0.04, "holm": None, "mcnemar": None, "drawn": 0.04}
    assert views.tests(exact) == {"p": 0.01, "holm": None, "mcnemar": None, "drawn": None}  # of an older version


def test_own_figures_are_those_that_no_other_table_shows() -> None:
    category = {"category": "bonds", "n": 3, "n_decided": 3, "value": 0.5, "low": 0.1, "high": 0.9}
    cell = {
        "figures": {"accuracy/bonds": 0.5, "macro_f1": 0.4},
        "figure_intervals": {"macro_f1": {"low": 0.3, "high": 0.5}},
    }
    bench = {"scores": {"a": {"greedy": {**cell, "categories": [category]}}, "b": {"greedy": {"figures": {"x": 1.0}}}}}
    own = views.own_figures(bench)
    assert views.own_figures({"scores": {"a": {"sampled": cell}}}).mode == "sampled" and own.mode == "greedy"
    assert own.names == ["macro_f1", "x"] and own.rows[0][1]["macro_f1"] == {"value": 0.4, "low": 0.3, "high": 0.5}
    assert own.rows[1] == ("b", {"macro_f1": {"value": None}, "x": {"value": 1.0}})
    line = next(r for r in csv.DictReader(io.StringIO(views.to_csv({"one": bench}))) if r["key"] == "macro_f1")
    assert (line["view"], line["value"], line["low"]) == ("figure", "0.4", "0.3")


def test_samples_carry_every_judges_verdict_and_whether_they_differ(made: tuple[dict[str, Any], str, Path]) -> None:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', made[1], re.S)
    assert found
    samples = json.loads(found[1])["samples"]
    for sample in samples:
        names = [name for name, _, _ in sample["checks"]]
        assert names[:3] == ["well-formed", "rules (strict)", "rules (scale-tolerant)"]
        assert names[-1].startswith("final verdict (by ")
        said = {value for name, value, _ in sample["checks"][1:-1] if value is not None}
        assert sample["disagree"] == (len(said) > 1)
    assert {"right", "wrong", "undecided"} == {sample["outcome"] for sample in samples}
    assert 0 < sum(sample["disagree"] for sample in samples) < len(samples)


def test_a_run_scored_before_there_were_views_is_still_shown() -> None:
    old = {"scores": {"base": {"greedy": {"accuracy_strict": 0.5}}}}
    assert views.by_category(old) == ([], []) and views.first_with_length(old) == "" and not views.has(old, "cost")
    assert list(csv.DictReader(io.StringIO(views.to_csv({"old": old})))) == []


def test_a_category_that_one_model_lacks_is_no_cell() -> None:
    def row(name: str, n: int) -> dict[str, Any]:
        return {"category": name, "n": n}

    bench = {"scores": {"a": {"greedy": {"categories": [row("x", 3)]}}, "b": {"greedy": {"categories": [row("y", 4)]}}}}
    table = views.by_category(bench)
    assert table.columns == [("a", "greedy"), ("b", "greedy")]
    assert [(name, n, [c and c["n"] for c in line]) for name, n, line in table.rows] == [
        ("x", 3, [3, None]),
        ("y", 4, [None, 4]),
    ]


def test_a_chart_of_groups_has_a_dot_and_an_interval_each_inside_its_frame() -> None:
    groups = [
        {"tokens": [1, 5], "mean_tokens": 3.0, "n_decided": 4, "value": 0.0, "low": 0.0, "high": 0.5},
        {"tokens": [6, 9], "mean_tokens": 8.0, "n_decided": 4, "value": 1.0, "low": 0.5, "high": 1.0},
        {"tokens": [10, 12], "mean_tokens": 11.0, "n_decided": 0, "value": None, "low": None, "high": None},
    ]
    svg = charts.bins("m", groups)
    assert svg.count('class="dot"') == svg.count('class="range"') == 2
    dots = [(float(x), float(y)) for x, y in re.findall(r'class="dot" cx="([\d.]+)" cy="([\d.]+)"', svg)]
    assert dots == [(charts.LEFT + 10, charts.HEIGHT - charts.BOTTOM), (charts.WIDTH - charts.RIGHT - 10, charts.TOP)]
    assert "no decided completions" in charts.bins("m", groups[2:])
