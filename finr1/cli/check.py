"""What can be said about a configuration before anything heavy starts: `_target_` nodes against the constructors'
signatures, and settings that cannot go together. Every fault is a ConfigError, one line."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finr1.cli import launch
from finr1.cli.peer_words import hint
from finr1.core import ranks
from finr1.core.build import build, build_all
from finr1.core.errors import ConfigError
from finr1.parts.engine.roles import in_process
from finr1.run.fingerprints import outside_of, settings_of, subtree
from finr1.run.stages import TRAINING, Stage

if TYPE_CHECKING:
    from finr1.settings.root import RootConfig

ROLES = ("teacher", "judge", "policy")
GROUPS = ("source", "benchmark", "reward", "engine", "logger", "judge.answer", "judge.reasoning")  # hold nodes by name
_RESERVED = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")


def close_match(word: str, known: Iterable[str]) -> str:
    """`did you mean x?`, or the names there are; empty when there are none."""
    names = sorted(known)
    if near := difflib.get_close_matches(word.lower(), names, 1, 0.55):
        return f"did you mean {near[0]}?"
    return f"use one of {', '.join(names)}" if names else ""


def check(cfg: RootConfig, values: Mapping[str, Any], stages: Sequence[Stage]) -> None:
    """Check what these stages will use. Raises ConfigError for the first fault."""
    names = [stage.name for stage in stages]
    check_name(cfg.name)
    check_seed(cfg.seed)
    check_parts(cfg, names)
    check_lengths(cfg, values, names)
    check_model(cfg, names)
    check_sampling(cfg, names)
    for stage in stages:
        outside_of(stage, cfg, values)
    check_ranks(cfg, names)
    check_judge(cfg, values, names)
    for key in dict.fromkeys(key for stage in stages for key in settings_of(stage, cfg)):
        check_nodes(subtree(values, key), key)
        check_engine(subtree(values, key), key)
    check_nodes(values.get("logger"), "logger")
    if "questions" in names:
        build_all(cfg.source)  # a source says at once what its settings lack; it reads nothing yet
    if "evaluate" in names:
        build_all(cfg.benchmark)


def check_seed(seed: int) -> None:
    """NumPy takes 32 bits."""
    if not 0 <= seed < 2**32:
        raise ConfigError("seed", seed, "not within 0 and 2^32 - 1", "give such a number")


def check_name(name: str) -> None:
    """A run's name is the name of one folder."""
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise ConfigError("name", name, "not the name of a folder", "use letters, digits, dashes and underscores")


def check_keys(values: Any, schema: type, prefix: str = "") -> None:
    """Refuse keys that the schema lacks: a `+key=value` adds them without Hydra's complaint."""
    types = typing.get_type_hints(schema)
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in types:
            groups = () if prefix else ("experiment",)
            remedy = hint(key) or close_match(name, (*types, *groups)).replace("mean ", f"mean {prefix}")
            raise ConfigError(key, value, "no such setting", remedy)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(types[name]):
            check_keys(value, typing.cast(type, types[name]), f"{key}.")
    scored = subtree(values, "evaluate.models") or () if not prefix else ()
    for role in values.get("engine", {}) if not prefix else ():
        if role not in (*ROLES, *scored):
            raise ConfigError(f"engine.{role}", "{…}", "no such role of an engine", close_match(role, ROLES))


def check_nodes(node: Any, key: str) -> None:
    """Check every `_target_` node below this one; a node of a plug-in group without a `_target_` is a fault too."""
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        check_node(node, key)
    elif key.rpartition(".")[0] in GROUPS:
        raise ConfigError(key, "{…}", "values for a part that was not chosen", f"choose it, or drop them: '~{key}'")
    for name, child in node.items():
        check_nodes(child, f"{key}.{name}")


def check_node(node: Mapping[str, Any], key: str) -> None:
    """Check one node's keywords against the signature of its target."""
    target = node["_target_"]
    function = resolve_target(target, f"{key}._target_")
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # built in C: its signature cannot be read
        return
    given = [name for name in node if name not in _RESERVED]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        known = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        for name in given:
            if name not in known:
                remedy = close_match(name, known) or "drop it"
                raise ConfigError(f"{key}.{name}", node[name], f"{target} has no such setting", remedy)
    if not node.get("_partial_"):
        for name, p in parameters.items():
            needed = p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            if needed and name not in given:
                raise ConfigError(f"{key}.{name}", None, f"{target} needs it", f"set {key}.{name}=<value>")


def check_engine(node: Any, key: str) -> None:
    """Ask an engine's class whether its settings can work (`check_settings`), before anything is started."""
    if key.startswith("engine.") and isinstance(node, Mapping):
        check_settings = getattr(resolve_target(node.get("_target_"), f"{key}._target_"), "check_settings", None)
        if check_settings:
            check_settings(node, key)


def signature_words(target: str) -> list[str]:
    """The keywords that a target takes; empty where its signature cannot be read."""
    try:
        return list(inspect.signature(resolve_target(target, "_target_")).parameters)
    except (TypeError, ValueError):
        return []


def resolve_target(target: object, key: str) -> Callable[..., Any]:
    """The object at a dotted path; ConfigError where there is none."""
    if not isinstance(target, str) or "." not in target:
        raise ConfigError(key, target, "not a dotted path", "give <module>.<name>")
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise ConfigError(key, target, f"cannot be imported ({error})", "mend the path, or install it") from error
    if not callable(found):
        known = [n for n, v in vars(importlib.import_module(module)).items() if inspect.isclass(v)]
        raise ConfigError(key, target, f"{module} has no {name}", close_match(name, known) or "mend the path")
    return found  # type: ignore[no-any-return]


def check_parts(cfg: RootConfig, names: Sequence[str]) -> None:
    """Every stage needs some parts to be chosen."""
    needs: dict[str, tuple[tuple[str, Any, str], ...]] = {
        "questions": (("source", cfg.source, "source=[worked]"),),
        "distil": (("engine.teacher", cfg.engine.get("teacher"), "engine@engine.teacher=worked"),),
        "filter": (("judge.answer", cfg.judge.answer, "judge@judge.answer=[exact]"),),
        "sft": (("trainer", cfg.trainer, "trainer=cpu"),),
        "grpo": (
            ("trainer", cfg.trainer, "trainer=cpu"),
            ("reward", cfg.reward, "reward=[format,accuracy]"),
            ("engine.policy", cfg.engine.get("policy"), "engine@engine.policy=vllm"),
        ),
        "evaluate": (
            ("benchmark", cfg.benchmark, "benchmark=[worked]"),
            ("engine.policy", cfg.engine.get("policy"), "engine@engine.policy=vllm"),
        ),
    }
    for stage in names:
        for key, value, example in needs.get(stage, ()):
            if not value:
                raise ConfigError(key, "[]", f"stage {stage} needs one", f"choose, as in {example}")
    if "filter" in names and cfg.filter.reasoning and not cfg.judge.reasoning:
        remedy = "choose judge@judge.reasoning=[reasoning_rules], or filter.reasoning=false"
        raise ConfigError("filter.reasoning", True, "no reasoning judge is chosen", remedy)
    for stage in TRAINING if "questions" in names and not cfg.questions.decontaminate else ():
        if stage in names and not getattr(cfg, stage).rows and not getattr(cfg, stage).allow_unchecked:
            remedy = f"leave it true, or say {stage}.allow_unchecked=true"
            raise ConfigError("questions.decontaminate", "false", f"stage {stage} refuses unchecked rows", remedy)
    for name in cfg.grpo.workers.rewards if "grpo" in names else ():
        if name not in cfg.reward:
            why = "no such reward is chosen"
            raise ConfigError("grpo.workers.rewards", name, why, close_match(name, cfg.reward))
    for part in ("fit", "optimizer") if set(names) & set(TRAINING) else ():
        if "_target_" not in (cfg.trainer.get(part) or {}):
            raise ConfigError(f"trainer.{part}", None, "training needs it", "choose trainer=cpu, gpu1 or gpu8")


def check_lengths(cfg: RootConfig, values: Mapping[str, Any], names: Sequence[str]) -> None:
    """A completion must leave the context some room for its prompt."""
    limit = cfg.model.max_model_len
    samplings = {"grpo.sampling": ("grpo", cfg.grpo.sampling), "evaluate.sampling": ("evaluate", cfg.evaluate.sampling)}
    if in_process(cfg.engine.get("teacher")):
        samplings["distil.sampling"] = ("distil", cfg.distil.sampling)
    for key, (stage, sampling) in samplings.items():
        if stage in names and sampling.max_new_tokens >= limit:
            why = f"with model.max_model_len={limit} it leaves no room for a prompt"
            raise ConfigError(f"{key}.max_new_tokens", sampling.max_new_tokens, why, "lower it, or raise max_model_len")


def check_model(cfg: RootConfig, names: Sequence[str]) -> None:
    """A path that can only be a folder must be one; whether the hub has an id is seen when it is asked."""
    path = cfg.model.path
    needed = {"sft", "evaluate"} & set(names) or ("grpo" in names and not cfg.grpo.init_from)
    if needed and not cfg.dry_run and path.startswith(("/", ".", "~")) and not Path(path).expanduser().is_dir():
        raise ConfigError("model.path", path, "no such folder", "give a model folder, or a hub id")


def check_sampling(cfg: RootConfig, names: Sequence[str]) -> None:
    """GRPO's log-probabilities are those of the whole distribution, without a penalty (as `GrpoSettings` has it)."""
    penalty = cfg.grpo.sampling.repetition_penalty
    if "grpo" in names and penalty != 1:
        why = "the policy gradient would be biased: log-probs are of the whole distribution"
        raise ConfigError("grpo.sampling.repetition_penalty", penalty, why, "use 1")


def check_judge(cfg: RootConfig, values: Mapping[str, Any], names: Sequence[str]) -> None:
    """What asks a model needs one: an engine of role `judge`, and for rewards one whose weights stay as they are."""
    reasoning = {"judge.reasoning": cfg.judge.reasoning} if cfg.filter.reasoning else {}
    groups = {"filter": {"judge.answer": cfg.judge.answer, **reasoning}, "grpo": {"reward": cfg.reward}}
    if cfg.evaluate.scorer != "rules":
        groups["evaluate"] = {"judge.answer": cfg.judge.answer}
    if "evaluate" in names and "evaluate" in groups and not any(map(_asks, cfg.judge.answer.values())):
        why = f"of judge.answer=[{','.join(cfg.judge.answer)}] none asks a model"
        raise ConfigError("evaluate.scorer", cfg.evaluate.scorer, why, "choose judge@judge.answer=[answer_llm]")
    node = cfg.engine.get("judge")
    for stage, group in groups.items():
        parts = {f"{key}.{name}": part for key, nodes in group.items() for name, part in nodes.items()}
        for key, part in parts.items() if stage in names else ():
            check_nodes(subtree(values, key), key)
            if not _asks(part, key):
                continue
            build(part)  # light, and says what its settings lack
            if not node:
                remedy = "choose one, as in engine@engine.judge=http engine.judge.model=<its name there>"
                raise ConfigError("engine.judge", "null", f"{key} asks a model", remedy)
            if stage == "grpo" and in_process(node):
                why = f"{key} would ask the engine whose weights are trained"
                raise ConfigError("engine.judge", "vllm", why, "serve the judge, and choose engine@engine.judge=http")


def _asks(part: Mapping[str, Any], key: str = "judge.answer") -> bool:
    """Whether a node is of a class that asks a model."""
    return hasattr(resolve_target(part.get("_target_"), f"{key}._target_"), "ask_through")


def check_strategy(fit: Mapping[str, Any], adapter: str) -> None:
    """Weights are copied to every rank or divided over all; only whole ones without autocast can be divided."""
    strategy = fit.get("strategy", "auto")
    if strategy not in ("auto", "ddp", "fsdp"):
        remedy = "use ddp (a copy on each rank), fsdp (pieces) or auto"
        raise ConfigError("trainer.fit.strategy", strategy, "no such way to hold the weights", remedy)
    if not ranks.sharded(fit, adapter == "full"):
        return
    if adapter != "full":
        why = f"with model.adapter={adapter} the weights below the adapters are not divided"
        raise ConfigError("trainer.fit.strategy", strategy, why, "use ddp")
    if not ranks.plain(fit):
        why = "autocast would keep a copy of all weights on every rank"
        remedy = "use 32-true, with trainer.fit.plugins as in conf/trainer/gpu8.yaml for bf16"
        raise ConfigError("trainer.fit.precision", fit["precision"], why, remedy)


def check_ranks(cfg: RootConfig, names: Sequence[str]) -> None:
    """Several ranks only to train, all of them started, each with something to do; a GPU trainer only on GPUs."""
    fit = cfg.trainer.get("fit") or {}
    started = ranks.world()
    if not set(names) & set(TRAINING):
        if started > 1:
            why = f"stage={cfg.stage} does not train, and nothing else is divided over ranks"
            raise ConfigError("WORLD_SIZE", started, why, "start one process")
        return
    here, nodes = launch.per_machine(fit), int(fit.get("num_nodes", 1))
    wanted = here * nodes
    if fit.get("accelerator") in ("gpu", "cuda"):
        found = launch.gpus()
        if not found:
            raise ConfigError("trainer.fit.accelerator", fit["accelerator"], "no GPU is found here", "use trainer=cpu")
        if here > found:
            raise ConfigError("trainer.fit.devices", here, f"{found} GPUs are found here", "ask for so many")
    if nodes > 1 and started == 1:
        why = "the ranks of other machines are started there"
        raise ConfigError("trainer.fit.num_nodes", nodes, why, "start the command with torchrun on each (README)")
    if started not in (1, wanted):
        why = f"trainer.fit asks for {here} devices on {nodes} machines"
        raise ConfigError("WORLD_SIZE", started, why, f"start {wanted} ranks, or change devices and num_nodes")
    if wanted == 1:
        return
    check_strategy(fit, cfg.model.adapter)
    for stage, key in (("sft", "rows_per_step"), ("grpo", "questions_per_step")):
        share = getattr(getattr(cfg, stage), key)
        if stage in names and share < wanted:
            why = f"fewer than the {wanted} ranks that divide them: some would never have any"
            raise ConfigError(f"{stage}.{key}", share, why, f"use {wanted} or more, or fewer trainer.fit.devices")
    spans = (cfg.engine.get("policy") or {}).get("tensor_parallel_size", 1)
    if "grpo" in names and spans != 1:
        why = f"each of {wanted} ranks has an engine of its own, on its own GPU"
        raise ConfigError("engine.policy.tensor_parallel_size", spans, why, "use 1")
