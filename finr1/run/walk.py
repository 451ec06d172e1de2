"""Walks the stages of a run; on several ranks, the first rank walks and the others follow its messages.

The first rank does what a run of one process does: it holds the lock, writes the run folder, and runs the stages that
do not train. The other ranks join the stages that train, and write to a temporary folder.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from omegaconf import OmegaConf

from finr1.core.build import build_all
from finr1.core.clock import Clock
from finr1.core.files import read_json, write_atomic
from finr1.core.lock import RunLock
from finr1.core.ranks import ALONE, Ranks
from finr1.core.stage_folder import MANIFEST, Spent, begin, check_rows_whole, finish, reopen
from finr1.core.tracking import Tracker
from finr1.parts.engine.base import Engine, PolicyEngine
from finr1.parts.engine.roles import Engines
from finr1.run.context import Context
from finr1.run.fingerprints import key_of, versions
from finr1.run.progress import console
from finr1.run.stages import STAGES, Stage, chosen, function_of, inputs_of
from finr1.settings.root import RootConfig


class Train(NamedTuple):
    """Message of the first rank: join this stage."""

    stage: str


class StartEngine(NamedTuple):
    """Message of the first rank: build this in-process engine too, since its process groups span all ranks."""

    role: str


Message = Train | StartEngine | None  # None: the run is over


def walk(cfg: RootConfig, values: Mapping[str, Any], ranks: Ranks = ALONE) -> dict[str, Spent]:
    """Run the chosen stages in order, skipping those that are done; returns the cost of each. For the first rank.

    `values` is the configuration as plain values (`compose.plain`), which is hashed and saved. Raises Finr1Error for
    what the user can fix; a stage that fails keeps its folder and is resumed by the next run.
    """
    stages = chosen(cfg.stage)
    run_dir = Path(cfg.paths.runs) / cfg.name
    key_of(stages[0], cfg, values, run_dir)  # raises for a missing input before the run folder is created
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
    """What the stages of a run share: the tracker and the engines, each created on first use."""

    def __init__(self, cfg: RootConfig, values: Mapping[str, Any], run_dir: Path, ranks: Ranks) -> None:
        self.cfg, self.values, self.run_dir, self.ranks = cfg, values, run_dir, ranks
        self.engines = Engines(cfg.engine, self._on_engine_built)
        self._tracker: Tracker | None = None
        self._on_all_ranks = False  # whether all ranks run the current stage

    def _on_engine_built(self, role: str, engine: Engine) -> None:
        """Let the other ranks build it too, unless they are in this stage and do so themselves."""
        if self.ranks.world > 1 and isinstance(engine, PolicyEngine) and not self._on_all_ranks:
            self.ranks.broadcast(StartEngine(role))
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
        """Run one stage unless it is done; returns the cost of all attempts at it."""
        folder = self.run_dir / stage.folder
        key = key_of(stage, self.cfg, self.values, self.run_dir)
        state, changed = begin(folder, key)
        retry = getattr(getattr(self.cfg, stage.name, None), "retry_failed", False)
        if state == "done" and retry and read_json(folder / MANIFEST)["counts"].get("failed"):
            reopen(folder)
            state = "resume"
        if state == "done":
            manifest = read_json(folder / MANIFEST)
            console.print(f"[dim]{stage.name:<10} done before ({manifest['seconds']:.1f} s)[/]", soft_wrap=True)
            return Spent(manifest["seconds"], manifest.get("memory_gib", 0.0))
        why = "resumes" if state == "resume" else f"runs again, changed: {changed}" if changed else ""
        console.print(f"[bold]{stage.name:<10}[/] {why}".rstrip(), soft_wrap=True)
        inputs = {name: entry.folder for name, entry in inputs_of(stage, self.cfg, self.run_dir).items()}
        for entry in inputs.values():
            check_rows_whole(entry)
        self._on_all_ranks = self.ranks.world > 1 and stage.trains
        ranks = self.ranks if self._on_all_ranks else ALONE
        context = Context(self.cfg, self.run_dir, stage.name, folder, inputs, self.tracker, self.engines, ranks=ranks)
        if self._on_all_ranks:
            ranks.broadcast(Train(stage.name))
        with Clock(folder) as clock:
            counts = function_of(stage)(context)
            spent = clock.spent
        notes = {"notes": context.notes} if context.notes else {}
        finish(folder, key, {**counts, **notes}, spent, versions())
        numbers = ", ".join(f"{name} {value:,}" for name, value in counts.items() if isinstance(value, int | float))
        console.print(f"[bold]{stage.name:<10}[/] {numbers} [dim]({spent.seconds:.1f} s)[/]", soft_wrap=True)
        return spent


def follow(cfg: RootConfig, ranks: Ranks) -> None:
    """Follow the messages of the first rank until the run is over. LostRank if it ends early."""
    console.quiet = True  # only the first rank prints
    run_dir = Path(cfg.paths.runs) / cfg.name
    engines = Engines(cfg.engine)
    try:
        while (message := ranks.broadcast(cast(Message, None))) is not None:
            if isinstance(message, StartEngine):
                engines.get(message.role).start()  # type: ignore[attr-defined]
            else:
                with tempfile.TemporaryDirectory(prefix="finr1-") as scratch:
                    _train(cfg, run_dir, message, Path(scratch), engines, ranks)
    finally:
        engines.close()


def _train(cfg: RootConfig, run_dir: Path, message: Train, scratch: Path, engines: Engines, ranks: Ranks) -> None:
    stage = STAGES[message.stage]
    inputs = {name: entry.folder for name, entry in inputs_of(stage, cfg, run_dir).items()}
    tracker = Tracker(scratch)
    try:
        shared = run_dir / stage.folder
        context = Context(cfg, run_dir, stage.name, scratch, inputs, tracker, engines, ranks=ranks, shared=shared)
        function_of(stage)(context)
    finally:
        tracker.close()
