"""What a finished run says in the terminal: seconds a stage, the scores, and where the report is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from finr1 import store
from finr1.pipeline import STAGES

if TYPE_CHECKING:
    from finr1.config import RootConfig

_FIGURES = ("format", "accuracy_strict", "accuracy_scaled", "undecided", "truncated")


def read_scores(run_dir: Path) -> dict[str, Any]:
    """`scores` of the run's summary.json: `{model: {mode: {figure: value}}}`; empty before the report."""
    path = run_dir / STAGES["report"].folder / "summary.json"
    scores = store.read_json(path).get("scores") if path.is_file() else None
    return scores if isinstance(scores, dict) else {}


def headline(scores: Mapping[str, Any]) -> str:
    """The strict accuracies on one line: `base 0.012/0.008, sft …` (greedy/sampled)."""
    parts = []
    for model, modes in scores.items():
        values = [_number(cells.get("accuracy_strict")) for cells in modes.values() if isinstance(cells, Mapping)]
        parts.append(f"{model} {'/'.join(values)}")
    return ", ".join(parts)


def show(cfg: RootConfig, seconds: Mapping[str, float], wall_s: float) -> None:
    """Print the tables of one run."""
    run_dir = Path(cfg.paths.runs) / cfg.name
    screen = Console(highlight=False)
    if len(seconds) > 1:
        times = Table("stage", "folder", "seconds", title=f"{run_dir}: {wall_s:.0f} s this time")
        times.columns[2].justify = "right"
        for name, value in seconds.items():
            times.add_row(name, STAGES[name].folder, f"{value:.1f}")
        screen.print(times)
    if not seconds.keys() & {"evaluate", "report"}:
        return
    if scores := read_scores(run_dir):
        table = Table("model", "mode", *(name.replace("_", " ") for name in _FIGURES), "95% interval", "n")
        for model, modes in scores.items():
            for mode, cells in modes.items():
                table.add_row(model, mode, *(_number(cells.get(f)) for f in _FIGURES), _interval(cells), _count(cells))
        screen.print(table)
    report = run_dir / STAGES["report"].folder / "report.html"
    if report.is_file():
        screen.print(f"report: {report}", soft_wrap=True)


def _number(value: Any) -> str:
    value = value.get("value") if isinstance(value, Mapping) else value
    return f"{value:.3f}" if isinstance(value, int | float) else "–"


def _interval(cells: Mapping[str, Any]) -> str:
    accuracy = cells.get("accuracy_strict")
    place = accuracy if isinstance(accuracy, Mapping) else cells
    low, high = place.get("low"), place.get("high")
    return f"{low:.3f}–{high:.3f}" if isinstance(low, int | float) and isinstance(high, int | float) else "–"


def _count(cells: Mapping[str, Any]) -> str:
    accuracy = cells.get("accuracy_strict")
    n = cells.get("n", accuracy.get("n") if isinstance(accuracy, Mapping) else None)
    return f"{n:,}" if isinstance(n, int) else "–"
