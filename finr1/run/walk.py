"""The walk over the stages, and what the other ranks do meanwhile.

The first rank walks the stages as a run of one process does, holds the lock and writes the run folder; stages that do
not train are its own. The others wait for its word and train with it; they write to a folder that is deleted when the
stage is over.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import OmegaConf

from finr1.core.build import build_all
from finr1.core.clock import Clock
from finr1.core.files import read_json, write_atomic, write_json
from finr1.core.lock import RunLock
from finr1.core.ranks import ALONE, Ranks
from finr1.core.stage_folder import BEGUN, MANIFEST, Spent, begin, finish
from finr1.core.tracking import Tracker
from finr1.parts.engine.base import Engine, PolicyEngine
from finr1.parts.engine.roles import Engines
from finr1.run.context import Context
from finr1.run.fingerprints import key_of, versions
from finr1.run.progress import console
from finr1.run.stages import STAGES, Stage, chosen, function_of, inputs_of

if TYPE_CHECKING:
    from finr1.settings.root import RootConfig


class Train(NamedTuple):
    """The first rank begins a stage that all walk."""

    stage: str
    began: float  # unix seconds: whom a judge's answers are charged to


class Start(NamedTuple):
    """The first rank builds an engine for itself: engines in process are built by all ranks at once, or by none."""

    role: str


Word = Train | Start | None  # None: the run is over


def walk(cfg: RootConfig, values: Mapping[str, Any], ranks: Ranks = ALONE) -> dict[str, Spent]:
    """Run the chosen stages in order, each only if it is not done; returns what each has cost. Of several ranks the
    first one walks, and tells the others what to do.

    `values` is the configuration as plain values (`compose.plain`): what is hashed and saved. Raises Finr1Error for
    whatever the user can mend; an error inside a stage leaves its folder to be resumed.
    """
    stages = chosen(cfg.stage)
    run_dir = Path(cfg.paths.runs) / cfg.name
    key_of(stages[0], cfg, values, run_dir)  # what is missing is said before the run folder is touched
    with RunLock(run_dir):
        write_atomic(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(values))))
        run = _Run(cfg, values, run_dir, ranks)
        failed = True
        try:
            spent = {stage.name: run.stage(stage) for stage in stages}
            ranks.broadcast(None)
            failed = False
        finally:
            run.close(failed)
    return spent


class _Run:
    """What the stages of one process share: tracker and engines, made when the first stage needs them."""

    def __init__(self, cfg: RootConfig, values: Mapping[str, Any], run_dir: Path, ranks: Ranks) -> None:
        self.cfg, self.values, self.run_dir, self.ranks = cfg, values, run_dir, ranks
        self.engines = Engines(cfg.engine, self._built)
        self._tracker: Tracker | None = None
        self._together = False  # all ranks walk the stage that runs now

    def _built(self, role: str, engine: Engine) -> None:
        """Engines in process share torch's groups: all ranks build one, or none does."""
        if self.ranks.world > 1 and isinstance(engine, PolicyEngine) and not self._together:
            self.ranks.broadcast(Start(role))
            engine.start()

    @property
    def tracker(self) -> Tracker:
        if self._tracker is None:
            loggers = list(build_all(self.cfg.logger).values())
            for logger in loggers:
                logger.start(self.run_dir, self.cfg.name, self.values)
            self._tracker = Tracker(self.run_dir, loggers)
        return self._tracker

    def close(self, failed: bool) -> None:
        try:
            if self._tracker is not None:
                self._tracker.close(failed)
        finally:
            self.engines.close()

    def stage(self, stage: Stage) -> Spent:
        """Run one stage unless it is done; returns what all attempts at it have cost."""
        folder = self.run_dir / stage.folder
        key = key_of(stage, self.cfg, self.values, self.run_dir)
        state, changed = begin(folder, key)
        if state == "done":
            manifest = read_json(folder / MANIFEST)
            console.print(f"[dim]{stage.name:<10} done before ({manifest['seconds']:.1f} s)[/]", soft_wrap=True)
            return Spent(manifest["seconds"], manifest.get("memory_gib", 0.0))
        why = {"resume": "continues where it stopped", "fresh": f"again, as this changed: {changed}" if changed else ""}
        console.print(f"[bold]{stage.name:<10}[/] {why[state]}".rstrip(), soft_wrap=True)
        inputs = {name: read.folder for name, read in inputs_of(stage, self.cfg, self.run_dir).items()}
        self._together = self.ranks.world > 1 and stage.trains
        ranks = self.ranks if self._together else ALONE
        context = Context(self.cfg, self.run_dir, stage.name, folder, inputs, self.tracker, self.engines, ranks=ranks)
        if self._together:
            ranks.broadcast(Train(stage.name, read_json(folder / BEGUN)["began"]))
        with Clock(folder) as clock:
            counts = function_of(stage)(context)
            spent = clock.spent
        notes = {"notes": context.notes} if context.notes else {}
        finish(folder, key, {**counts, **notes}, spent, versions())
        console.print(f"[bold]{stage.name:<10}[/] {_short(counts)} [dim]({spent.seconds:.1f} s)[/]", soft_wrap=True)
        return spent


def _short(counts: Mapping[str, Any]) -> str:
    """The plain counts of a stage on one line."""
    return ", ".join(f"{name} {value:,}" for name, value in counts.items() if isinstance(value, int | float))


def follow(cfg: RootConfig, ranks: Ranks) -> None:
    """Do what the first rank says until the run is over. LostRank where it ends before."""
    console.quiet = True  # the first rank speaks
    run_dir = Path(cfg.paths.runs) / cfg.name
    engines = Engines(cfg.engine)
    try:
        while (word := ranks.broadcast(_nothing())) is not None:
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
    write_json(scratch / BEGUN, {"began": word.began})
    tracker = Tracker(scratch)
    try:
        function_of(stage)(Context(cfg, run_dir, stage.name, scratch, inputs, tracker, engines, ranks=ranks))
    finally:
        tracker.close()
