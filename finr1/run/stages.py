"""The table of stages: what each reads, which settings decide its result, and the function that runs it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finr1.core.errors import ConfigError
from finr1.run import inputs as hooks
from finr1.run.inputs import Input

if TYPE_CHECKING:
    from finr1.run.context import Context
    from finr1.settings.root import RootConfig


class Stage(NamedTuple):
    """One stage of a run. Its code version is everything that `run` and the parts in its settings import."""

    name: str
    folder: str
    run: str  # dotted path of `run(context) -> counts`
    settings: tuple[str, ...]  # dotted config keys that decide the result
    reads: tuple[str, ...] = ()  # names of stages
    inputs: hooks.Inputs = hooks.of_this_run  # which folders are read under these settings
    outside: hooks.Outside = hooks.nothing  # weights from outside the run
    more_settings: hooks.MoreSettings = hooks.no_more  # config keys that decide the result under these settings
    trains: bool = False  # walked by all ranks, on rows checked against the run's benchmarks
    needs_input: bool = False  # shows whatever is there, but something must be


STAGES: Mapping[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            name="questions",
            folder="1_questions",
            run="finr1.data.questions.run.run",
            settings=("source", "benchmark", "questions", "seed"),
        ),
        Stage(
            name="distil",
            folder="2_traces",
            run="finr1.data.distil.run.run",
            settings=("engine.teacher", "distil", "prompt", "seed"),
            reads=("questions",),
        ),
        Stage(
            name="filter",
            folder="3_filtered",
            run="finr1.data.filter.run.run",
            settings=("judge", "engine.judge", "filter"),
            reads=("questions", "distil"),
        ),
        Stage(
            name="export",
            folder="export",
            run="finr1.data.export.run.run",
            settings=("export",),
            reads=("questions", "distil", "filter"),
        ),
        Stage(
            name="sft",
            folder="4_sft",
            run="finr1.training.sft.run.run",
            settings=("model", "trainer", "prompt", "sft", "seed"),
            reads=("questions", "filter"),
            inputs=hooks.of_sft,
            trains=True,
        ),
        Stage(
            name="grpo",
            folder="5_grpo",
            run="finr1.training.grpo.run.run",
            settings=("model", "trainer", "engine.policy", "engine.judge", "reward", "prompt", "grpo", "seed"),
            reads=("questions", "filter", "sft"),
            inputs=hooks.of_grpo,
            outside=hooks.first_weights,
            trains=True,
        ),
        Stage(
            name="evaluate",
            folder="6_scores",
            run="finr1.evaluation.evaluate.run.run",
            settings=("model", "engine.policy", "benchmark", "prompt", "evaluate", "seed"),
            reads=("sft", "grpo"),
            inputs=hooks.of_evaluate,
            outside=hooks.model_folders,
            more_settings=hooks.engines_and_judge,
        ),
        Stage(
            name="report",
            folder="7_report",
            run="finr1.evaluation.report.run.run",
            settings=("report",),
            reads=("questions", "distil", "filter", "sft", "grpo", "evaluate"),
            inputs=hooks.of_report,
            needs_input=True,
        ),
    )
}


PIPELINE = "pipeline"
WALKS: Mapping[str, tuple[str, ...]] = {  # stage=<name> walks these in order
    PIPELINE: ("questions", "distil", "filter", "sft", "grpo", "evaluate", "report"),
    "data": ("questions", "distil", "filter", "export", "report"),
}
COMMANDS = {"serve": "finr1.cli.serve.run", "chat": "finr1.cli.chat.run"}  # not stages: they write nothing
TRAINING = tuple(stage.name for stage in STAGES.values() if stage.trains)


def chosen(stage: str) -> tuple[Stage, ...]:
    """The stages that `stage=<name>` runs, none for a command; ConfigError for an unknown name."""
    if stage in WALKS:
        return tuple(STAGES[name] for name in WALKS[stage])
    if stage in COMMANDS:
        return ()
    if stage not in STAGES:
        raise ConfigError("stage", stage, "no such stage", f"use one of {', '.join((*WALKS, *STAGES, *COMMANDS))}")
    return (STAGES[stage],)


def inputs_of(stage: Stage, cfg: RootConfig, run_dir: Path) -> dict[str, Input]:
    """What this stage reads under these settings, by the name of the stage that wrote it (SFT's `chats`: anyone)."""
    return stage.inputs({name: Input(run_dir / STAGES[name].folder) for name in stage.reads}, cfg)


def function_of(stage: Stage) -> Callable[[Context], dict[str, Any]]:
    """The stage's `run`, imported only now: training stages import torch."""
    return _at(stage.run)  # type: ignore[no-any-return]


def command_of(name: str) -> Callable[[RootConfig], None]:
    """The function of a command."""
    return _at(COMMANDS[name])  # type: ignore[no-any-return]


def _at(dotted: str) -> Any:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)
