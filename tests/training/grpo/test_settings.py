"""Invalid GRPO and SFT settings are one-line errors."""

from __future__ import annotations

import math
from typing import Any

import pytest

from finr1.core.errors import ConfigError
from finr1.settings.grpo import (
    LOSSES,
    AdvantageSettings,
    CanarySettings,
    CorrectionSettings,
    GrpoSettings,
    HeldOutSettings,
    LossSettings,
    SamplesSettings,
    SelectSettings,
    WorkerSettings,
)
from finr1.settings.sampling import Sampling
from finr1.settings.sft import SftSettings

LONG = {"advantage": AdvantageSettings(overlong_buffer_tokens=161)}


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (LossSettings, {"kind": "ppo"}, r"grpo\.loss\.kind=ppo: no such choice; use one of dapo, grpo"),
        (LossSettings, {"beta": -0.1}, r"grpo\.loss\.beta=-0\.1: must be at least 0"),
        (LossSettings, {"dual_clip": 1.2}, r"grpo\.loss\.dual_clip=1\.2: not above 1 \+ grpo\.loss\.clip_high"),
        (LossSettings, {"dual_clip": 3.0, "kind": "cispo"}, r"grpo\.loss\.dual_clip=3\.0: cispo has no minimum"),
        (AdvantageSettings, {"scale": "std"}, r"grpo\.advantage\.scale=std: no such choice; use one of group, batch"),
        (AdvantageSettings, {"combine": "and"}, r"grpo\.advantage\.combine=and: no such choice; use one of sum, prod"),
        (CorrectionSettings, {"kind": "token"}, r"grpo\.correction\.kind=token: no such choice"),
        (CorrectionSettings, {"low": 4.0}, r"grpo\.correction\.low=4\.0: not below high=3\.0"),
        (
            CorrectionSettings,
            {"kind": "token_mask", "high": None},
            r"grpo\.correction\.kind=token_mask: it has no bound",
        ),
        (
            CanarySettings,
            {"tokens": 1},
            r"grpo\.canary\.tokens=1: the first token has no log-prob; use 0, or 2 or more",
        ),
        (GrpoSettings, LONG, r"grpo\.advantage\.overlong_buffer_tokens=161: more than grpo\..*max_new_tokens=160"),
        (
            GrpoSettings,
            {"advantage": AdvantageSettings(train_per_group=9)},
            r"grpo\.advantage\.train_per_group=9: more than grpo\.group_size=8; lower it",
        ),
        (GrpoSettings, {"schedule": "step"}, r"grpo\.schedule=step: no such choice; use one of constant, linear"),
        (GrpoSettings, {"sampling": Sampling(top_p=0.9)}, r"grpo\.sampling\.top_p=0\.9: the policy gradient would be"),
    ],
)
def test_a_fault_is_one_line(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        kind(**settings)
    assert "\n" not in str(error.value)


COUNTS_FROM_1 = ("steps", "questions_per_step", "row_tokens", "checkpoint_every_steps", "updates_per_rollout")
COUNTS_FROM_0 = ("warmup_steps", "refill_rounds", "preflight_questions")
RANGES = [
    *((GrpoSettings, "grpo", name, "above 0", [0.0, -1e-6]) for name in ("learning_rate", "max_grad_norm")),
    *((GrpoSettings, "grpo", name, "at least 1", [0, -1]) for name in COUNTS_FROM_1),
    *((GrpoSettings, "grpo", name, "at least 0", [-1]) for name in COUNTS_FROM_0),
    (GrpoSettings, "grpo", "weight_decay", "at least 0", [-1e-6]),
    *(
        (LossSettings, "grpo.loss", name, "at least 0", [-1e-6])
        for name in ("beta", "clip_low", "clip_high", "entropy_bonus")
    ),
    *(
        (AdvantageSettings, "grpo.advantage", name, "at least 0", [-1e-6])
        for name in ("overlong_weight", "spread_tolerance")
    ),
    (AdvantageSettings, "grpo.advantage", "overlong_buffer_tokens", "at least 0", [-1]),
    (AdvantageSettings, "grpo.advantage", "train_per_group", "at least 2", [1]),
    *((CorrectionSettings, "grpo.correction", name, "above 0", [0.0, -1e-6]) for name in ("low", "high")),
    (CanarySettings, "grpo.canary", "bound", "above 0", [0.0, -1e-6]),
    (SamplesSettings, "grpo.samples", "every_steps", "at least 1", [0, -1]),
    (SamplesSettings, "grpo.samples", "kept", "at least 0", [-1]),
    (HeldOutSettings, "grpo.eval", "every_steps", "at least 0", [-1]),
    (HeldOutSettings, "grpo.eval", "questions", "at least 1", [0]),
    (HeldOutSettings, "grpo.eval", "alarm_drop", "at least 0", [-1e-6]),
    (SelectSettings, "grpo.select", "samples", "at least 0", [-1]),
    (SelectSettings, "grpo.select", "max_candidates", "at least 1", [0]),
    (WorkerSettings, "grpo.workers", "processes", "at least 1", [0]),
    (WorkerSettings, "grpo.workers", "timeout_s", "above 0", [0.0]),
    *((SftSettings, "sft", name, "above 0", [0.0, -1e-6]) for name in ("learning_rate", "max_grad_norm")),
    (SftSettings, "sft", "weight_decay", "at least 0", [-1e-6]),
    *((SftSettings, "sft", name, "at least 1", [0]) for name in ("epochs", "row_tokens", "rows_per_step", "max_rows")),
]


@pytest.mark.parametrize(
    ("kind", "key", "name", "words", "values"), RANGES, ids=lambda x: x if isinstance(x, str) else ""
)
def test_a_value_out_of_range_is_one_line(kind: Any, key: str, name: str, words: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ConfigError) as error:
            kind(**{name: value})
        bound = words.split()[-1]
        remedy = f"use {bound} or more" if words.startswith("at least") else f"use a value above {bound}"
        assert str(error.value) == f"{key}.{name}={value}: must be {words}; {remedy}"
    for value in () if isinstance(values[0], int) else (math.nan, math.inf):
        with pytest.raises(ConfigError) as error:
            kind(**{name: value})
        assert str(error.value) == f"{key}.{name}={value}: not a finite number; give a number"


def test_valid_settings_are_accepted() -> None:
    for kind in LOSSES[:-1]:
        LossSettings(kind, dual_clip=3.0)
    LossSettings("cispo", clip_high=4.0)
    CorrectionSettings("sequence_mask", low=0.5, high=None)
