"""Settings of GRPO that cannot work end in one line."""

from __future__ import annotations

import math
from typing import Any

import pytest

from finr1.core.errors import ConfigError
from finr1.settings.grpo import GrpoSettings, SelectSettings, WorkerSettings
from finr1.settings.sampling import Sampling
from finr1.settings.sft import SftSettings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "ppo"}, r"grpo\.loss=ppo: no such choice; use one of dapo, grpo"),
        ({"scale": "std"}, r"grpo\.scale=std: no such choice; use one of group, batch, none"),
        ({"combine": "and"}, r"grpo\.combine=and: no such choice; use one of sum, product"),
        ({"correction": "token"}, r"grpo\.correction=token: no such choice"),
        ({"beta": -0.1}, r"grpo\.beta=-0\.1: must be at least 0"),
        ({"dual_clip": 1.2}, r"grpo\.dual_clip=1\.2: not above 1 \+ grpo\.clip_high"),
        ({"dual_clip": 3.0, "loss": "cispo"}, r"grpo\.dual_clip=3\.0: cispo has no minimum"),
        ({"correction_low": 4.0}, r"grpo\.correction_low=4\.0: not below correction_high=3\.0"),
        ({"correction": "token_mask", "correction_high": None}, r"grpo\.correction=token_mask: it has no bound"),
        ({"overlong_buffer_tokens": 161}, r"grpo\.overlong_buffer_tokens=161: not within 0 and .*max_new_tokens=160"),
        ({"sampling": Sampling(top_p=0.9)}, r"grpo\.sampling\.top_p=0\.9: the policy gradient would be biased"),
    ],
)
def test_a_fault_is_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        GrpoSettings(**settings)
    assert "\n" not in str(error.value)


ABOVE_0 = ("learning_rate", "max_grad_norm", "canary_bound", "correction_low", "correction_high")
AT_LEAST_0 = ("weight_decay", "overlong_weight", "spread_tolerance", "eval_drop", "beta", "clip_low", "clip_high")
COUNTS_FROM_1 = ("steps", "questions_per_step", "row_tokens", "checkpoint_every_steps", "samples_every_steps")
COUNTS_FROM_0 = ("warmup_steps", "refill_rounds", "preflight_questions", "samples_kept", "eval_every")
RANGES = [
    *((GrpoSettings, "grpo", name, "above 0", [0.0, -1e-6]) for name in ABOVE_0),
    *((GrpoSettings, "grpo", name, "at least 0", [-1e-6]) for name in (*AT_LEAST_0, "entropy_bonus")),
    *((GrpoSettings, "grpo", name, "at least 1", [0, -1]) for name in (*COUNTS_FROM_1, "updates_per_rollout")),
    *((GrpoSettings, "grpo", name, "at least 0", [-1]) for name in COUNTS_FROM_0),
    (GrpoSettings, "grpo", "eval_questions", "at least 1", [0]),
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
def test_a_value_out_of_its_range_is_named(kind: Any, key: str, name: str, words: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ConfigError) as error:
            kind(**{name: value})
        assert str(error.value) == f"{key}.{name}={value}: must be {words}; give such a value"
    for value in () if isinstance(values[0], int) else (math.nan, math.inf):
        with pytest.raises(ConfigError) as error:
            kind(**{name: value})
        assert str(error.value) == f"{key}.{name}={value}: not a finite number; give a number"


def test_what_can_work_does() -> None:
    for loss in ("dapo", "grpo", "bnpo", "dr_grpo", "gspo"):
        GrpoSettings(loss=loss, dual_clip=3.0)
    GrpoSettings(loss="cispo", clip_high=4.0, correction="sequence_mask", correction_high=None, correction_low=0.5)
