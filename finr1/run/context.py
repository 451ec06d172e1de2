"""The context that every stage receives: settings, its folder and input folders, engines, tracker, progress bar."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finr1.core.build import build_all
from finr1.core.errors import ConfigError
from finr1.core.jsonl import read_jsonl
from finr1.core.ranks import ALONE, Ranks
from finr1.core.tracking import Tracker
from finr1.core.types import Question
from finr1.parts.engine.base import Engine, PolicyEngine
from finr1.parts.engine.cached import CachedEngine
from finr1.parts.engine.ledger import Ledger
from finr1.parts.engine.roles import Engines, in_process
from finr1.parts.judge.base import AsksModel
from finr1.parts.model.folder import resolve
from finr1.run.progress import Bar, console
from finr1.settings.root import RootConfig


@dataclass
class Context:
    """Everything a stage works with."""

    cfg: RootConfig
    run_dir: Path
    stage: str
    folder: Path
    inputs: Mapping[str, Path]  # folders to read, by the stage that wrote them
    tracker: Tracker
    engines: Engines
    notes: list[str] = field(default_factory=list)  # printed, and kept in the manifest for the report
    ranks: Ranks = ALONE  # the ranks that run this stage
    shared: Path | None = None  # the first rank's folder, where `folder` is a temporary one
    _judge: CachedEngine | None = None

    def parts(self, nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Build the parts of a group by name; those that ask a model get the judge's engine."""
        parts = build_all(nodes)
        for part in parts.values():
            if isinstance(part, AsksModel):
                part.ask_through(self.judge)
        return parts

    @property
    def judge(self) -> CachedEngine:
        """The engine of role `judge` behind `paths.judge_cache`, started at the first request that is not cached.

        An in-process engine judges with the original weights of `model`, never with weights trained in this run.
        """
        if self._judge is None:
            if in_process(self.engines.node("judge")) and self.stage == "grpo":
                why = "the in-process engine samples from the policy, whose weights change"
                raise ConfigError("engine.judge", "vllm", why, "serve the judge, and choose engine@engine.judge=http")
            self._judge = self.engines.cached(
                "judge",
                self._start_judge,
                Path(self.cfg.paths.judge_cache) if self.cfg.paths.judge_cache else None,
                ledger=self.ledger("judge"),
                stop_after=self.cfg.judge.stop_after_failed_calls,
            )
        return self._judge

    def _start_judge(self) -> Engine:
        engine = self.engines.get("judge")
        if isinstance(engine, PolicyEngine):
            engine.load_folder(resolve(self.cfg.model))
        return engine

    @property
    def judge_fails(self) -> bool:
        """Whether the latest call of the judge's engine failed."""
        return self._judge is not None and self._judge.fails

    def ledger(self, role: str) -> Ledger:
        """The calls of this stage to a role's engine over all attempts and ranks, kept in the stage's folder."""
        return Ledger((self.shared or self.folder) / f"calls.{role}.jsonl")

    def count_judge(self) -> dict[str, int]:
        """Calls and tokens of the judge's engine over all attempts at this stage; empty if no judge asks a model."""
        if self._judge is None:
            return {}
        account = self.ledger("judge").account
        if account.failed:
            self.note(f"{account.failed} of {account.asked} judge calls failed: their verdicts are undecided")
        counts = {"judge_asked": account.asked, "judge_failed": account.failed}
        return counts | account.counts

    def questions(self) -> dict[str, Question]:
        """The run's questions by id, in file order; DataError names the line of a row that lacks a field."""
        rows = read_jsonl(self.inputs["questions"] / "questions.jsonl", ["id", *Question.needed()])
        return {row["id"]: Question.from_json(row) for row in rows}

    def note(self, text: str) -> None:
        """Print a note for the user, and keep it for the report."""
        self.notes.append(text)
        console.print(f"  {self.stage}: {text}")

    def progress(self, what: str, total: int, done: int = 0) -> Bar:
        return Bar(f"{self.stage}: {what}", total, done)
