"""Stage `report`: the run as one offline page (`report.html`) and the same numbers as JSON (`summary.json`).

Also writes the scores as `scores.csv`, `scores.md` and `scores.tex`, their breakdowns (categories, samples, lengths,
judge agreement) as `breakdown.csv`, and every paired test as `paired.csv`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finr1.core.files import write_atomic, write_json
from finr1.evaluation.report import views
from finr1.evaluation.report.gather import summarise
from finr1.evaluation.report.page import render
from finr1.evaluation.report.samples import collect
from finr1.evaluation.report.tables import to_csv, to_latex, to_markdown

if TYPE_CHECKING:  # what the stage loads is part of its fingerprint
    from finr1.run.context import Context


def run(ctx: Context) -> dict[str, Any]:
    """Write the report from the existing stage folders; returns the number of stages and samples shown."""
    folders = {name: folder for name, folder in ctx.inputs.items() if folder.is_dir()}
    with ctx.progress("report", 3) as bar:
        summary = summarise(ctx.cfg.name, ctx.run_dir, folders)
        write_json(ctx.folder / "summary.json", summary)
        tables = {"csv": to_csv, "md": to_markdown, "tex": to_latex} if summary["benchmarks"] else {}
        for ending, table in tables.items():
            write_atomic(ctx.folder / f"scores.{ending}", table(summary["benchmarks"]))
        if tables:
            write_atomic(ctx.folder / "breakdown.csv", views.to_csv(summary["benchmarks"]))
            write_atomic(ctx.folder / "paired.csv", views.paired_csv(summary["benchmarks"]))
        bar.advance()
        samples = collect(folders, ctx.cfg.report.samples)
        bar.advance()
        write_atomic(ctx.folder / "report.html", render(summary, samples))
        bar.advance()
    return {"stages": len(summary["stages"]), "samples": len(samples["samples"])}
