"""What the ranks after the first do: wait for its word, and train with it.

The first rank walks the stages as a run of one process does, holds the lock and writes the run folder; stages that do
not train are its own. The others write to a folder that goes when the stage is over.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from finr1 import store
from finr1.context import Context, Engines, console
from finr1.pipeline import STAGES, function_of, inputs_of
from finr1.ranks import Ranks
from finr1.tracking import Tracker

if TYPE_CHECKING:
    from finr1.config import RootConfig


class Train(NamedTuple):
    """The first rank begins a stage that all walk."""

    stage: str
    began: float  # unix seconds: whom a judge's answers are charged to


class Start(NamedTuple):
    """The first rank builds an engine for itself: engines in process are built by all ranks at once, or by none."""

    role: str


Word = Train | Start | None  # None: the run is over


def follow(cfg: RootConfig, ranks: Ranks) -> None:
    """Do what the first rank says until the run is over. LostRank where it ends before."""
    console.quiet = True  # the first rank speaks
    run_dir = Path(cfg.paths.runs) / cfg.name
    engines = Engines(cfg.engine)
    try:
        while (word := ranks.of_first(_nothing())) is not None:
            if isinstance(word, Start):
                engines.get(word.role).start()  # type: ignore[attr-defined]
            else:
                with tempfile.TemporaryDirectory(prefix="finr1-") as scratch:
                    _train(cfg, run_dir, word, Path(scratch), engines, ranks)
    finally:
        engines.close()


def _nothing() -> Word:
    return None


def _train(cfg: RootConfig, run_dir: Path, word: Train, scratch: Path, engines: Engines, ranks: Ranks) -> None:
    stage = STAGES[word.stage]
    inputs = {name: read.folder for name, read in inputs_of(stage, cfg, run_dir).items()}
    store.write_json(scratch / store.BEGUN, {"began": word.began})
    tracker = Tracker(scratch)
    try:
        function_of(stage)(Context(cfg, run_dir, stage.name, scratch, inputs, tracker, engines, ranks=ranks))
    finally:
        tracker.close()
