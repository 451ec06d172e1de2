"""The root of the configuration: values to tune are typed fields; parts to swap are `_target_` nodes.

Hydra composes `conf/` onto this schema: a mistyped key or a value of the wrong type is an error before anything loads.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from finr1.core.errors import ConfigError
from finr1.settings.bounds import Bounded, least, within
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
    """Folders and files."""

    runs: str = "runs"
    data: str = "data"  # the folder of the real data sets, one folder per source
    judge_cache: str | None = None  # SQLite file with the judge's replies, shared by all runs; null: no cache


@dataclass
class JudgeSettings(Bounded, key="judge"):
    """Judges of answers and of reasoning; each a cascade of `_target_` nodes in the given order."""

    answer: dict[str, Any] = field(default_factory=dict)
    reasoning: dict[str, Any] = field(default_factory=dict)
    stop_after_failed_calls: int = least(128, 0)  # consecutive failed calls of engine.judge end the stage; 0: never


@dataclass
class RootConfig(Bounded, key=""):
    """The whole configuration."""

    name: str = "quickstart"  # the run's folder is <paths.runs>/<name>
    stage: str = MISSING
    seed: int = within(0, 0, 2**32 - 1)  # NumPy takes 32 bits
    dry_run: bool = False  # build everything but weights and tokenizer, then stop
    paths: PathsSettings = field(default_factory=PathsSettings)
    source: dict[str, Any] = field(default_factory=dict)
    questions: QuestionsSettings = field(default_factory=QuestionsSettings)
    engine: dict[str, Any] = field(default_factory=dict)  # by role: teacher, judge, policy, or of evaluate.models
    prompt: PromptSettings = field(default_factory=PromptSettings)
    distil: DistilSettings = field(default_factory=DistilSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    filter: FilterSettings = field(default_factory=FilterSettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    trainer: dict[str, Any] = field(default_factory=dict)  # fit: keywords of pytorch_lightning.Trainer; optimizer
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name or self.name.startswith(".") or "/" in self.name or "\0" in self.name:
            why, remedy = "not the name of a folder", "use letters, digits, dashes and underscores"
            raise ConfigError("name", self.name, why, remedy)
