"""Stage `evaluate`: the same held-out questions for every model, through the same engine, greedy and sampled.

Reads the models of `sft` and `grpo`; writes `6_scores/<benchmark>/<model>.<mode>.jsonl` (one row a completion),
`<benchmark>/questions.jsonl` and `scores.json`. Rows are on disk as soon as a question is finished, and a killed
evaluation goes on at the first question that lacks them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finr1.engine.base import Sampling
from finr1.errors import ConfigError
from finr1.types import Question

if TYPE_CHECKING:
    from finr1.benchmark.base import Benchmark
    from finr1.context import Bar, Context

Rows = list[dict[str, Any]]


class Cell(NamedTuple):
    """One file of rows: a model's completions of a benchmark in one mode."""

    benchmark: str
    model: str
    mode: str

    @property
    def file(self) -> Path:
        """Its path below the stage folder."""
        return Path(self.benchmark, f"{self.model}.{self.mode}.jsonl")


@dataclass
class EvaluateSettings:
    """Which models are scored, and how completions are drawn."""

    models: list[str] = field(default_factory=lambda: ["base", "sft", "grpo"])  # or the path of a model folder
    greedy: bool = True  # one completion a question at temperature 0
    sampled: bool = True  # `sampling.n` completions a question
    sampling: Sampling = field(default_factory=lambda: Sampling(n=4, temperature=1.0, max_new_tokens=160))
    samples: dict[str, int] = field(default_factory=dict)  # model -> its `n` when sampled; the others': sampling.n
    confidence: float = 0.95  # of every interval
    bootstrap_samples: int = 10_000

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError("evaluate.models", "[]", "there is nothing to score", "name base, sft, grpo or a folder")
        if not (self.greedy or self.sampled):
            raise ConfigError("evaluate.greedy", False, "sampled is off too", "turn one of them on")
        for model, n in self.samples.items():
            if n < 1:
                raise ConfigError(f"evaluate.samples.{model}", n, "nothing would be drawn", "use 1 or more")
        if not 0 < self.confidence < 1:
            raise ConfigError("evaluate.confidence", self.confidence, "it is a probability", "use 0.95")
        if self.bootstrap_samples < 1:
            raise ConfigError("evaluate.bootstrap_samples", self.bootstrap_samples, "nothing to draw", "use 10000")

    def modes(self, model: str = "") -> dict[str, Sampling]:
        """Mode -> how this model's completions are drawn; both have the same length limit."""
        greedy = replace(self.sampling, n=1, temperature=0.0, top_p=1.0, top_k=-1)
        sampled = replace(self.sampling, n=self.samples.get(model, self.sampling.n))
        return {**({"greedy": greedy} if self.greedy else {}), **({"sampled": sampled} if self.sampled else {})}


def run(ctx: Context) -> dict[str, Any]:
    """Score every model on every benchmark; returns counts. ConfigError if a model or a benchmark is missing."""
    from finr1.context import build_all
    from finr1.store import write_json, write_jsonl

    models = model_folders(ctx)
    modes = {model: ctx.cfg.evaluate.modes(model) for model in models}
    benchmarks: dict[str, Benchmark] = build_all(ctx.cfg.benchmark)
    if not benchmarks:
        raise ConfigError("benchmark", "[]", "there is nothing to score on", "name one, as in benchmark=[worked]")
    questions = {name: _questions(ctx, name, benchmark) for name, benchmark in benchmarks.items()}
    for name, asked in questions.items():
        write_jsonl(ctx.folder / name / "questions.jsonl", (question.to_json() for question in asked))

    # A model's weights go into the engine once: models are the outer loop.
    cells = [Cell(name, model, mode) for model in models for name in benchmarks for mode in modes[model]]
    n = {cell: modes[cell.model][cell.mode].n for cell in cells}
    rows = {cell: _read_back(ctx.folder / cell.file, questions[cell.benchmark], n[cell]) for cell in cells}
    total = sum(len(questions[cell.benchmark]) for cell in cells)
    with ctx.progress("questions", total, sum(len(found) // n[cell] for cell, found in rows.items())) as bar:
        for cell in cells:
            _complete(ctx, cell, models[cell.model], questions[cell.benchmark], rows[cell], bar)

    scores = {name: _scores(ctx, name, benchmarks[name], questions[name], list(models), rows) for name in benchmarks}
    write_json(ctx.folder / "scores.json", scores)
    _log(ctx, scores)
    return {
        "models": len(models),
        "questions": {name: len(asked) for name, asked in questions.items()},
        "completions": sum(map(len, rows.values())),
        "tokens": sum(row["n_tokens"] for found in rows.values() for row in found),
    }


def model_folders(ctx: Context) -> dict[str, Path | None]:
    """Model label -> its folder, in the order of the settings; None for the base model, which is found when needed."""
    folders: dict[str, Path | None] = {}
    for name in ctx.cfg.evaluate.models:
        label, folder, remedy = name, None, ""
        if name in ("sft", "grpo"):
            folder = ctx.inputs[name] / "model" if name in ctx.inputs else Path("this run")
            remedy = f"run stage={name} first, or leave it out"
        elif name != "base":
            folder = Path(name).expanduser()
            parts = folder.resolve().parts
            label = ".".join(parts[-3:-1]) if parts[-1] == "model" else parts[-1]  # runs/a/5_grpo/model: a.5_grpo
            remedy = "use base, sft, grpo, or a folder with a config.json"
        if folder is not None and not (folder / "config.json").is_file():
            raise ConfigError("evaluate.models", name, f"no model in {folder}", remedy)
        if label in folders:
            raise ConfigError("evaluate.models", name, f"two models would be called {label}", "rename one folder")
        folders[label] = folder
    for label, n in ctx.cfg.evaluate.samples.items():
        if label not in folders and label not in ("base", "sft", "grpo"):
            raise ConfigError(f"evaluate.samples.{label}", n, "no such model", f"name one of {', '.join(folders)}")
    return folders


def _questions(ctx: Context, name: str, benchmark: Benchmark) -> list[Question]:
    loaded = list(benchmark.load())
    questions = list({question.id: question for question in loaded if question.gold is not None}.values())
    if not questions:
        raise ConfigError(
            f"benchmark.{name}", len(loaded), "no question with a gold answer", "check its data and limit"
        )
    if len(questions) < len(loaded):
        ctx.note(f"{name}: {len(loaded) - len(questions)} questions without gold, or twice there, are left out")
    return questions


def _read_back(path: Path, questions: Sequence[Question], n: int) -> Rows:
    """Rows that an earlier attempt left; a question that lacks a sample is taken out, so that it is asked again."""
    from finr1.scoring import by_question
    from finr1.store import read_jsonl, write_jsonl

    rows = list(read_jsonl(path)) if path.exists() else []
    known = {question.id for question in questions}
    whole = [row for key, group in by_question(rows).items() if key in known and len(group) == n for row in group]
    if len(whole) < len(rows):
        write_jsonl(path, whole)
    return whole


def _complete(
    ctx: Context, cell: Cell, folder: Path | None, questions: Sequence[Question], rows: Rows, bar: Bar
) -> None:
    """Ask what is missing, all at once; append to `rows` and to the file as each question is finished."""
    from finr1.scoring import score
    from finr1.store import JsonlWriter

    there = {row["question_id"] for row in rows}
    missing = [question for question in questions if question.id not in there]
    if missing:
        engine = ctx.engines.policy()
        engine.load_folder(folder or _base(ctx))
        with JsonlWriter(ctx.folder / cell.file) as writer:

            def keep(graded: Rows) -> None:
                writer.write(*graded)
                rows.extend(graded)
                bar.advance(1, " ".join(cell))

            score(engine, missing, ctx.cfg.prompt.system, ctx.cfg.evaluate.modes(cell.model)[cell.mode], keep)
    # Questions finish in any order; in their own order the seeded resampling gives the same numbers every time.
    place = {question.id: i for i, question in enumerate(questions)}
    rows.sort(key=lambda row: (place[row["question_id"]], row["sample"]))


def _base(ctx: Context) -> Path:
    from finr1.model.load import resolve

    return resolve(ctx.cfg.model)


def _scores(
    ctx: Context,
    name: str,
    benchmark: Benchmark,
    questions: Sequence[Question],
    models: Sequence[str],
    rows: Mapping[Cell, Rows],
) -> dict[str, Any]:
    """One benchmark's table: figures of every model and mode; every later model tested against every earlier one."""
    from finr1.benchmark.base import Outcome
    from finr1.scoring import at_k, compare, correct_for_many, figures, units_of

    settings = ctx.cfg.evaluate
    modes = {model: settings.modes(model) for model in models}
    units, by_id = units_of(questions), {question.id: question for question in questions}
    how = (settings.confidence, settings.bootstrap_samples, ctx.cfg.seed)
    scores: dict[str, dict[str, Any]] = {}
    for model in models:
        scores[model] = {mode: figures(rows[Cell(name, model, mode)], *how, units) for mode in modes[model]}
        if settings.sampled and (more := at_k(rows[Cell(name, model, "sampled")], by_id, how[0], units)):
            scores[model]["sampled"]["at_k"] = more
        if settings.greedy:
            pairs = zip(questions, rows[Cell(name, model, "greedy")], strict=True)
            outcomes = [Outcome(question, row["answer"], row["strict"]["value"]) for question, row in pairs]
            scores[model]["greedy"]["figures"] = dict(benchmark.figures(outcomes))
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
    return {"questions": len(questions), "scores": scores, "paired": paired}


def _log(ctx: Context, scores: Mapping[str, Any]) -> None:
    """Every figure as `<benchmark>/<model>/<mode>/<figure>`; what nobody decided has no number to log."""
    metrics: dict[str, float] = {}
    for name, table in scores.items():
        for model, modes in table["scores"].items():
            for mode, row in modes.items():
                numbers = {key: value for key, value in row.items() if isinstance(value, (int, float))}
                more = {key: cell["value"] for key, cell in row.get("at_k", {}).items()}
                for figure, value in {**numbers, **more, **row.get("figures", {})}.items():
                    metrics[f"{name}/{model}/{mode}/{figure}"] = float(value)
    ctx.tracker.log("evaluate", metrics, 0)
    columns = ["benchmark", "model", "mode", "format", "accuracy_strict", "low", "high", "n"]
    lines = [
        [name, model, mode, *(row[column] for column in columns[3:])]
        for name, table in scores.items()
        for model, modes in table["scores"].items()
        for mode, row in modes.items()
    ]
    ctx.tracker.table("evaluate/scores", columns, lines)
