"""Composes `conf/` and overrides into a `RootConfig`, and into plain values to save and hash."""

import functools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf, open_dict

import finr1
from finr1.core.cpu import has_bf16
from finr1.core.errors import ConfigError
from finr1.settings.root import RootConfig

_PACKAGE = Path(finr1.__file__).parent

CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
LISTS = ("source", "benchmark", "reward", "judge.answer", "judge.reasoning", "logger")  # groups chosen by a list
_SECRET = re.compile(r"(^|_)(api_?key|token|secret|password)$", re.IGNORECASE)


@functools.cache  # building the schema takes a sixth of a composition
def register() -> None:
    """Register the schema `root_schema` that conf/config.yaml names and the resolver `cpu_bf16`, once per process."""
    ConfigStore.instance().store(name="root_schema", node=RootConfig)
    OmegaConf.register_new_resolver("cpu_bf16", lambda native, other: native if has_bf16() else other, replace=True)


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration that `python -m finr1 <overrides>` runs; raises Hydra's errors."""
    register()
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        complete = with_default(overrides)
        return without_leftovers(hydra_compose("config", complete), complete)


def with_default(overrides: Sequence[str]) -> list[str]:
    """The overrides with `+experiment=quickstart` before them if they choose no experiment.

    `+` is added to `experiment=`, and dropped from `+engine@engine.judge=`, for which conf/config.yaml has a default.
    """
    complete = [f"+{override}" if override.startswith("experiment=") else override for override in overrides]
    complete = [override.removeprefix("+") if "engine@engine.judge=" in override else override for override in complete]
    chosen = any(override.startswith("+experiment=") for override in complete)
    return complete if chosen else ["+experiment=quickstart", *complete]


def without_leftovers(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Drop values that an experiment sets for parts that a list on the command line leaves out.

    `+experiment=eval_fin benchmark=[finqa]` drops those of the other four benchmarks. Values that the command line sets
    for such a part stay, and are refused later as a mistake.
    """
    given = [override.lstrip("+").split("=", 1)[0] for override in overrides]
    for group in LISTS:
        nodes = OmegaConf.select(cfg, group)
        if not isinstance(nodes, DictConfig) or not any(name.split("@")[-1] == group for name in given):
            continue
        for name in map(str, list(nodes)):
            by_user = any(key.startswith(f"{group}.{name}.") for key in given)
            if isinstance(nodes[name], DictConfig) and "_target_" not in nodes[name] and not by_user:
                with open_dict(nodes):
                    del nodes[name]
    return cfg


def typed(cfg: DictConfig) -> RootConfig:
    """As dataclasses with interpolations resolved. ConfigError for NaN, inf, and values out of bounds."""
    _check_finite(OmegaConf.to_container(cfg, resolve=True))
    return cast(RootConfig, OmegaConf.to_object(cfg))


def _check_finite(value: Any, key: str = "") -> None:
    if isinstance(value, dict):
        for name, child in value.items():
            _check_finite(child, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for child in value:
            _check_finite(child, key)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(key, value, "not a finite number", "give a finite one")


def plain(cfg: DictConfig) -> dict[str, Any]:
    """As plain values with interpolations resolved and secrets redacted: what is saved, hashed and logged."""
    return cast(dict[str, Any], _redact(OmegaConf.to_container(cfg, resolve=True)))


def _redact(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: "***" if _SECRET.search(str(k)) and isinstance(v, str) else _redact(v) for k, v in value.items()}
    return [_redact(item) for item in value] if isinstance(value, list) else value
