"""The root of the configuration: every value one tunes has a type here; every part one swaps is a `_target_` node.

Hydra composes `conf/` onto this schema, so a mistyped key or a value of the wrong type ends before anything is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from finr1.settings.chat import ChatSettings
from finr1.settings.checkpoint import CheckpointSettings
from finr1.settings.distil import DistilSettings
from finr1.settings.evaluate import EvaluateSettings
from finr1.settings.export import ExportSettings
from finr1.settings.filter import FilterSettings
from finr1.settings.grpo import GrpoSettings
from finr1.settings.model import ModelSettings
from finr1.settings.prompt import PromptSettings
from finr1.settings.questions import QuestionsSettings
from finr1.settings.report import ReportSettings
from finr1.settings.serve import ServeSettings
from finr1.settings.sft import SftSettings


@dataclass
class PathsSettings:
    """Where things are."""

    runs: str = "runs"
    data: str = "data"  # the folder of real data sets, one folder a source
    judge_cache: str | None = None  # the judge's answers, for every run that asks it the same; null: not kept


@dataclass
class JudgeSettings:
    """Judges by what they judge; each a cascade of `_target_` nodes in the order given."""

    answer: dict[str, Any] = field(default_factory=dict)
    reasoning: dict[str, Any] = field(default_factory=dict)
    stop_after_failed_calls: int = 128  # end the stage when so many calls of engine.judge in a row failed; 0: never


@dataclass
class RootConfig:
    """The whole configuration."""

    name: str = "quickstart"  # of the run: its folder is <paths.runs>/<name>
    stage: str = MISSING
    seed: int = 0
    dry_run: bool = False  # build everything but weights and tokenizer, then stop
    paths: PathsSettings = field(default_factory=PathsSettings)
    source: dict[str, Any] = field(default_factory=dict)
    questions: QuestionsSettings = field(default_factory=QuestionsSettings)
    engine: dict[str, Any] = field(default_factory=dict)  # by role: teacher, judge, policy
    prompt: PromptSettings = field(default_factory=PromptSettings)
    distil: DistilSettings = field(default_factory=DistilSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    filter: FilterSettings = field(default_factory=FilterSettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    trainer: dict[str, Any] = field(default_factory=dict)  # keywords of pytorch_lightning.Trainer, and the optimiser
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)  # of SFT and GRPO
    sft: SftSettings = field(default_factory=SftSettings)
    reward: dict[str, Any] = field(default_factory=dict)
    grpo: GrpoSettings = field(default_factory=GrpoSettings)
    benchmark: dict[str, Any] = field(default_factory=dict)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    report: ReportSettings = field(default_factory=ReportSettings)
    serve: ServeSettings = field(default_factory=ServeSettings)
    chat: ChatSettings = field(default_factory=ChatSettings)
    logger: dict[str, Any] = field(default_factory=dict)
