"""From `conf/` to a `RootConfig`: where the yaml files are, the schema they compose onto, plain values for records."""

from __future__ import annotations

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
from finr1.core.errors import ConfigError
from finr1.settings.root import RootConfig

_PACKAGE = Path(finr1.__file__).parent

CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
_LISTS = ("source", "benchmark", "reward", "judge.answer", "judge.reasoning", "logger")  # parts chosen by a list
_SECRET = re.compile(r"(^|_)(api_?key|token|secret|password)$", re.IGNORECASE)


@functools.cache  # building the schema costs a sixth of a composition
def register() -> None:
    """Tell Hydra the schema that conf/config.yaml names; once a process."""
    ConfigStore.instance().store(name="root_schema", node=RootConfig)


def compose(overrides: Sequence[str] = (), with_hydra: bool = False) -> DictConfig:
    """The configuration that `python -m finr1 <overrides>` runs; Hydra's own errors pass through."""
    register()
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        known = with_default(overrides)
        return without_leftovers(hydra_compose("config", known, return_hydra_config=with_hydra), known)


def with_default(overrides: Sequence[str]) -> list[str]:
    """The overrides, with the quickstart experiment before them where they choose none; `experiment=` gets its `+`.

    The judge's engine is a choice that no default makes; a `+` before it, as Hydra wants it for a new one, is dropped.
    """
    known = [f"+{override}" if override.startswith("experiment=") else override for override in overrides]
    known = [override.removeprefix("+") if "engine@engine.judge=" in override else override for override in known]
    chosen = any(override.startswith("+experiment=") for override in known)
    return known if chosen else ["+experiment=quickstart", *known]


def without_leftovers(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Without the values that an experiment sets on parts which a list on the command line leaves out.

    `+experiment=eval_fin benchmark=[finqa]` keeps nothing of the other four. Values that the command line itself gives
    to such a part stay, and are refused later: they are a mistake.
    """
    given = [override.lstrip("+").split("=", 1)[0] for override in overrides]
    for group in _LISTS:
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
    """As dataclasses, interpolations resolved; refuses NaN and inf, and raises what their `__post_init__` raises."""
    _finite(OmegaConf.to_container(cfg, resolve=True))
    return cast(RootConfig, OmegaConf.to_object(cfg))


def _finite(value: Any, key: str = "") -> None:
    if isinstance(value, dict):
        for name, child in value.items():
            _finite(child, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for child in value:
            _finite(child, key)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(key, value, "not a finite number", "give a finite one")


def plain(cfg: DictConfig) -> dict[str, Any]:
    """As plain values, every interpolation resolved, and without secrets: what is saved, hashed and logged."""
    return cast(dict[str, Any], _redact(OmegaConf.to_container(cfg, resolve=True)))


def _redact(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: "***" if _SECRET.search(str(k)) and isinstance(v, str) else _redact(v) for k, v in value.items()}
    return [_redact(item) for item in value] if isinstance(value, list) else value
