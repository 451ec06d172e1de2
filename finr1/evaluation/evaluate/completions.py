"""The completions of an evaluation: which models are scored, reuse of cached completions, generation of the rest.

A cell is one file of rows. Its *origin* is everything besides the prompt that determines its completions: weights,
engine, sampling, seed, generating code. When the stage starts over (after a change of a scoring rule, say), completions
of the same origin are taken from the folders under `.old/` and rescored without an engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from finr1.core.errors import ConfigError, Finr1Error
from finr1.core.files import digest, hash_files, read_json, tree_hash, write_json
from finr1.core.jsonl import JsonlWriter, read_jsonl, write_jsonl
from finr1.core.prompt import chat
from finr1.core.stage_folder import MANIFEST
from finr1.core.types import Question
from finr1.evaluation.scores.rows import ScoredCompletion, by_question, read_rows, regrade, score
from finr1.parts.engine.base import Engine, StreamEngine
from finr1.parts.engine.roles import RUN_MODELS, identity, is_role
from finr1.run.fingerprints import source_files, targets
from finr1.settings.sampling import Sampling

if TYPE_CHECKING:
    from finr1.run.context import Context
    from finr1.run.progress import Bar

Rows = list[ScoredCompletion]
STOP_AFTER = 64  # consecutive failed questions after which a server counts as down


class Cell(NamedTuple):
    """One file of rows: a model's completions on a benchmark in one mode."""

    benchmark: str
    model: str
    mode: str

    @property
    def file(self) -> Path:
        """Path relative to the stage folder."""
        return Path(self.benchmark, f"{self.model}.{self.mode}.jsonl")


class Model(NamedTuple):
    """A model to score: the role of its engine, and for the policy engine the folder of its weights (None: base)."""

    role: str
    folder: Path | None


def models_of(ctx: Context) -> dict[str, Model]:
    """Return model label -> model, in the order of `evaluate.models`. ConfigError for a missing one.

    A name is base, sft or grpo (of this run), the role of an engine, or a model folder.
    """
    models: dict[str, Model] = {}
    for name in ctx.cfg.evaluate.models:
        label, folder, remedy = name, None, ""
        if name in ("sft", "grpo"):
            folder = ctx.inputs[name] / "model" if name in ctx.inputs else Path("this run")
            remedy = f"run stage={name} first, or leave it out"
        elif is_role(name, ctx.cfg.engine):
            models[name] = Model(name, None)
            continue
        elif name != "base":
            folder = Path(name).expanduser()
            parts = folder.resolve().parts
            label = ".".join(parts[-3:-1]) if parts[-1] == "model" else parts[-1]  # runs/a/5_grpo/model: a.5_grpo
            remedy = "use base, sft, grpo, the role of an engine, or a folder with a config.json"
        if folder is not None and not (folder / "config.json").is_file():
            raise ConfigError("evaluate.models", name, f"no model in {folder}", remedy)
        if label in models:
            raise ConfigError("evaluate.models", name, f"two models have the label {label}", "rename one folder")
        models[label] = Model("policy", folder)
    for label, n in ctx.cfg.evaluate.samples.items():
        if label not in models and label not in RUN_MODELS:
            raise ConfigError(f"evaluate.samples.{label}", n, "no such model", f"name one of {', '.join(models)}")
    return models


def origin(ctx: Context, name: str, model: Model, sampling: Sampling) -> str:
    """Return 16 hex digits of everything besides the prompts that determines a cell's completions."""
    weights = "" if model.folder is None else _weights(model.folder)
    engine = identity(ctx.cfg.engine.get(model.role) or {})
    code = hash_files(source_files(*targets(engine)))
    base = asdict(ctx.cfg.model) if model.role == "policy" else ""
    return digest([name, engine, base, weights, asdict(sampling), ctx.cfg.seed, code])


def _weights(folder: Path) -> str:
    """Identify weights: those of a stage by its fingerprint, others by their files."""
    manifest = folder.parent / MANIFEST
    return str(read_json(manifest)["fingerprint"]) if manifest.is_file() else tree_hash(folder)


def chat_key(question: Question, system: str | None) -> str:
    """Return 16 hex digits of the chat messages; gold and source do not enter."""
    return digest(chat(question, system))


def read_back(path: Path, questions: Sequence[Question], n: int) -> Rows:
    """Read the rows of an interrupted attempt; questions with missing samples are removed, to be generated again."""
    rows = read_rows(path)
    known = {question.id for question in questions}
    whole = [row for key, group in by_question(rows).items() if key in known and len(group) == n for row in group]
    if len(whole) < len(rows):
        write_jsonl(path, (row.to_json() for row in whole))
    return whole


class PreviousCompletions:
    """Completions of earlier evaluations under `.old/`, found by origin; writes this one's `origins.json`."""

    def __init__(self, folder: Path, origins: Mapping[Cell, str]) -> None:
        self.folder, self.origins = folder, origins
        write_json(folder / "origins.json", {str(cell.file): key for cell, key in origins.items()})
        self._files_of: dict[str, list[Path]] = {}
        for old in sorted((folder.parent / ".old").glob(f"{folder.name}.*/origins.json"), reverse=True):  # newest first
            for file, key in read_json(old).items():
                self._files_of.setdefault(key, []).append(old.parent / file)

    def rows(self, cell: Cell, wanted: Sequence[Question], system: str | None, n: int, reading: str) -> Rows:
        """Return the cached completions of these questions, `n` each, graded by the current rules."""
        if not wanted:
            return []
        cached: dict[str, Rows] = {}
        for path in self._files_of.get(self.origins[cell], ()):
            for group in by_question(read_rows(path)).values():
                if len(group) == n:
                    cached.setdefault(group[0].prompt_hash, group)
        again: Rows = []
        for question in wanted:
            again += [regrade(question, row, reading) for row in cached.get(chat_key(question, system), ())]
        return again


class Asker:
    """Generates the completions of one cell and writes them as they arrive."""

    def __init__(self, ctx: Context, cell: Cell, model: Model, bar: Bar) -> None:
        self.ctx, self.cell, self.model, self.bar = ctx, cell, model, bar
        self.held: Rows = []  # failed calls of a server, written once a later call succeeds
        self.failed_in_row, self.worked = 0, False

    def ask(self, missing: Sequence[Question], rows: Rows, base: Path | None) -> None:
        """Generate all at once; append to `rows` and to the file as each question is finished.

        A failed call is an undecided row. Finr1Error when a server never answers, or stops answering.
        """
        settings = self.ctx.cfg.evaluate
        engine, self.worked = self._engine(base), bool(rows)
        if isinstance(engine, StreamEngine):  # a spend ceiling includes earlier attempts
            paid = _paid(self.ctx.folder, self.model.role)
            engine.spent.prompt_tokens = max(engine.spent.prompt_tokens, paid[0])
            engine.spent.completion_tokens = max(engine.spent.completion_tokens, paid[1])
        with JsonlWriter(self.ctx.folder / self.cell.file) as writer:

            def keep(graded: Rows) -> None:
                self.held += graded
                failed = self.model.role != "policy" and all(row.failed for row in graded)
                self.failed_in_row = self.failed_in_row + 1 if failed else 0
                self.worked = self.worked or not failed
                if self.failed_in_row >= STOP_AFTER:
                    self._stop()
                if not failed:
                    self._write(writer, rows)
                self.bar.advance(1, " ".join(self.cell))

            sampling = settings.modes(self.cell.model)[self.cell.mode]
            score(engine, missing, self.ctx.cfg.prompt.system, sampling, keep, settings.reading)
            if not self.worked:
                self._stop()
            self._write(writer, rows)

    def _write(self, writer: JsonlWriter, rows: Rows) -> None:
        writer.write(*(row.to_json() for row in self.held))
        rows.extend(self.held)
        self.held.clear()

    def _engine(self, base: Path | None) -> Engine:
        if self.model.role != "policy":
            return self.ctx.engines.get(self.model.role)
        policy = self.ctx.engines.policy()
        folder = self.model.folder or base
        assert folder is not None
        policy.load_folder(folder)
        return policy

    def _stop(self) -> None:
        first = self.held[0].error
        raise Finr1Error(
            f"engine.{self.model.role}={self.cell.model}: {self.failed_in_row} questions in a row failed, the last "
            f"with `{self.held[-1].error}`, the first with `{first}`; fix it and run the same command to continue"
        )


def _paid(folder: Path, role: str) -> tuple[int, int]:
    """Sum the prompt and completion tokens charged for a role's completions so far."""
    paid = [row["paid"] for path in folder.glob(f"*/{role}.*.jsonl") for row in read_jsonl(path) if row.get("paid")]
    return sum(p for p, _ in paid), sum(c for _, c in paid)
