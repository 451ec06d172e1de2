"""The scores as tables: one row a model, one column a benchmark, as data and as CSV, Markdown and LaTeX.

Published scores of Fin-R1's table stand beside ours where a benchmark of its five was run; they are marked, and have
neither an interval nor a claim that they were measured alike.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from finr1.reporting import published

COLUMNS = (
    *("benchmark", "model", "mode", "accuracy_strict", "low", "high", "accuracy_scaled", "format", "undecided"),
    *("truncated", "errors", "mean_tokens", "n", "n_questions", "method", "training_rows", "source"),
)
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\^{}"}


class Entry(NamedTuple):
    """One cell: a share with its interval; without one it is published."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def text(self, dash: str = "–") -> str:
        """In percent: `76.0 [73.2, 78.6]`."""
        if self.value is None:
            return dash
        shown = f"{100 * self.value:.1f}"
        if self.low is None or self.high is None:
            return shown
        return f"{shown} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


class Leaders(NamedTuple):
    """Strict accuracy of one mode: rows by model, ours first, and their mean where a model has all benchmarks."""

    mode: str
    benchmarks: Sequence[str]
    ours: Mapping[str, Sequence[Entry]]
    published: Mapping[str, Sequence[Entry]]

    def rows(self) -> list[tuple[str, list[Entry]]]:
        """Name and cells, the mean last where there are several benchmarks; published ones bear their mark."""
        named = [*self.ours.items(), *((f"{name} {published.MARK}", row) for name, row in self.published.items())]
        return [(name, [*row, *([_mean(row)] if len(row) > 1 else [])]) for name, row in named]

    def head(self) -> list[str]:
        """The names of the columns after the model's."""
        return [*self.benchmarks, *(["mean"] if len(self.benchmarks) > 1 else [])]


def _mean(row: Sequence[Entry]) -> Entry:
    values = [entry.value for entry in row if entry.value is not None]
    return Entry(sum(values) / len(values)) if len(values) == len(row) else Entry(None)


def leaders(benchmarks: Mapping[str, Any]) -> list[Leaders]:
    """One table a mode, from the summary's `benchmarks`."""
    models = list(dict.fromkeys(model for table in benchmarks.values() for model in table["scores"]))
    modes = dict.fromkeys(mode for table in benchmarks.values() for cells in table["scores"].values() for mode in cells)
    known = [name for name in benchmarks if name in published.BENCHMARKS]
    theirs = {
        model: [Entry(scores.get(name)) for name in benchmarks] for model, scores in published.SCORES.items() if known
    }
    out = []
    for mode in modes:
        ours = {}
        for model in models:
            cells = [table["scores"].get(model, {}).get(mode, {}) for table in benchmarks.values()]
            ours[model] = [Entry(c.get("accuracy_strict"), c.get("low"), c.get("high")) for c in cells]
        out.append(Leaders(mode, list(benchmarks), ours, theirs))
    return out


def long_rows(benchmarks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every benchmark, model and mode with all figures, then the published ones; what is not there is None."""
    rows = []
    for name, table in benchmarks.items():
        for model, modes in table["scores"].items():
            leak = (table.get("training_rows") or {}).get(model) or {}
            for mode, cells in modes.items():
                more = {"benchmark": name, "model": model, "mode": mode, "source": "ours"}
                rows.append({**{c: cells.get(c) for c in COLUMNS}, **more, "training_rows": leak.get("state")})
        for model, scores in published.SCORES.items():
            if name in scores:
                row = {"benchmark": name, "model": model, "accuracy_strict": scores[name], "method": "judge"}
                rows.append({**dict.fromkeys(COLUMNS), **row, "source": f"published: {published.SOURCE}"})
    return rows


def to_csv(benchmarks: Mapping[str, Any]) -> str:
    """`long_rows` with a header; an empty field is what is not known."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(long_rows(benchmarks))
    return out.getvalue()


def to_markdown(benchmarks: Mapping[str, Any]) -> str:
    """The leader tables, one a mode."""
    parts = []
    for table in leaders(benchmarks):
        head = ["model", *table.head()]
        lines = [head, ["---", *["---:"] * len(table.head())]]
        lines += [[name.replace("|", "\\|"), *(entry.text() for entry in row)] for name, row in table.rows()]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"Strict accuracy, {table.mode}, percent with its interval\n\n{text}\n{_footnote(table)}")
    return "\n".join(parts)


def _footnote(table: Leaders) -> str:
    return f"\n{published.MARK} published, not measured here: {published.SOURCE}.\n" if table.published else ""


def to_latex(benchmarks: Mapping[str, Any]) -> str:
    """The same as `tabular`s (booktabs)."""
    parts = []
    for table in leaders(benchmarks):
        lines = [
            rf"% strict accuracy, {table.mode}, percent with its interval",
            rf"\begin{{tabular}}{{l{'r' * len(table.head())}}}",
            r"\toprule",
            " & ".join(map(_tex, ["model", *table.head()])) + r" \\",
            r"\midrule",
            *(" & ".join([_tex(name), *(_tex(e.text("--")) for e in row)]) + r" \\" for name, row in table.rows()),
            r"\bottomrule",
            r"\end{tabular}",
        ]
        if table.published:
            lines.append(f"% {published.MARK} published, not measured here: {published.SOURCE}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _tex(text: str) -> str:
    text = "".join(_LATEX.get(character, character) for character in text)
    return text.replace(published.MARK, r"$^\dagger$")
