"""Stage `evaluate`: score every model on the same held-out questions, greedy and sampled.

Reads the models of `sft` and `grpo`; writes `6_scores/<benchmark>/<model>.<mode>.jsonl` (one row per completion),
`<benchmark>/questions.jsonl` and `scores.json`. Rows are written as soon as a question is finished, and a killed
evaluation resumes with the missing questions; as these run in other batches, a completion may then differ where two
tokens are nearly tied. Cached completions are rescored when a rule changes, never regenerated (`completions`). A judge
model (`evaluate.scorer`) is asked once all completions exist (`by_judge`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from finr1.core.errors import ConfigError
from finr1.core.types import Question

if TYPE_CHECKING:
    from finr1.evaluation.evaluate.completions import Cell, Model, PreviousCompletions, Rows
    from finr1.parts.benchmark.base import Benchmark
    from finr1.run.context import Context
    from finr1.run.progress import Bar


def run(ctx: Context) -> dict[str, Any]:
    """Score every model on every benchmark; returns counts. ConfigError if a model or benchmark is missing."""
    from finr1.core.build import build_all
    from finr1.core.contamination import leakage
    from finr1.core.files import write_json
    from finr1.core.jsonl import write_jsonl
    from finr1.evaluation.evaluate.completions import Cell, PreviousCompletions, models_of, origin, read_back

    models = models_of(ctx)
    modes = {model: ctx.cfg.evaluate.modes(model) for model in models}
    benchmarks: dict[str, Benchmark] = build_all(ctx.cfg.benchmark)
    if not benchmarks:
        raise ConfigError("benchmark", "[]", "no benchmark to score on", "choose one, as in benchmark=[worked]")
    questions = {name: _questions(ctx, name, benchmark) for name, benchmark in benchmarks.items()}
    for name, of_benchmark in questions.items():
        write_jsonl(ctx.folder / name / "questions.jsonl", (question.to_json() for question in of_benchmark))

    # Models are the outer loop: each one's weights are loaded into the engine once.
    cells = [Cell(name, model, mode) for model in models for name in benchmarks for mode in modes[model]]
    n = {cell: modes[cell.model][cell.mode].n for cell in cells}
    earlier = PreviousCompletions(
        ctx.folder, {cell: origin(ctx, cell.model, models[cell.model], modes[cell.model][cell.mode]) for cell in cells}
    )
    rows = {cell: read_back(ctx.folder / cell.file, questions[cell.benchmark], n[cell]) for cell in cells}
    total = sum(len(questions[cell.benchmark]) for cell in cells)
    with ctx.progress("questions", total, sum(len(existing) // n[cell] for cell, existing in rows.items())) as bar:
        rescored = sum(
            _complete(ctx, cell, models[cell.model], questions[cell.benchmark], rows[cell], earlier, bar)
            for cell in cells
        )
    if rescored:
        ctx.note(f"{rescored:,} completions of an earlier attempt were rescored, not regenerated")

    for cell, cell_rows in rows.items():
        if errors := [row.error for row in cell_rows if row.failed]:
            ctx.note(f"{' '.join(cell)}: {len(errors)} of {len(cell_rows)} calls failed, the first with `{errors[0]}`")
    if ctx.cfg.evaluate.scorer != "rules":
        _judge(ctx, rows, questions)

    scores = {name: _scores(ctx, name, benchmarks[name], questions[name], models, rows) for name in benchmarks}
    for name, of_benchmark in questions.items():
        leaks = {label: leakage(model.folder, name, of_benchmark) for label, model in models.items()}
        scores[name]["training_rows"] = {label: leak._asdict() for label, leak in leaks.items()}
        for label, (state, note) in leaks.items():
            if state == "shares documents":
                ctx.note(f"{name}, {label}: {note}")
    write_json(ctx.folder / "scores.json", scores)
    left_out = {name: dict(left) for name, b in benchmarks.items() if (left := getattr(b, "left_out", None))}
    _log(ctx, scores)
    return {
        "models": len(models),
        "questions": {name: len(of_benchmark) for name, of_benchmark in questions.items()},
        "completions": sum(map(len, rows.values())),
        "tokens": sum(row.n_tokens for cell_rows in rows.values() for row in cell_rows),
        **({"left_out": left_out} if left_out else {}),
        **({"failed": failed} if (failed := sum(t["errors"] for t in _each(scores))) else {}),
        **({"rescored": rescored} if rescored else {}),
        **ctx.count_judge(),
    }


def _judge(ctx: Context, rows: Mapping[Cell, Rows], questions: Mapping[str, Sequence[Question]]) -> None:
    """Judge every cell by the judge model and write its verdicts."""
    from finr1.core.jsonl import write_jsonl
    from finr1.evaluation.evaluate.by_judge import Judging

    judging = Judging(ctx)
    with ctx.progress("judged", sum(map(len, rows.values()))) as bar:
        for cell, cell_rows in rows.items():
            cell_rows[:] = judging.judge(cell_rows, {question.id: question for question in questions[cell.benchmark]})
            write_jsonl(ctx.folder / cell.file, (row.to_json() for row in cell_rows))
            bar.advance(len(cell_rows), " ".join(cell))


def _each(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures of every benchmark, model and mode."""
    return [row for table in scores.values() for modes in table["scores"].values() for row in modes.values()]


def _questions(ctx: Context, name: str, benchmark: Benchmark) -> list[Question]:
    loaded = list(benchmark.load())
    questions = list({question.id: question for question in loaded if question.gold is not None}.values())
    if not questions:
        raise ConfigError(
            f"benchmark.{name}", len(loaded), "no question with a gold answer", "check its data and limit"
        )
    if len(questions) < len(loaded):
        ctx.note(f"{name}: {len(loaded) - len(questions)} questions without a gold answer or duplicated are left out")
    if left_out := getattr(benchmark, "left_out", None):
        reasons = ", ".join(f"{n:,} {reason.replace('_', ' ')}" for reason, n in left_out.items())
        ctx.note(f"{name}: {len(questions):,} questions; rows of its source left out: {reasons}")
    return questions


def _complete(
    ctx: Context,
    cell: Cell,
    model: Model,
    questions: Sequence[Question],
    rows: Rows,
    earlier: PreviousCompletions,
    bar: Bar,
) -> int:
    """Complete `rows` and the file: rescore cached completions, generate the rest. Returns the number rescored."""
    from finr1.core.jsonl import JsonlWriter
    from finr1.evaluation.evaluate.completions import generate

    settings, system = ctx.cfg.evaluate, ctx.cfg.prompt.system
    n = settings.modes(cell.model)[cell.mode].n
    there = {row.question_id for row in rows}
    missing = [question for question in questions if question.id not in there]
    if rows and missing and model.role == "policy":
        ctx.note(
            f"{' '.join(cell)}: {len(there)} of {len(questions)} questions were scored already, "
            "the rest is generated in other batches"
        )
    again = earlier.rows(cell, missing, system, n, settings.reading)
    if again:
        with JsonlWriter(ctx.folder / cell.file) as writer:
            writer.write(*(row.to_json() for row in again))
        rows.extend(again)
        there = {row.question_id for row in again}
        bar.advance(len(there), " ".join(cell))
        missing = [question for question in missing if question.id not in there]
    if missing:
        generate(ctx, cell, model, missing, rows, bar)
    # Questions finish in any order; sorted, the seeded bootstrap is reproducible.
    place = {question.id: i for i, question in enumerate(questions)}
    rows.sort(key=lambda row: (place[row.question_id], row.sample))
    return len(again)


def _scores(
    ctx: Context,
    name: str,
    benchmark: Benchmark,
    questions: Sequence[Question],
    models: Mapping[str, Model],
    rows: Mapping[Cell, Rows],
) -> dict[str, Any]:
    """Return one benchmark's entry of scores.json: figures per model and mode, paired tests of every pair of models."""
    from finr1.evaluation.evaluate.breakdown import by_category, by_length, cost, own_intervals
    from finr1.evaluation.evaluate.by_judge import figures as judge_figures
    from finr1.evaluation.evaluate.completions import Cell
    from finr1.evaluation.scores.figures import at_k, compare, correct_for_many, figures, units_of
    from finr1.evaluation.scores.rows import headline
    from finr1.parts.benchmark.base import Categories, Outcome

    settings = ctx.cfg.evaluate
    modes = {model: settings.modes(model) for model in models}
    units, by_id = units_of(questions), {question.id: question for question in questions}
    how = (settings.confidence, settings.bootstrap_samples, ctx.cfg.seed)
    scores: dict[str, dict[str, Any]] = {}
    category = {q.id: benchmark.category(q) for q in questions} if isinstance(benchmark, Categories) else {}
    leads = headline(next((cell_rows for cell, cell_rows in rows.items() if cell.benchmark == name), []))
    for model in models:
        scores[model] = {mode: figures(rows[Cell(name, model, mode)], *how, units) for mode in modes[model]}
        node = ctx.cfg.engine.get(models[model].role) or {}
        prices = (float(node.get("price_in", 0.0)), float(node.get("price_out", 0.0)))
        for mode, cell in scores[model].items():
            cell_rows = rows[Cell(name, model, mode)]
            cell["length"], cell["cost"] = by_length(cell_rows, how[0], units), cost(cell_rows, *prices)
            if any(category.values()):
                cell["categories"] = by_category(cell_rows, category, how[0], units)
            if settings.scorer != "rules":
                cell["judge"] = judge_figures(cell_rows, how[0])
        if settings.sampled and (more := at_k(rows[Cell(name, model, "sampled")], by_id, how[0], units)):
            scores[model]["sampled"]["at_k"] = more
        mode = "greedy" if settings.greedy else "sampled"  # each sample is an outcome
        cell_rows = rows[Cell(name, model, mode)]
        outcomes = [Outcome(by_id[row.question_id], row.answer, row.correct) for row in cell_rows]
        own = own_intervals(benchmark, outcomes, settings.bootstrap_samples, ctx.cfg.seed, settings.confidence, units)
        scores[model][mode] |= {"figures": dict(benchmark.figures(outcomes)), "figure_intervals": own}
    paired = {
        f"{b}_vs_{a}": {
            mode: compare(
                rows[Cell(name, a, mode)],
                rows[Cell(name, b, mode)],
                max(modes[a][mode].n, modes[b][mode].n) > 1,
                *how,
                units,
            )
            for mode in modes[a]
        }
        for a, b in combinations(models, 2)
    }
    correct_for_many(paired)
    return {"questions": len(questions), "headline": leads, "scores": scores, "paired": paired}


def _log(ctx: Context, scores: Mapping[str, Any]) -> None:
    """Log every figure as `<benchmark>/<model>/<mode>/<figure>`, except undefined ones."""
    metrics: dict[str, float] = {}
    for name, table in scores.items():
        for model, modes in table["scores"].items():
            for mode, row in modes.items():
                numbers = {key: value for key, value in row.items() if isinstance(value, (int, float))}
                more = {key: cell["value"] for key, cell in row.get("at_k", {}).items()}
                for figure, value in {**numbers, **more, **row.get("figures", {})}.items():
                    metrics[f"{name}/{model}/{mode}/{figure}"] = float(value)
    ctx.tracker.log("evaluate", metrics, 0)
    leads = next(iter(scores.values()))["headline"]  # one scorer, one figure
    columns = ["benchmark", "model", "mode", "format", leads, "low", "high", "n"]
    lines = [
        [name, model, mode, *(row[column] for column in columns[3:])]
        for name, table in scores.items()
        for model, modes in table["scores"].items()
        for mode, row in modes.items()
    ]
    ctx.tracker.table("evaluate/scores", columns, lines)
