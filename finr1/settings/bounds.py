"""Bounds of settings: declared at the field, checked when an instance is created.

@dataclass
class SftSettings(Bounded, key="sft"):
    epochs: int = least(2, 1)  # 2 by default; sft.epochs=0: must be at least 1; use 1 or more
"""

import math
from collections.abc import Callable
from dataclasses import field, fields
from typing import Any, NamedTuple, TypeVar

from finr1.core.errors import ConfigError

T = TypeVar("T")


class Bound(NamedTuple):
    """What a value must satisfy, why, and what to do about one that does not."""

    holds: Callable[[Any], bool]
    why: str
    remedy: str


def _bounded(default: T, holds: Callable[[Any], bool], why: str, remedy: str) -> T:
    return field(default=default, metadata={"bound": Bound(holds, why, remedy)})


def least(default: T, low: float, why: str = "") -> T:
    """A number of at least `low`; `why` replaces "must be at least …" in the error."""
    return _bounded(default, lambda value: value >= low, why or f"must be at least {low:g}", f"use {low:g} or more")


def above(default: T, low: float, up_to: float = math.inf) -> T:
    """A number above `low`, and at most `up_to`."""
    limit = f" and at most {up_to:g}" if up_to < math.inf else ""
    why, remedy = f"must be above {low:g}{limit}", f"use a value above {low:g}{limit}"
    return _bounded(default, lambda value: low < value <= up_to, why, remedy)


def within(default: T, low: float, high: float, why: str = "") -> T:
    """A number from `low` to `high`, both included."""
    span = f"{low} to {high}"
    return _bounded(default, lambda value: low <= value <= high, why or f"must be within {span}", f"use {span}")


def share(default: T, of: str) -> T:
    """A share from 0 to 1 of something, named in the error."""
    return within(default, 0, 1, f"it is a share of {of}")


def one_of(*choices: str) -> str:
    """One of these words; the first is the default."""
    return _bounded(choices[0], lambda value: value in choices, "no such choice", f"use one of {', '.join(choices)}")


def check_bounds(prefix: str, settings: Any) -> None:
    """ConfigError for the first field outside its bound, or not finite; null (None) is always accepted.

    `prefix` is the place of the settings in the configuration, such as "sft"; empty for its root.
    """
    for setting in fields(settings):
        value, key = getattr(settings, setting.name), f"{prefix}.{setting.name}".lstrip(".")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(key, value, "not a finite number", "give a number")
        bound = setting.metadata.get("bound")
        if bound and value is not None and not bound.holds(value):
            raise ConfigError(key, value, bound.why, bound.remedy)


class Bounded:
    """Base of settings classes; `key` is their place in the configuration, empty for its root."""

    _key = ""

    def __init_subclass__(cls, key: str) -> None:
        cls._key = key

    def __post_init__(self) -> None:
        check_bounds(self._key, self)
