"""The completions of an evaluation: which models are asked, what is on disk already, and asking for the rest.

A cell is one file of rows. What decides its completions, but for the chat itself, is its *origin*: weights, engine,
sampling, seed, the code that generates. A stage that begins anew (a rule of scoring has changed, say) looks for cells
of the same origin among the folders set aside under `.old/`, and scores their completions again without any engine.
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
STOP_AFTER = 64  # questions that fail in a row, of a server: it is down, and the rest would fail too


class Cell(NamedTuple):
    """One file of rows: a model's completions of a benchmark in one mode."""

    benchmark: str
    model: str
    mode: str

    @property
    def file(self) -> Path:
        """Its path below the stage folder."""
        return Path(self.benchmark, f"{self.model}.{self.mode}.jsonl")


class Model(NamedTuple):
    """A model to score: the role of its engine, and for the policy engine the folder of its weights (None: base)."""

    role: str
    folder: Path | None


def models_of(ctx: Context) -> dict[str, Model]:
    """Model label -> where it is, in the order of the settings. ConfigError for one that is not there.

    A name is base, sft or grpo of the run, the role of an engine, or a model folder.
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
            raise ConfigError("evaluate.models", name, f"two models would be called {label}", "rename one folder")
        models[label] = Model("policy", folder)
    for label, n in ctx.cfg.evaluate.samples.items():
        if label not in models and label not in RUN_MODELS:
            raise ConfigError(f"evaluate.samples.{label}", n, "no such model", f"name one of {', '.join(models)}")
    return models


def origin(ctx: Context, name: str, model: Model, sampling: Sampling) -> str:
    """16 hex digits of all that decides a cell's completions but the chats."""
    weights = "" if model.folder is None else _weights(model.folder)
    engine = identity(ctx.cfg.engine.get(model.role) or {})
    code = hash_files(source_files(*targets(engine)))
    base = asdict(ctx.cfg.model) if model.role == "policy" else ""
    return digest([name, engine, base, weights, asdict(sampling), ctx.cfg.seed, code])


def _weights(folder: Path) -> str:
    """What weights these are: those of a stage by its fingerprint, others by their files."""
    manifest = folder.parent / MANIFEST
    return str(read_json(manifest)["fingerprint"]) if manifest.is_file() else tree_hash(folder)


def chat_key(question: Question, system: str | None) -> str:
    """16 hex digits of the messages: a row of the same chat answers it, whatever has become of gold or source."""
    return digest(chat(question, system))


def read_back(path: Path, questions: Sequence[Question], n: int) -> Rows:
    """Rows that an earlier attempt left; a question that lacks a sample is taken out, so that it is asked again."""
    rows = read_rows(path)
    known = {question.id for question in questions}
    whole = [row for key, group in by_question(rows).items() if key in known and len(group) == n for row in group]
    if len(whole) < len(rows):
        write_jsonl(path, (row.to_json() for row in whole))
    return whole


class PreviousCompletions:
    """Cells of former attempts at this stage, under `.old/`, by their origin; `origins.json` names this one's."""

    def __init__(self, folder: Path, origins: Mapping[Cell, str]) -> None:
        self.folder, self.origins = folder, origins
        write_json(folder / "origins.json", {str(cell.file): key for cell, key in origins.items()})
        self._found: dict[str, list[Path]] = {}
        for old in sorted((folder.parent / ".old").glob(f"{folder.name}.*/origins.json"), reverse=True):  # newest first
            for file, key in read_json(old).items():
                self._found.setdefault(key, []).append(old.parent / file)

    def rows(self, cell: Cell, wanted: Sequence[Question], system: str | None, n: int, boxed: bool) -> Rows:
        """The completions of these questions that are there, `n` each, scored by today's rules."""
        if not wanted:
            return []
        cached: dict[str, Rows] = {}
        for path in self._found.get(self.origins[cell], ()):
            for group in by_question(read_rows(path)).values():
                if len(group) == n:
                    cached.setdefault(group[0].prompt_hash, group)
        again: Rows = []
        for question in wanted:
            again += [regrade(question, row, boxed) for row in cached.get(chat_key(question, system), ())]
        return again


class Asker:
    """Asks one cell's questions and keeps what comes."""

    def __init__(self, ctx: Context, cell: Cell, model: Model, bar: Bar) -> None:
        self.ctx, self.cell, self.model, self.bar = ctx, cell, model, bar
        self.held: Rows = []  # failed calls of a server, held back until one works
        self.failed_in_row, self.worked = 0, False

    def ask(self, missing: Sequence[Question], rows: Rows, base: Path | None) -> None:
        """Ask all at once; append to `rows` and to the file as each question is finished.

        A failed call is a row that nobody decided. Finr1Error when a server answers nothing, or nothing any more.
        """
        settings = self.ctx.cfg.evaluate
        engine, self.worked = self._engine(base), bool(rows)
        if isinstance(engine, StreamEngine):  # a ceiling counts what earlier attempts have paid
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
            score(engine, missing, self.ctx.cfg.prompt.system, sampling, keep, settings.box_anywhere)
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
            f"with `{self.held[-1].error}`, the first with `{first}`; mend it and start again: it goes on there"
        )


def _paid(folder: Path, role: str) -> tuple[int, int]:
    """Prompt and completion tokens that the rows of a role's model say were paid."""
    paid = [row["paid"] for path in folder.glob(f"*/{role}.*.jsonl") for row in read_jsonl(path) if row.get("paid")]
    return sum(p for p, _ in paid), sum(c for _, c in paid)
