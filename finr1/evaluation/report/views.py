"""Breakdowns of the scores, shaped for the page and for `breakdown.csv`."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from finr1.evaluation.report.tables import csv_of

COLUMNS = ("benchmark", "model", "mode", "view", "key", "n", "n_decided", "value", "low", "high")
PAIRED = (
    *("benchmark", "model", "against", "mode", "figure", "test", "leads"),
    *("n", "diff", "low", "high", "p", "p_holm", "improved", "worsened", "method"),
)
TESTS = ("mcnemar", "bootstrap")  # both tests, with one completion per question


class ByCategory(NamedTuple):
    """Accuracy by category. A row: name, completions of the first column, one cell (or None) per model and mode."""

    columns: list[tuple[str, str]]
    rows: list[tuple[str, int, list[Mapping[str, Any] | None]]]


class OwnFigures(NamedTuple):
    """Benchmark-specific figures: their mode and names, and per model the values with intervals."""

    mode: str
    names: list[str]
    rows: list[tuple[str, dict[str, Mapping[str, Any]]]]


def cells(bench: Mapping[str, Any], part: str) -> Iterator[tuple[str, str, Any]]:
    """Yield model, mode and this part of its figures, where present."""
    for model, modes in bench["scores"].items():
        for mode, row in modes.items():
            if row.get(part):
                yield model, mode, row[part]


def has(bench: Mapping[str, Any], part: str) -> bool:
    return any(True for _ in cells(bench, part))


def by_category(bench: Mapping[str, Any]) -> ByCategory:
    """Return the categories of a benchmark; no rows if it has none."""
    columns = {
        (model, mode): {row["category"]: row for row in rows} for model, mode, rows in cells(bench, "categories")
    }
    names = sorted({name for column in columns.values() for name in column})
    rows = []
    for name in names:
        line = [column.get(name) for column in columns.values()]
        rows.append((name, next(cell["n"] for cell in line if cell), line))
    return ByCategory(list(columns), rows)


def own_figures(bench: Mapping[str, Any]) -> OwnFigures:
    """Return the benchmark-specific figures of greedy (else sampled) completions, without those shown by category."""
    shown = {f"accuracy/{name}" for name, _, _ in by_category(bench).rows}
    mode_of: dict[str, str] = {}
    for model, mode, _ in cells(bench, "figures"):
        mode_of.setdefault(model, mode)
    rows = []
    for model, mode in mode_of.items():
        cell = bench["scores"][model][mode]
        intervals = cell.get("figure_intervals") or {}
        figures = {
            name: {"value": value, **intervals.get(name, {})}
            for name, value in cell["figures"].items()
            if name not in shown
        }
        if figures:
            rows.append((model, figures))
    names = list(dict.fromkeys(name for _, figures in rows for name in figures))
    return OwnFigures(
        mode=next(iter(mode_of.values()), ""),
        names=names,
        rows=[(model, {name: figures.get(name, {"value": None}) for name in names}) for model, figures in rows],
    )


def at_k(bench: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, Mapping[str, Any]]]]:
    """Return the names of the figures of k samples (`figures.at_k`) and each model's values."""
    rows = [(model, row) for model, _, row in cells(bench, "at_k")]
    kinds = ("mean@", "pass@", "maj@")
    names = {name for _, row in rows for name in row}
    return sorted(names, key=lambda name: (kinds.index(name.split("@")[0] + "@"), int(name.split("@")[1]))), rows


def confidence(bench: Mapping[str, Any]) -> float:
    """Level of the intervals, 0.95 for 95%."""
    return next((float(level) for _, _, level in cells(bench, "confidence")), 0.95)


def tests(test: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the p-values of one pair, mode and figure: leading, Holm-corrected, exact McNemar, resampling."""
    mcnemar, drawn = (test.get(name) for name in TESTS)
    resampled = drawn["p"] if drawn else test["p"] if mcnemar is None and "McNemar" not in test["method"] else None
    return {"p": test["p"], "holm": test.get("p_holm"), "mcnemar": mcnemar and mcnemar["p"], "drawn": resampled}


def first_with_length(bench: Mapping[str, Any]) -> str:
    """Return the first model with more than one length bin; empty if there is none."""
    return next((model for model, _, length in cells(bench, "length") if len(length["bins"]) > 1), "")


def to_csv(benchmarks: Mapping[str, Any]) -> str:
    """Return `breakdown.csv`: one line per category, figure of k samples, benchmark-specific figure, length bin and
    judge agreement.

    `value` is the accuracy, or the share of agreement for judges; `key` the category, figure or token range.
    """
    rows = (
        {**row, "benchmark": name, "model": model, "mode": mode, "view": view, "key": key}
        for name, bench in benchmarks.items()
        for view, model, mode, key, row in _lines(bench)
    )
    return csv_of(COLUMNS, rows)


def paired_csv(benchmarks: Mapping[str, Any]) -> str:
    """Return `paired.csv`: every paired test by mode, figure and test; `leads` marks the one on the page."""
    rows = []
    for name, bench in benchmarks.items():
        for pair, modes in bench["paired"].items():
            model, against = pair.split("_vs_", 1)
            for mode, tests in modes.items():
                for figure, test, leads, row in _tests(tests, bench["headline"]):
                    place = {"benchmark": name, "model": model, "against": against, "mode": mode}
                    rows.append({**row, **place, "figure": figure, "test": test, "leads": leads})
    return csv_of(PAIRED, rows)


def _tests(tests: Mapping[str, Any] | None, leading: str) -> Iterator[tuple[str, str, bool, Mapping[str, Any]]]:
    """Yield figure, test, whether it leads, and its numbers."""
    if tests is None:
        return
    others = {key: row for key, row in tests.items() if key not in TESTS and isinstance(row, Mapping) and "diff" in row}
    for figure, row in {leading: tests, **others}.items():
        several = [name for name in TESTS if row.get(name)]
        for name in several:
            leads = row[name]["method"] == row["method"]
            yield figure, name, leads, {**row[name], **({"p_holm": row.get("p_holm")} if leads else {})}
        if not several:
            yield figure, "mcnemar" if "McNemar" in row["method"] else "bootstrap", True, row


def _lines(bench: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, Mapping[str, Any]]]:
    for model, mode, rows in cells(bench, "categories"):
        for row in rows:
            yield "category", model, mode, row["category"], row
    for model, mode, figures in cells(bench, "at_k"):
        for name, row in figures.items():
            yield "at_k", model, mode, name, {**row, "n": row["n_questions"], "n_decided": row["n_questions"]}
    for model, mode, figures in cells(bench, "figures"):
        intervals = bench["scores"][model][mode].get("figure_intervals") or {}
        for name, value in figures.items():
            yield "figure", model, mode, name, {"value": value, **intervals.get(name, {})}
    for model, mode, length in cells(bench, "length"):
        for row in length["bins"]:
            yield "length", model, mode, "-".join(map(str, row["tokens"])), row
    for model, mode, judge in cells(bench, "judge"):
        yield "judge", model, mode, "repeats", {**judge["repeats"], "value": judge["repeats"]["unanimous"]}
        yield "judge", model, mode, "rules", {**judge["rules"], "value": judge["rules"]["agreement"]}
