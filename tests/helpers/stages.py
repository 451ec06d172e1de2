"""What the tests of single stages share: a context over a temporary run folder, and questions made by hand."""

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
    """A question with defaults for all that a test does not care about."""
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
    """The context that the pipeline would hand to this stage; `settings` are fields of RootConfig."""
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
    """Write questions or traces as the stage before would have."""
    with JsonlWriter(path) as writer:
        writer.write(*(row.to_json() for row in rows))
