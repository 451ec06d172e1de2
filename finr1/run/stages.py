"""The table of stages: what each does, what it reads, which settings its result depends on, and its function."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from finr1.core.errors import ConfigError
from finr1.run import inputs as hooks
from finr1.run.context import Context
from finr1.run.inputs import Input
from finr1.settings.root import RootConfig


class Stage(NamedTuple):
    """One stage of a run. Its fingerprint covers settings, inputs, and all code that `run` and its parts import."""

    name: str
    folder: str
    run: str  # dotted path of `run(context) -> counts`
    settings: tuple[str, ...]  # dotted config keys that the result depends on
    reads: tuple[str, ...] = ()  # names of stages
    inputs: hooks.Inputs = lambda own, cfg: own  # narrows or replaces the folders of `reads`
    outside: hooks.Outside = lambda cfg: {}  # weights from outside the run
    more_settings: hooks.MoreSettings = lambda cfg: ()  # further keys, depending on the configuration
    trains: bool = False  # runs on all ranks, on rows checked against the run's benchmarks
    needs_input: bool = False  # fails if `inputs` is empty
    does: str = ""  # for --help


class Command(NamedTuple):
    """`stage=<name>` of something that is not a stage: it writes nothing into the run."""

    run: str  # dotted path of `run(cfg)`
    does: str  # for --help


STAGES: Mapping[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            name="questions",
            folder="1_questions",
            run="finr1.data.questions.run.run",
            settings=("source", "benchmark", "questions", "seed"),
            does="read, normalize, deduplicate, decontaminate",
        ),
        Stage(
            name="distil",
            folder="2_traces",
            run="finr1.data.distil.run.run",
            settings=("engine.teacher", "distil", "prompt", "seed"),
            reads=("questions",),
            does="generate a reasoning trace per question with the teacher",
        ),
        Stage(
            name="filter",
            folder="3_filtered",
            run="finr1.data.filter.run.run",
            settings=("judge", "engine.judge", "filter"),
            reads=("questions", "distil"),
            does="judge the traces: good, bad, undecided",
        ),
        Stage(
            name="export",
            folder="export",
            run="finr1.data.export.run.run",
            settings=("export",),
            reads=("questions", "distil", "filter"),
            does="write the good traces as a Hugging Face data set with its card",
        ),
        Stage(
            name="sft",
            folder="4_sft",
            run="finr1.training.sft.run.run",
            settings=("model", "trainer", "prompt", "sft", "seed"),
            reads=("questions", "filter"),
            inputs=hooks.sft_inputs,
            trains=True,
            does="fine-tune on the good traces",
        ),
        Stage(
            name="grpo",
            folder="5_grpo",
            run="finr1.training.grpo.run.run",
            settings=("model", "trainer", "engine.policy", "engine.judge", "reward", "prompt", "grpo", "seed"),
            reads=("questions", "filter", "sft"),
            inputs=hooks.grpo_inputs,
            outside=hooks.grpo_weights,
            trains=True,
            does="reinforce on the questions of bad traces",
        ),
        Stage(
            name="evaluate",
            folder="6_scores",
            run="finr1.evaluation.evaluate.run.run",
            settings=("model", "engine.policy", "benchmark", "prompt", "evaluate", "seed"),
            reads=("sft", "grpo"),
            inputs=hooks.evaluate_inputs,
            outside=hooks.evaluated_folders,
            more_settings=hooks.evaluate_engines,
            does="score base, SFT and GRPO models on held-out questions",
        ),
        Stage(
            name="report",
            folder="7_report",
            run="finr1.evaluation.report.run.run",
            settings=("report",),
            reads=("questions", "distil", "filter", "sft", "grpo", "evaluate"),
            inputs=hooks.finished,
            needs_input=True,
            does="write one HTML file and summary.json",
        ),
    )
}


PIPELINE = "pipeline"
WALKS: Mapping[str, tuple[str, ...]] = {  # stage=<name> runs these in order
    PIPELINE: ("questions", "distil", "filter", "sft", "grpo", "evaluate", "report"),
    "data": ("questions", "distil", "filter", "export", "report"),
}
COMMANDS: Mapping[str, Command] = {
    "serve": Command("finr1.cli.serve.run", "serve a model of the run through vLLM's OpenAI-compatible server"),
    "chat": Command("finr1.cli.chat.run", "chat with a server in the terminal; shows reasoning and answer separately"),
}
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
    """The folders that a stage reads, by the stage that wrote them; "chats" for SFT on chats from outside a run."""
    return stage.inputs({name: Input(run_dir / STAGES[name].folder) for name in stage.reads}, cfg)


def function_of(stage: Stage) -> Callable[[Context], dict[str, Any]]:
    """The stage's `run`, imported late: training stages import torch."""
    return _import(stage.run)  # type: ignore[no-any-return]


def command_of(name: str) -> Callable[[RootConfig], None]:
    """A command's `run`, imported late."""
    return _import(COMMANDS[name].run)  # type: ignore[no-any-return]


def _import(dotted: str) -> Any:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)
