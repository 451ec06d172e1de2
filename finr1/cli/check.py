"""Checks that a run can work, before anything heavy starts: each fault is a ConfigError, one line.

`NEEDS` lists the parts that each stage needs, `RULES` the settings that cannot go together.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finr1.cli.launch import check_ranks
from finr1.cli.nodes import check_engine, check_nodes, close_match, resolve_target
from finr1.core.build import build, build_all
from finr1.core.errors import ConfigError
from finr1.parts.engine.roles import in_process
from finr1.run.fingerprints import outside_of, settings_of, subtree
from finr1.run.stages import TRAINING, Stage
from finr1.settings.root import RootConfig

NEEDS = (  # stage, part, how to choose one
    ("questions", "source", "source=[worked]"),
    ("distil", "engine.teacher", "engine@engine.teacher=worked"),
    ("filter", "judge.answer", "judge@judge.answer=[exact]"),
    *((stage, f"trainer.{part}._target_", "trainer=cpu") for stage in TRAINING for part in ("fit", "optimizer")),
    ("grpo", "reward", "reward=[format,accuracy]"),
    ("grpo", "engine.policy", "engine@engine.policy=vllm"),
    ("evaluate", "benchmark", "benchmark=[worked]"),
    ("evaluate", "engine.policy", "engine@engine.policy=vllm"),
)


class Rule(NamedTuple):
    """A setting that cannot work when `broken`; `why` and `remedy` may name other settings as {cfg.…}."""

    stage: str
    key: str
    broken: Callable[[RootConfig], bool]
    why: str
    remedy: str


def _no_room(stage: str) -> Rule:
    def broken(cfg: RootConfig) -> bool:
        ours = stage != "distil" or in_process(cfg.engine.get("teacher"))  # a server has a limit of its own
        return ours and getattr(cfg, stage).sampling.max_new_tokens >= cfg.model.max_model_len

    why = "with model.max_model_len={cfg.model.max_model_len} it leaves no room for a prompt"
    return Rule(stage, f"{stage}.sampling.max_new_tokens", broken, why, "lower it, or raise max_model_len")


def _unchecked(stage: str) -> Rule:
    def broken(cfg: RootConfig) -> bool:
        settings = getattr(cfg, stage)
        return not (cfg.questions.decontaminate or settings.rows or settings.allow_unchecked)

    remedy = f"leave it true, or set {stage}.allow_unchecked=true"
    return Rule(stage, "questions.decontaminate", broken, f"stage {stage} refuses unchecked rows", remedy)


RULES = (
    Rule(
        "filter",
        "filter.reasoning",
        lambda cfg: cfg.filter.reasoning and not cfg.judge.reasoning,
        "no reasoning judge is chosen",
        "choose judge@judge.reasoning=[reasoning_rules], or filter.reasoning=false",
    ),
    Rule(
        "grpo",
        "grpo.sampling.repetition_penalty",
        lambda cfg: cfg.grpo.sampling.repetition_penalty != 1,
        "the policy gradient would be biased: log-probs are of the whole distribution",
        "use 1",
    ),
    *map(_no_room, ("grpo", "evaluate", "distil")),
)


def check(cfg: RootConfig, values: Mapping[str, Any], stages: Sequence[Stage]) -> None:
    """Check what these stages will use. Raises ConfigError for the first fault."""
    names = [stage.name for stage in stages]
    check_settings(cfg, values, names)
    check_model_folder(cfg, names)
    for stage in stages:
        outside_of(stage, cfg, values)
    check_ranks(cfg, names)
    check_judges(cfg, values, names)
    for key in dict.fromkeys(key for stage in stages for key in settings_of(stage, cfg)):
        check_nodes(subtree(values, key), key)
        check_engine(subtree(values, key), key)
    check_nodes(values.get("logger"), "logger")
    if "questions" in names:
        build_all(cfg.source)  # a source checks its settings when it is built, and reads nothing yet
    if "evaluate" in names:
        build_all(cfg.benchmark)


def check_settings(cfg: RootConfig, values: Mapping[str, Any], names: Sequence[str]) -> None:
    """Check `NEEDS` and `RULES` for these stages."""
    for stage, key, example in NEEDS:
        if stage in names and not subtree(values, key):
            raise ConfigError(key, "[]", f"stage {stage} needs one", f"choose, as in {example}")
    unchecked = [_unchecked(stage) for stage in TRAINING] if "questions" in names else []
    for rule in (*RULES, *unchecked):
        if rule.stage in names and rule.broken(cfg):
            value = subtree(values, rule.key)
            shown = str(value).lower() if isinstance(value, bool) else value
            raise ConfigError(rule.key, shown, rule.why.format(cfg=cfg), rule.remedy)
    for name in cfg.grpo.workers.rewards if "grpo" in names else ():
        if name not in cfg.reward:
            remedy = close_match(name, cfg.reward)
            raise ConfigError("grpo.workers.rewards", name, "no such reward is chosen", remedy)


def check_model_folder(cfg: RootConfig, names: Sequence[str]) -> None:
    """A path that can only be a folder must exist; a hub id is checked when the hub is asked."""
    path = cfg.model.path
    needed = {"sft", "evaluate"} & set(names) or ("grpo" in names and not cfg.grpo.init_from)
    if needed and path.startswith(("/", ".", "~")) and not Path(path).expanduser().is_dir():
        raise ConfigError("model.path", path, "no such folder", "give a model folder, or a hub id")


def check_judges(cfg: RootConfig, values: Mapping[str, Any], names: Sequence[str]) -> None:
    """Parts that ask a model need an engine of role `judge`; in GRPO it must not be the engine that is trained."""
    if "evaluate" in names and cfg.evaluate.scorer != "rules" and not any(map(_asks_model, cfg.judge.answer.values())):
        why = f"of judge.answer=[{','.join(cfg.judge.answer)}] none asks a model"
        raise ConfigError("evaluate.scorer", cfg.evaluate.scorer, why, "choose judge@judge.answer=[answer_llm]")
    engine = cfg.engine.get("judge")
    for stage, group in _judging_groups(cfg):
        for name, part in (subtree(values, group) or {}).items() if stage in names else ():
            key = f"{group}.{name}"
            check_nodes(part, key)
            if not _asks_model(part, key):
                continue
            build(part)  # cheap; raises for settings that cannot work
            if not engine:
                remedy = "choose one, as in engine@engine.judge=http engine.judge.model=<its name there>"
                raise ConfigError("engine.judge", "null", f"{key} asks a model", remedy)
            if stage == "grpo" and in_process(engine):
                why = f"{key} would ask the engine whose weights are trained"
                raise ConfigError("engine.judge", "vllm", why, "serve the judge, and choose engine@engine.judge=http")


def _judging_groups(cfg: RootConfig) -> Iterator[tuple[str, str]]:
    """Stages with the groups whose parts judge in them."""
    yield "filter", "judge.answer"
    if cfg.filter.reasoning:
        yield "filter", "judge.reasoning"
    yield "grpo", "reward"
    if cfg.evaluate.scorer != "rules":
        yield "evaluate", "judge.answer"


def _asks_model(part: Mapping[str, Any], key: str = "judge.answer") -> bool:
    return hasattr(resolve_target(part.get("_target_"), f"{key}._target_"), "ask_through")
