"""`dry_run=true`: build everything of a run but weights, tokenizer and data, and say where those would come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from finr1.cli.check import check_engine, check_judge, check_lengths, check_name, check_nodes, check_parts, check_seed
from finr1.core.build import build_all
from finr1.core.errors import ConfigError
from finr1.core.stage_folder import is_done
from finr1.run.fingerprints import outside_of, subtree
from finr1.run.inputs import is_hub_id
from finr1.run.stages import STAGES, Stage

if TYPE_CHECKING:
    from finr1.settings.root import RootConfig

_GROUPS = ("source", "benchmark", "reward", "judge.answer", "judge.reasoning", "logger")


def dry_run(cfg: RootConfig, values: Mapping[str, Any], stages: Sequence[Stage]) -> None:
    """Check every node, build sources, judges, rewards, benchmarks and the model's shape; ConfigError for a fault."""
    screen = Console(highlight=False, soft_wrap=True)
    names = [stage.name for stage in stages]
    check_name(cfg.name)
    check_seed(cfg.seed)
    check_parts(cfg, names)
    check_lengths(cfg, values, names)
    for key in ("trainer", "engine", *_GROUPS):
        check_nodes(subtree(values, key), key)
    for role in cfg.engine:
        check_engine(subtree(values, f"engine.{role}"), f"engine.{role}")
    check_judge(cfg, values, names)
    for key in _GROUPS:
        group: Any = cfg
        for part in key.split("."):
            group = getattr(group, part)
        if built := build_all(group):
            screen.print(f"{key}: {', '.join(built)}")
    for role, node in cfg.engine.items():
        screen.print(f"engine.{role}: {node['_target_']} (not started)")
    if cfg.trainer:
        fit = cfg.trainer["fit"]
        parts = [part["_target_"].rpartition(".")[2] for part in fit.get("plugins", ())]
        precision = fit.get("precision") or ", ".join(parts)
        screen.print(f"trainer: {fit.get('accelerator')}, {fit.get('devices')} device(s), {precision}")
    screen.print(
        f"model: {cfg.model.name} from {cfg.model.path}: {count_parameters(cfg):,} parameters, {cfg.model.adapter}"
    )
    for line in origins(cfg, names):
        screen.print(line)
    try:
        for stage in stages:
            outside_of(stage, cfg, values)
    except ConfigError as error:
        screen.print(f"a real run would stop: {error}")
    screen.print(f"stage={cfg.stage} of {Path(cfg.paths.runs) / cfg.name} composes and validates; nothing was loaded")


def count_parameters(cfg: RootConfig) -> int:
    """Parameters of the model's shape, built without memory; ConfigError where the shape is no model."""
    if not cfg.model.shape:
        raise ConfigError("model.shape", "{}", "dry_run needs the model's config.json as yaml", "add it to conf/model")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = dict(cfg.model.shape)
    try:
        config = AutoConfig.for_model(shape.pop("model_type"), **shape)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except (KeyError, ValueError, TypeError) as error:
        why = f"transformers cannot build it ({type(error).__name__}: {str(error).splitlines()[0][:100]})"
        raise ConfigError("model.shape", cfg.model.shape.get("model_type"), why, "mend the shape") from error
    return sum(parameter.numel() for parameter in model.parameters())


def origins(cfg: RootConfig, names: Sequence[str]) -> list[str]:
    """Where training rows and first weights come from, and whether they are there."""
    run_dir = Path(cfg.paths.runs) / cfg.name
    lines = []
    for stage in ("sft", "grpo"):
        if stage not in names:
            continue
        rows = getattr(cfg, stage).rows
        if stage == "sft" and cfg.sft.chats:
            lines.append(f"sft rows: chats of sft.rows={rows}, loss on {cfg.sft.turns} of the assistant's turns: there")
            continue
        folder = Path(rows) if rows else run_dir
        there = all(is_done(folder / STAGES[name].folder) for name in ("questions", "filter"))
        origin = f"{stage}.rows={rows}" if rows else f"this run ({folder})"
        lines.append(f"{stage} rows: from {origin}: {_state(there, not rows and 'filter' in names)}")
    if "sft" in names:
        lines.append(f"sft weights: from model.path={cfg.model.path}")
    if "grpo" in names:
        lines.append(f"grpo weights: from {_start(cfg, run_dir, names)}")
    return lines


def _start(cfg: RootConfig, run_dir: Path, names: Sequence[str]) -> str:
    start = cfg.grpo.init_from
    if not start:
        folder = run_dir / STAGES["sft"].folder
        return f"this run's SFT model ({folder / 'model'}): {_state(is_done(folder), 'sft' in names)}"
    there = Path(start).is_dir()
    return f"grpo.init_from={start}: {'a hub id' if is_hub_id(start) and not there else _state(there, False)}"


def _state(there: bool, made: bool) -> str:
    return "there" if there else "made on the way" if made else "NOT there yet"
