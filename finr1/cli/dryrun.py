"""`dry_run=true`: build a run except for its weights, tokenizer and data, and show where those would come from."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from rich.console import Console

from finr1.cli.check import check_judges, check_settings
from finr1.cli.compose import LISTS
from finr1.cli.nodes import check_engine, check_nodes
from finr1.core.build import build_all
from finr1.core.errors import ConfigError
from finr1.core.stage_folder import is_done
from finr1.run.fingerprints import outside_of, subtree
from finr1.run.inputs import is_hub_id
from finr1.run.stages import STAGES, TRAINING, Stage
from finr1.settings.root import RootConfig


def dry_run(cfg: RootConfig, values: Mapping[str, Any], stages: Sequence[Stage]) -> None:
    """Check every node; build sources, judges, rewards, benchmarks and the model's shape. ConfigError for a fault."""
    screen = Console(highlight=False, soft_wrap=True)
    names = [stage.name for stage in stages]
    check_settings(cfg, values, names)
    for key in ("trainer", "engine", *LISTS):
        check_nodes(subtree(values, key), key)
    for role in cfg.engine:
        check_engine(subtree(values, f"engine.{role}"), f"engine.{role}")
    check_judges(cfg, values, names)
    for key in LISTS:
        if parts := build_all(attrgetter(key)(cfg)):
            screen.print(f"{key}: {', '.join(parts)}")
    for role, node in cfg.engine.items():
        screen.print(f"engine.{role}: {node['_target_']} (not started)")
    if cfg.trainer:
        fit = cfg.trainer["fit"]
        plugins = [plugin["_target_"].rpartition(".")[2] for plugin in fit.get("plugins", ())]
        precision = fit.get("precision") or ", ".join(plugins)
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
    """Parameters of `model.shape`, built on torch's meta device; ConfigError if transformers cannot build it."""
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
        raise ConfigError("model.shape", cfg.model.shape.get("model_type"), why, "fix the shape") from error
    return sum(parameter.numel() for parameter in model.parameters())


def origins(cfg: RootConfig, names: Sequence[str]) -> list[str]:
    """Where training rows and initial weights come from, and whether they exist."""
    run_dir = Path(cfg.paths.runs) / cfg.name
    lines = []
    for stage in TRAINING:
        if stage not in names:
            continue
        rows = getattr(cfg, stage).rows
        if stage == "sft" and cfg.sft.chats:
            lines.append(f"sft rows: chats of sft.rows={rows}, loss on {cfg.sft.turns} of the assistant's turns: found")
            continue
        folder = Path(rows) if rows else run_dir
        done = all(is_done(folder / STAGES[name].folder) for name in ("questions", "filter"))
        origin = f"{stage}.rows={rows}" if rows else f"this run ({folder})"
        lines.append(f"{stage} rows: from {origin}: {_state(done, not rows and 'filter' in names)}")
    if "sft" in names:
        lines.append(f"sft weights: from model.path={cfg.model.path}")
    if "grpo" in names:
        lines.append(f"grpo weights: from {_initial_weights(cfg, run_dir, names)}")
    return lines


def _initial_weights(cfg: RootConfig, run_dir: Path, names: Sequence[str]) -> str:
    path = cfg.grpo.init_from
    if not path:
        folder = run_dir / STAGES["sft"].folder
        return f"this run's SFT model ({folder / 'model'}): {_state(is_done(folder), 'sft' in names)}"
    exists = Path(path).is_dir()
    return f"grpo.init_from={path}: {'a hub id' if is_hub_id(path) and not exists else _state(exists, False)}"


def _state(exists: bool, made: bool) -> str:
    return "found" if exists else "made by this run" if made else "MISSING"
