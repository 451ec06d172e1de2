"""What the scores are made of (`finr1.breakdown`, `finr1.judging`), shaped for the page and for `breakdown.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

COLUMNS = ("benchmark", "model", "mode", "view", "key", "n", "n_decided", "value", "low", "high")


class ByCategory(NamedTuple):
    """Categories as rows: name, completions of the first column, and a cell (or None) for each model and mode."""

    columns: list[tuple[str, str]]
    rows: list[tuple[str, int, list[Mapping[str, Any] | None]]]


def cells(bench: Mapping[str, Any], part: str) -> Iterator[tuple[str, str, Any]]:
    """Model, mode and this part of its figures, where it is there: runs scored by an older version lack some."""
    for model, modes in bench["scores"].items():
        for mode, row in modes.items():
            if row.get(part):
                yield model, mode, row[part]


def has(bench: Mapping[str, Any], part: str) -> bool:
    """Whether any model has this part."""
    return any(True for _ in cells(bench, part))


def by_category(bench: Mapping[str, Any]) -> ByCategory:
    """The categories of a benchmark; no row where it has none."""
    found = {(model, mode): {row["category"]: row for row in rows} for model, mode, rows in cells(bench, "categories")}
    names = sorted({name for column in found.values() for name in column})
    rows = []
    for name in names:
        line = [column.get(name) for column in found.values()]
        rows.append((name, next(cell["n"] for cell in line if cell), line))
    return ByCategory(list(found), rows)


def first_with_length(bench: Mapping[str, Any]) -> str:
    """The first model of which more than one group by length is known; empty where there is none."""
    return next((model for model, _, length in cells(bench, "length") if len(length["bins"]) > 1), "")


def to_csv(benchmarks: Mapping[str, Any]) -> str:
    """Categories (`key`: the category), lengths (shortest-longest tokens) and agreements of judges, a line each.

    `value` is the share right, and for judges the share on which they agree.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for name, bench in benchmarks.items():
        for view, model, mode, key, row in _lines(bench):
            writer.writerow({**row, "benchmark": name, "model": model, "mode": mode, "view": view, "key": key})
    return out.getvalue()


def _lines(bench: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, Mapping[str, Any]]]:
    for model, mode, rows in cells(bench, "categories"):
        for row in rows:
            yield "category", model, mode, row["category"], row
    for model, mode, length in cells(bench, "length"):
        for row in length["bins"]:
            yield "length", model, mode, "-".join(map(str, row["tokens"])), row
    for model, mode, judge in cells(bench, "judge"):
        yield "judge", model, mode, "repeats", {**judge["repeats"], "value": judge["repeats"]["unanimous"]}
        yield "judge", model, mode, "rules", {**judge["rules"], "value": judge["rules"]["agreement"]}
