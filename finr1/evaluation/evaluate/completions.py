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

from finr1.core.errors import ConfigError
from finr1.core.files import digest, hash_files, read_json, tree_hash, write_json
from finr1.core.jsonl import JsonlWriter, write_jsonl
from finr1.core.prompt import chat
from finr1.core.stage_folder import MANIFEST
from finr1.core.types import Completion, Question
from finr1.evaluation.scores.rows import (
    ScoredCompletion,
    by_question,
    grade_all,
    read_rows,
    regrade,
    requests_of,
)
from finr1.parts.engine.asker import Asker
from finr1.parts.engine.roles import RUN_MODELS, identity, is_role
from finr1.parts.model.folder import resolve
from finr1.run.fingerprints import source_files, targets
from finr1.settings.sampling import Sampling

if TYPE_CHECKING:
    from finr1.run.context import Context
    from finr1.run.progress import Bar

Rows = list[ScoredCompletion]


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


def read_back(path: Path, questions: Sequence[Question], n: int, retry_failed: bool) -> Rows:
    """Read the rows of an earlier attempt; questions that are not whole are removed, to be generated again."""
    rows = read_rows(path)
    known = {question.id for question in questions}
    groups = {key: group for key, group in by_question(rows).items() if key in known}
    whole = [row for group in groups.values() if _is_whole(group, n, retry_failed) for row in group]
    if len(whole) < len(rows):
        write_jsonl(path, (row.to_json() for row in whole))
    return whole


def _is_whole(group: Rows, n: int, retry_failed: bool) -> bool:
    """Whether a question has all its samples; failed ones do not count where they are asked again."""
    return len(group) == n and not (retry_failed and any(row.failed for row in group))


class PreviousCompletions:
    """Completions of earlier evaluations under `.old/`, found by origin; writes this one's `origins.json`."""

    def __init__(self, folder: Path, origins: Mapping[Cell, str], retry_failed: bool) -> None:
        self.folder, self.origins, self.retry_failed = folder, origins, retry_failed
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
                if _is_whole(group, n, self.retry_failed):
                    cached.setdefault(group[0].prompt_hash, group)
        again: Rows = []
        for question in wanted:
            again += [regrade(question, row, reading) for row in cached.get(chat_key(question, system), ())]
        return again


def generate(ctx: Context, cell: Cell, model: Model, missing: Sequence[Question], rows: Rows, bar: Bar) -> None:
    """Generate the completions of one cell; append to `rows` and to the file as each question is finished.

    A failed call is an undecided row. Finr1Error when a server never answers, or stops answering.
    """
    settings, requests = ctx.cfg.evaluate, requests_of(missing, ctx.cfg.prompt.system)
    if model.role == "policy":
        policy = ctx.engines.policy()
        policy.load_folder(model.folder or resolve(ctx.cfg.model))
        asker = Asker("policy", policy, stop_after=0, worked=True)
    else:
        asker = Asker(model.role, ctx.engines.get(model.role), ctx.ledger(model.role), worked=bool(rows))
    with JsonlWriter(ctx.folder / cell.file) as writer:

        def keep(index: int, completions: Sequence[Completion]) -> None:
            graded = grade_all(requests[index], completions, settings.reading)
            writer.write(*(row.to_json() for row in graded))
            rows.extend(graded)
            bar.advance(1, " ".join(cell))

        asker.ask(requests, settings.modes(cell.model)[cell.mode], keep)
        asker.finish()
