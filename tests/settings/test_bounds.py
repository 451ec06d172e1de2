"""Bounds of settings: what is accepted, and the error line of what is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from omegaconf import OmegaConf

from finr1.core.errors import ConfigError
from finr1.settings.bounds import above, check_bounds, least, one_of, share, within


@dataclass
class Example:
    """One field of each bound."""

    steps: int = least(40, 1)
    group_size: int = least(8, 2, why="a group of one has no advantage")
    max_rows: int | None = least(None, 1)
    rate: float = above(1e-4, 0)
    top_p: float = above(1.0, 0, up_to=1)
    warmup: float = share(0.1, of="the steps")
    port: int = within(8000, 1, 65535)
    loss: str = one_of("dapo", "grpo")
    free: float = 1.0
    name: str = "x"

    def __post_init__(self) -> None:
        check_bounds("example", self)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"steps": 0}, "example.steps=0: must be at least 1; use 1 or more"),
        ({"group_size": 1}, "example.group_size=1: a group of one has no advantage; use 2 or more"),
        ({"max_rows": 0}, "example.max_rows=0: must be at least 1; use 1 or more"),
        ({"rate": 0.0}, "example.rate=0.0: must be above 0; use a value above 0"),
        ({"rate": float("nan")}, "example.rate=nan: not a finite number; give a number"),
        ({"top_p": 1.5}, "example.top_p=1.5: must be above 0 and at most 1; use a value above 0 and at most 1"),
        ({"free": float("inf")}, "example.free=inf: not a finite number; give a number"),
        ({"warmup": 1.5}, "example.warmup=1.5: it is a share of the steps; use 0 to 1"),
        ({"port": 65536}, "example.port=65536: must be within 1 to 65535; use 1 to 65535"),
        ({"loss": "ppo"}, "example.loss=ppo: no such choice; use one of dapo, grpo"),
    ],
)
def test_a_value_outside_its_bound_is_one_line(wrong: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as error:
        Example(**wrong)
    assert str(error.value) == line
    with pytest.raises(ConfigError) as error:  # as Hydra's composition checks it
        OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Example), wrong))
    assert str(error.value) == line


def test_defaults_edges_and_null_are_accepted() -> None:
    assert Example() == Example(40, 8, None, 1e-4, 1.0, 0.1, 8000, "dapo")
    Example(steps=1, group_size=2, max_rows=1, rate=1e-12, warmup=1, port=65535, loss="grpo")
    assert OmegaConf.to_object(OmegaConf.structured(Example)) == Example()
