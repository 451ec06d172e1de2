"""Score tables, one row per model and one column per benchmark, as data, CSV, Markdown and LaTeX.

Where one of Fin-R1's five benchmarks was run, its published scores are shown next to ours: marked, without intervals,
and not claimed to be measured in the same way.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from finr1.evaluation.report import published

COLUMNS = (
    *("benchmark", "model", "mode", "accuracy_strict", "low", "high", "format", "accuracy_scaled", "undecided"),
    *("abstained", "truncated", "errors", "mean_tokens", "n", "n_questions", "method", "training_rows", "source"),
    *("headline", "accuracy_judged", "judge_asked", "judge_undecided", "repeats_unanimous", "kappa_with_rules"),
    *("tokens", "tokens_per_right_answer", "paid_prompt_tokens", "paid_completion_tokens", "money"),
)
LEAKED = "‡"
WORDS = {"accuracy_strict": "Accuracy (strict)", "accuracy_judged": "Accuracy (judged)"}
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\^{}"}


class Entry(NamedTuple):
    """One cell: a share with its interval (published scores have none). `leaked`: the model was trained on documents of
    this benchmark."""

    value: float | None
    low: float | None = None
    high: float | None = None
    leaked: bool = False

    def text(self, dash: str = "–") -> str:
        """Format in percent: `76.0 [73.2, 78.6]`, with a mark after the value if leaked."""
        if self.value is None:
            return dash
        shown = f"{100 * self.value:.1f}" + (f" {LEAKED}" if self.leaked else "")
        if self.low is None or self.high is None:
            return shown
        return f"{shown} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


class Leaders(NamedTuple):
    """Accuracy in one mode: one row per model, ours first, with the mean over benchmarks and the well-formed share."""

    mode: str
    what: str  # label of the accuracy
    benchmarks: Sequence[str]
    ours: Mapping[str, Sequence[Entry]]
    well_formed: Mapping[str, Entry]  # of our models, mean over benchmarks
    published: Mapping[str, Sequence[Entry]]

    def rows(self) -> list[tuple[str, list[Entry]]]:
        """Return name and cells of each row, mean and well-formed share last; published rows are marked."""
        named = [*self.ours.items(), *((f"{name} {published.MARK}", row) for name, row in self.published.items())]
        return [
            (name, [*row, *([_mean(row)] if len(row) > 1 else []), self.well_formed.get(name, Entry(None))])
            for name, row in named
        ]

    def notes(self) -> list[str]:
        """Return the footnotes of the marks in the table."""
        notes = [f"{published.MARK} published scores, not measured here: {published.SOURCE}"] if self.published else []
        if len(self.benchmarks) > 1:
            notes.append("The CI of the mean treats the benchmarks as independent")
        if any(entry.leaked for row in self.ours.values() for entry in row):
            notes.append(f"{LEAKED} the model was trained on documents of this benchmark")
        return notes

    def head(self) -> list[str]:
        """Return the column names after the model."""
        return [*self.benchmarks, *(["mean"] if len(self.benchmarks) > 1 else []), "well-formed"]


def _entry(table: Mapping[str, Any], model: str, mode: str) -> Entry:
    cell = table["scores"].get(model, {}).get(mode, {})
    known = (table.get("training_rows") or {}).get(model) or {}
    leaked = known.get("state") == "shares documents"
    return Entry(cell.get(table["headline"]), cell.get("low"), cell.get("high"), leaked)


def _mean(row: Sequence[Entry]) -> Entry:
    """Return the mean over benchmarks if the model has all; its interval treats the benchmarks as independent.

    mean - √Σ(p_i - low_i)² / k to mean + √Σ(high_i - p_i)² / k (MOVER: Zou and Donner, Stat. Med. 27, 2008).
    """
    whole = [(e.value, e.low, e.high) for e in row if e.value is not None]
    if len(whole) < len(row):
        return Entry(None)
    k, mean = len(whole), sum(value for value, _, _ in whole) / len(whole)
    sides = [(value - low, high - value) for value, low, high in whole if low is not None and high is not None]
    if len(sides) < k:
        return Entry(mean)
    below, above = (math.hypot(*side) / k for side in zip(*sides, strict=True))
    return Entry(mean, mean - below, mean + above)


def leaders(benchmarks: Mapping[str, Any]) -> list[Leaders]:
    """Return one table per mode, from the summary's `benchmarks`."""
    models = list(dict.fromkeys(model for table in benchmarks.values() for model in table["scores"]))
    modes = dict.fromkeys(mode for table in benchmarks.values() for cells in table["scores"].values() for mode in cells)
    known = [name for name in benchmarks if name in published.BENCHMARKS]
    theirs = {
        model: [Entry(scores.get(name)) for name in benchmarks] for model, scores in published.SCORES.items() if known
    }
    out = []
    for mode in modes:
        ours, well_formed = {}, {}
        for model in models:
            ours[model] = [_entry(table, model, mode) for table in benchmarks.values()]
            cells = [table["scores"].get(model, {}).get(mode, {}) for table in benchmarks.values()]
            well_formed[model] = _mean([Entry(cell.get("format")) for cell in cells])
        what = WORDS[next(iter(benchmarks.values()))["headline"]]
        out.append(Leaders(mode, what, list(benchmarks), ours, well_formed, theirs))
    return out


def long_rows(benchmarks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per benchmark, model and mode with all figures, then published ones; missing: None."""
    rows = []
    for name, table in benchmarks.items():
        for model, modes in table["scores"].items():
            leak = (table.get("training_rows") or {}).get(model) or {}
            for mode, cells in modes.items():
                more = {"benchmark": name, "model": model, "mode": mode, "source": "ours"}
                more |= {"headline": table["headline"], "training_rows": leak.get("state")}
                more |= _judged(cells.get("judge"))
                spent = {key: value for key, value in cells.get("cost", {}).items() if key in COLUMNS}
                rows.append({**{c: cells.get(c) for c in COLUMNS}, **spent, **more})
        for model, scores in published.SCORES.items():
            if name in scores:
                row = {"benchmark": name, "model": model, "accuracy_strict": scores[name], "method": "judge"}
                rows.append({**dict.fromkeys(COLUMNS), **row, "source": f"published: {published.SOURCE}"})
    return rows


def _judged(judge: Mapping[str, Any] | None) -> dict[str, Any]:
    if not judge:
        return {}
    agreed = {"repeats_unanimous": judge["repeats"]["unanimous"], "kappa_with_rules": judge["rules"]["kappa"]}
    return {"judge_asked": judge["asked"], "judge_undecided": judge["undecided"], **agreed}


def to_csv(benchmarks: Mapping[str, Any]) -> str:
    """Return `long_rows` as CSV; missing values are empty."""
    return csv_of(COLUMNS, long_rows(benchmarks))


def csv_of(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def to_markdown(benchmarks: Mapping[str, Any]) -> str:
    """Return the score tables in Markdown, one per mode."""
    parts = []
    for table in leaders(benchmarks):
        head = ["model", *table.head()]
        lines = [head, ["---", *["---:"] * len(table.head())]]
        lines += [[name.replace("|", "\\|"), *(entry.text() for entry in row)] for name, row in table.rows()]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        notes = "".join(f"\n{note}.\n" for note in table.notes())
        parts.append(f"{table.what}, {table.mode}, percent with CI\n\n{text}\n{notes}")
    return "\n".join(parts)


def to_latex(benchmarks: Mapping[str, Any]) -> str:
    """Return the score tables as LaTeX `tabular`s (booktabs)."""
    parts = []
    for table in leaders(benchmarks):
        lines = [
            rf"% {table.what}, {table.mode}, percent with CI",
            rf"\begin{{tabular}}{{l{'r' * len(table.head())}}}",
            r"\toprule",
            " & ".join(map(_tex, ["model", *table.head()])) + r" \\",
            r"\midrule",
            *(" & ".join([_tex(name), *(_tex(e.text("--")) for e in row)]) + r" \\" for name, row in table.rows()),
            r"\bottomrule",
            r"\end{tabular}",
        ]
        lines += [f"% {note}" for note in table.notes()]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _tex(text: str) -> str:
    text = "".join(_LATEX.get(character, character) for character in text)
    return text.replace(published.MARK, r"$^\dagger$").replace(LEAKED, r"$^\ddagger$")
