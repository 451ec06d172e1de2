"""Helpers for tests of single stages: a context over a temporary run folder, and hand-made questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finr1.core.jsonl import JsonlWriter
from finr1.core.tracking import Tracker
from finr1.core.types import Message, Question
from finr1.parts.engine.roles import Engines
from finr1.run.context import Context
from finr1.run.stages import STAGES
from finr1.settings.root import RootConfig


def question(text: str, gold: str | None = "1", **more: Any) -> Question:
    """Return a question with defaults for unspecified fields."""
    known: dict[str, Any] = {
        "source": "made",
        "document_id": f"made/{text}",
        "language": "en",
        "module": "reasoning business",
        "kind": "number",
    }
    return Question(prompt=[Message(role="user", content=text)], gold=gold, **{**known, **more})


@contextmanager
def stage_context(run_dir: Path, stage: str, **settings: Any) -> Iterator[Context]:
    """Return the context that the pipeline passes to this stage; `settings`: fields of RootConfig."""
    cfg = RootConfig(stage=stage, **settings)
    folder = run_dir / STAGES[stage].folder
    folder.mkdir(parents=True, exist_ok=True)
    inputs = {name: run_dir / STAGES[name].folder for name in STAGES[stage].reads}
    engines, tracker = Engines(cfg.engine), Tracker(run_dir)
    try:
        yield Context(cfg, run_dir, stage, folder, inputs, tracker, engines)
    finally:
        engines.close()
        tracker.close()


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    """Write questions or traces as the previous stage does."""
    with JsonlWriter(path) as writer:
        writer.write(*(row.to_json() for row in rows))
