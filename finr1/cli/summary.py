"""The tables that a finished run prints: cost of each stage, scores, and where the report is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from finr1.core.files import read_json
from finr1.core.stage_folder import Spent
from finr1.run.stages import STAGES
from finr1.settings.root import RootConfig

_COLUMNS = {  # figure -> heading; short, so that the table fits into 80 characters
    "format": "format",
    "accuracy_strict": "strict",
    "accuracy_scaled": "scaled",
    "undecided": "undec.",
    "truncated": "trunc.",
}
_LABEL_COLUMNS = {"macro_f1": "F1", "majority_accuracy": "major."}  # of benchmarks with a closed set of labels


def read_scores(run_dir: Path) -> dict[str, Any]:
    """The scores of the first benchmark: `{model: {mode: {figure: value}}}`; empty before the stage evaluate."""
    return next(iter(all_scores(run_dir).values()), {})


def all_scores(run_dir: Path) -> dict[str, Any]:
    """The scores of every benchmark: `{benchmark: {model: {mode: {figure: value}}}}`."""
    path = run_dir / STAGES["evaluate"].folder / "scores.json"
    benchmarks = read_json(path) if path.is_file() else {}
    return {name: benchmark["scores"] for name, benchmark in benchmarks.items()}


def headline(scores: Mapping[str, Any]) -> str:
    """The accuracies on one line, greedy/sampled: `base 0.012/0.008, sft …`; the judge's where a model scored."""
    parts = []
    for model, modes in scores.items():
        accuracies = [cells.get("accuracy_judged", cells.get("accuracy_strict")) for cells in modes.values()]
        parts.append(f"{model} {'/'.join(map(_number, accuracies))}")
    return ", ".join(parts)


def show(cfg: RootConfig, spent: Mapping[str, Spent], wall_s: float) -> None:
    """Print the tables of one run."""
    run_dir = Path(cfg.paths.runs) / cfg.name
    screen = Console(highlight=False)
    if len(spent) > 1:
        screen.print(_costs(f"{run_dir}: {wall_s:.0f} s this time", spent))
    if not spent.keys() & {"evaluate", "report"}:
        return
    for benchmark, scores in all_scores(run_dir).items():
        screen.print(_table(benchmark, scores))
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


def _table(benchmark: str, scores: Mapping[str, Any]) -> Table:
    """One row per model and mode."""
    rows = [(model, mode, cells) for model, modes in scores.items() for mode, cells in modes.items()]
    labels = {
        name: heading
        for name, heading in _LABEL_COLUMNS.items()
        if any(name in cells.get("figures", {}) for *_, cells in rows)
    }
    columns = {**_COLUMNS, **labels}
    if any("accuracy_judged" in cells for *_, cells in rows):  # replaces the scaled accuracy
        del columns["accuracy_scaled"]
        columns["accuracy_judged"] = "judged"
    padding = (0, 0) if labels else (0, 1, 0, 0)
    headings = ("model", "mode", *columns.values(), "interval", "n")
    table = Table(*headings, title=benchmark, box=box.SIMPLE, pad_edge=False, padding=padding)
    for model, mode, cells in rows:
        values = {**cells, **cells.get("figures", {})}
        interval = f"{cells['low']:.2f}–{cells['high']:.2f}" if cells.get("low") is not None else "–"
        n = f"{cells['n']:,}" if "n" in cells else "–"
        table.add_row(model, mode, *(_number(values.get(name)) for name in columns), interval, n)
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
