"""Stage `evaluate`: score every model on the same held-out questions, greedy and sampled.

Reads the models of `sft` and `grpo`; writes `6_scores/<benchmark>/<model>.<mode>.jsonl` (one row per completion),
`<benchmark>/questions.jsonl`, `scores.json` and `paired.json`. Rows are written as soon as a question is finished, and
a killed evaluation resumes with the missing questions; as these run in other batches, a completion may then differ
where two tokens are nearly tied. Cached completions are rescored when a rule changes, never regenerated
(`completions`). A judge model (`evaluate.scorer`) is asked once all completions exist (`by_judge`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from finr1.core.errors import ConfigError
from finr1.core.types import Question

if TYPE_CHECKING:
    from finr1.core.scores import Pair, Score
    from finr1.evaluation.evaluate.completions import Cell, Model, PreviousCompletions, Rows
    from finr1.parts.benchmark.base import Benchmark
    from finr1.run.context import Context
    from finr1.run.progress import Bar


def run(ctx: Context) -> dict[str, Any]:
    """Score every model on every benchmark; returns counts. ConfigError if a model or benchmark is missing."""
    from finr1.core.build import build_all
    from finr1.core.files import write_json
    from finr1.core.jsonl import write_jsonl
    from finr1.evaluation.evaluate.completions import Cell, PreviousCompletions, models_of, origin, read_back

    models, retry = models_of(ctx), ctx.cfg.evaluate.retry_failed
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
        ctx.folder,
        {cell: origin(ctx, cell.model, models[cell.model], modes[cell.model][cell.mode]) for cell in cells},
        retry,
    )
    rows = {cell: read_back(ctx.folder / cell.file, questions[cell.benchmark], n[cell], retry) for cell in cells}
    total = sum(len(questions[cell.benchmark]) for cell in cells)
    with ctx.progress("questions", total, sum(len(existing) // n[cell] for cell, existing in rows.items())) as bar:
        rescored = sum(
            _complete(ctx, cell, models[cell.model], questions[cell.benchmark], rows[cell], earlier, bar)
            for cell in cells
        )
    if rescored:
        ctx.note(f"{rescored:,} completions of an earlier attempt were rescored, not regenerated")

    failed = 0
    for cell, cell_rows in rows.items():
        if errors := [row.error for row in cell_rows if row.failed]:
            failed += len(errors)
            ctx.note(f"{' '.join(cell)}: {len(errors)} of {len(cell_rows)} calls failed, the first with `{errors[0]}`")
    if failed:
        ctx.note("the same command with evaluate.retry_failed=true asks for failed answers again")
    if ctx.cfg.evaluate.scorer != "rules":
        _judge(ctx, rows, questions)

    scores = [s for name in benchmarks for s in _scores(ctx, name, benchmarks[name], questions[name], models, rows)]
    pairs = [pair for name in benchmarks for pair in _pairs(ctx, name, questions[name], models, rows)]
    write_json(ctx.folder / "scores.json", [score.to_json() for score in scores])
    write_json(ctx.folder / "paired.json", [pair.to_json() for pair in pairs])
    _log(ctx, scores)
    left_out = {name: dict(left) for name, b in benchmarks.items() if (left := getattr(b, "left_out", None))}
    return {
        "models": len(models),
        "questions": {name: len(of_benchmark) for name, of_benchmark in questions.items()},
        "completions": sum(map(len, rows.values())),
        "tokens": sum(row.n_tokens for cell_rows in rows.values() for row in cell_rows),
        **({"left_out": left_out} if left_out else {}),
        **({"failed": failed} if failed else {}),
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
) -> Iterator[Score]:
    """Yield one benchmark's rows of scores.json: one per model and mode."""
    from finr1.core.contamination import leakage
    from finr1.core.scores import Score
    from finr1.evaluation.evaluate.breakdown import by_category, by_length, cost, own_intervals
    from finr1.evaluation.evaluate.by_judge import figures as judge_figures
    from finr1.evaluation.evaluate.completions import Cell
    from finr1.evaluation.scores.figures import at_k, figures, units_of
    from finr1.evaluation.scores.rows import headline
    from finr1.parts.benchmark.base import Categories, Outcome

    settings = ctx.cfg.evaluate
    units, by_id = units_of(questions), {question.id: question for question in questions}
    how = (settings.confidence, settings.bootstrap_samples, ctx.cfg.seed)
    category = {q.id: benchmark.category(q) for q in questions} if isinstance(benchmark, Categories) else {}
    for label, model in models.items():
        leak = leakage(model.folder, name, questions)
        if leak.state == "shares documents":
            ctx.note(f"{name}, {label}: {leak.note}")
        node = ctx.cfg.engine.get(model.role) or {}
        prices = (float(node.get("price_in", 0.0)), float(node.get("price_out", 0.0)))
        for mode in settings.modes(label):
            of_mode = rows[Cell(name, label, mode)]
            values = figures(of_mode, *how, units)
            values |= {"length": by_length(of_mode, how[0], units), "cost": cost(of_mode, *prices)}
            if any(category.values()):
                values["categories"] = by_category(of_mode, category, how[0], units)
            if settings.scorer != "rules":
                values["judge"] = judge_figures(of_mode, how[0])
            if mode == "sampled" and (more := at_k(of_mode, by_id, how[0], units)):
                values["at_k"] = more
            if mode == "greedy" or not settings.greedy:  # each sample is an outcome
                outcomes = [Outcome(by_id[row.question_id], row.answer, row.correct) for row in of_mode]
                own = own_intervals(benchmark, outcomes, how[1], how[2], how[0], units)
                values |= {"figures": dict(benchmark.figures(outcomes)), "figure_intervals": own}
            yield Score(name, label, mode, headline(of_mode), len(questions), leak._asdict(), values)


def _pairs(
    ctx: Context, name: str, questions: Sequence[Question], models: Mapping[str, Model], rows: Mapping[Cell, Rows]
) -> Iterator[Pair]:
    """Yield one benchmark's rows of paired.json: the tests of every pair of models, by mode."""
    from finr1.core.scores import Pair
    from finr1.evaluation.evaluate.completions import Cell
    from finr1.evaluation.scores.figures import compare, correct_for_many, units_of

    settings, units = ctx.cfg.evaluate, units_of(questions)
    modes = {model: settings.modes(model) for model in models}
    how = (settings.confidence, settings.bootstrap_samples, ctx.cfg.seed)
    tests = {
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
    correct_for_many(tests)
    for (a, b), of_modes in zip(combinations(models, 2), tests.values(), strict=True):
        yield from (Pair(name, b, a, mode, test or {}) for mode, test in of_modes.items())


def _log(ctx: Context, scores: Sequence[Score]) -> None:
    """Log every figure as `<benchmark>/<model>/<mode>/<figure>`, except undefined ones."""
    metrics: dict[str, float] = {}
    for score in scores:
        numbers = {key: value for key, value in score.values.items() if isinstance(value, (int, float))}
        more = {key: cell["value"] for key, cell in score.values.get("at_k", {}).items()}
        for figure, value in {**numbers, **more, **score.values.get("figures", {})}.items():
            metrics[f"{score.benchmark}/{score.model}/{score.mode}/{figure}"] = float(value)
    ctx.tracker.log("evaluate", metrics, 0)
    columns = ["benchmark", "model", "mode", "format", scores[0].headline, "low", "high", "n"]
    lines = [[s.benchmark, s.model, s.mode, *(s.values[column] for column in columns[3:])] for s in scores]
    ctx.tracker.table("evaluate/scores", columns, lines)
