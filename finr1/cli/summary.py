"""The tables that a finished run prints: cost of each stage, scores, and where the report is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from finr1.core.scores import Score
from finr1.core.stage_folder import Spent
from finr1.run.stages import STAGES
from finr1.settings.root import RootConfig

_COLUMNS = {  # figure -> heading; short, so that the table fits into 80 characters
    "accuracy_strict": "strict",
    "accuracy_scaled": "scaled",
    "format": "format",
    "undecided": "undec.",
    "truncated": "trunc.",
}
_LABEL_COLUMNS = {"macro_f1": "F1", "majority_accuracy": "major."}  # of benchmarks with a closed set of labels


def read_scores(run_dir: Path) -> list[Score]:
    """The scores of every benchmark, model and mode; empty before the stage evaluate."""
    return Score.read(run_dir / STAGES["evaluate"].folder / "scores.json")


def headline(scores: Sequence[Score]) -> str:
    """The accuracies that count on the first benchmark, greedy/sampled: `base 0.012/0.008, sft …`."""
    parts: dict[str, list[str]] = {}
    for score in scores:
        if score.benchmark == scores[0].benchmark:
            parts.setdefault(score.model, []).append(_number(score.accuracy))
    return ", ".join(f"{model} {'/'.join(accuracies)}" for model, accuracies in parts.items())


def show(cfg: RootConfig, spent: Mapping[str, Spent], wall_s: float) -> None:
    """Print the tables of one run."""
    run_dir = Path(cfg.paths.runs) / cfg.name
    screen = Console(highlight=False)
    if len(spent) > 1:
        screen.print(_costs(f"{run_dir}: {wall_s:.0f} s this time", spent))
    if not spent.keys() & {"evaluate", "report"}:
        return
    for benchmark, scores in groupby(read_scores(run_dir), lambda score: score.benchmark):
        screen.print(_table(benchmark, list(scores)))
    report = run_dir / STAGES["report"].folder / "report.html"
    scores_file = run_dir / STAGES["evaluate"].folder / "scores.json"
    if report.is_file() and not (scores_file.is_file() and report.stat().st_mtime < scores_file.stat().st_mtime):
        screen.print(f"report: {report}", soft_wrap=True)
    elif "evaluate" in spent:
        screen.print("report: not yet of these scores; the same command with stage=report writes it", soft_wrap=True)


def _costs(title: str, spent: Mapping[str, Spent]) -> Table:
    table = Table("stage", "folder", title=title, box=box.SIMPLE)
    table.add_column("seconds", justify="right")
    table.add_column("peak GiB", justify="right")
    for name, cost in spent.items():
        memory = f"{cost.memory_gib:.1f}" if cost.memory_gib else "–"
        table.add_row(name, STAGES[name].folder, f"{cost.seconds:.1f}", memory)
    return table


def _table(benchmark: str, scores: Sequence[Score]) -> Table:
    """One row per model and mode."""
    rows = [(score, {**score.values, **score.values.get("figures", {})}) for score in scores]
    labels = {name: head for name, head in _LABEL_COLUMNS.items() if any(name in values for _, values in rows)}
    columns = {**_COLUMNS, **labels}
    if scores[0].headline == "accuracy_judged":  # replaces the scaled accuracy
        del columns["accuracy_scaled"]
        columns = {"accuracy_judged": "judged", **columns}
    padding = (0, 0) if labels else (0, 1, 0, 0)
    headings = ("model", "mode", *columns.values(), "interval", "n")
    table = Table(*headings, title=benchmark, box=box.SIMPLE, pad_edge=False, padding=padding)
    for score, values in rows:
        interval = f"{values['low']:.2f}–{values['high']:.2f}" if values["low"] is not None else "–"
        shown = (_number(values.get(name)) for name in columns)
        table.add_row(score.model, score.mode, *shown, interval, f"{values['n']:,}")
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
