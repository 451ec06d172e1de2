"""What a finished run says in the terminal: what each stage cost, the scores, and where the report is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from finr1.core.files import read_json
from finr1.core.stage_folder import Spent
from finr1.run.stages import STAGES

if TYPE_CHECKING:
    from finr1.settings.root import RootConfig

_FIGURES = {  # figure -> its column, short: the table fits 80 characters
    "format": "format",
    "accuracy_strict": "strict",
    "accuracy_scaled": "scaled",
    "undecided": "undec.",
    "truncated": "trunc.",
}


def read_scores(run_dir: Path) -> dict[str, Any]:
    """The scores of the first benchmark: `{model: {mode: {figure: value}}}`; empty before the stage evaluate."""
    return next(iter(all_scores(run_dir).values()), {})


def all_scores(run_dir: Path) -> dict[str, Any]:
    """The scores of every benchmark: `{benchmark: {model: {mode: {figure: value}}}}`."""
    path = run_dir / STAGES["evaluate"].folder / "scores.json"
    found = read_json(path) if path.is_file() else {}
    return {name: entry["scores"] for name, entry in found.items()}


def _table(benchmark: str, scores: Mapping[str, Any]) -> Table:
    """One row a model and mode; figures of closed label sets only where the benchmark has them."""
    labels = {"macro_f1": "F1", "majority_accuracy": "major."}
    extra = [n for n in labels if any(n in c.get("figures", {}) for modes in scores.values() for c in modes.values())]
    names = {**_FIGURES, **{name: labels[name] for name in extra}}
    if any("accuracy_judged" in cells for modes in scores.values() for cells in modes.values()):  # in scaled's place
        names = {("accuracy_judged" if n == "accuracy_scaled" else n): names[n] for n in names} | {
            "accuracy_judged": "judged"
        }
    gap = (0, 0) if extra else (0, 1, 0, 0)
    table = Table(title=benchmark, box=box.SIMPLE, pad_edge=False, padding=gap)
    for column in ("model", "mode", *names.values(), "interval", "n"):
        table.add_column(column)
    for model, modes in scores.items():
        for mode, cells in modes.items():
            values = {**cells, **cells.get("figures", {})}
            table.add_row(model, mode, *(_number(values.get(name)) for name in names), _interval(cells), _count(cells))
    return table


def _leading(cells: Mapping[str, Any]) -> Any:
    """The accuracy that leads: the judge's where one has scored."""
    return cells.get("accuracy_judged", cells.get("accuracy_strict"))


def headline(scores: Mapping[str, Any]) -> str:
    """The leading accuracies on one line: `base 0.012/0.008, sft …` (greedy/sampled)."""
    parts = []
    for model, modes in scores.items():
        values = [_number(_leading(cells)) for cells in modes.values() if isinstance(cells, Mapping)]
        parts.append(f"{model} {'/'.join(values)}")
    return ", ".join(parts)


def show(cfg: RootConfig, spent: Mapping[str, Spent], wall_s: float) -> None:
    """Print the tables of one run."""
    run_dir = Path(cfg.paths.runs) / cfg.name
    screen = Console(highlight=False)
    if len(spent) > 1:
        costs = Table(title=f"{run_dir}: {wall_s:.0f} s this time", box=box.SIMPLE)
        for column in ("stage", "folder", "seconds", "peak GiB"):
            costs.add_column(column, justify="left" if column in ("stage", "folder") else "right")
        for name, cost in spent.items():
            memory = f"{cost.memory_gib:.1f}" if cost.memory_gib else "–"
            costs.add_row(name, STAGES[name].folder, f"{cost.seconds:.1f}", memory)
        screen.print(costs)
    if not spent.keys() & {"evaluate", "report"}:
        return
    for benchmark, scores in all_scores(run_dir).items():
        screen.print(_table(benchmark, scores))
    report = run_dir / STAGES["report"].folder / "report.html"
    scores_file = run_dir / STAGES["evaluate"].folder / "scores.json"
    if report.is_file() and not (scores_file.is_file() and report.stat().st_mtime < scores_file.stat().st_mtime):
        screen.print(f"report: {report}", soft_wrap=True)
    elif "evaluate" in spent:
        screen.print("report: none of these scores yet; the same command with stage=report writes it", soft_wrap=True)


def _number(value: Any) -> str:
    value = value.get("value") if isinstance(value, Mapping) else value
    return f"{value:.3f}" if isinstance(value, int | float) else "–"


def _interval(cells: Mapping[str, Any]) -> str:
    accuracy = cells.get("accuracy_strict")
    place = accuracy if isinstance(accuracy, Mapping) else cells
    low, high = place.get("low"), place.get("high")
    return f"{low:.2f}–{high:.2f}" if isinstance(low, int | float) and isinstance(high, int | float) else "–"


def _count(cells: Mapping[str, Any]) -> str:
    accuracy = cells.get("accuracy_strict")
    n = cells.get("n", accuracy.get("n") if isinstance(accuracy, Mapping) else None)
    return f"{n:,}" if isinstance(n, int) else "–"
