"""Settings of GRPO that cannot work end in one line."""

from __future__ import annotations

from typing import Any

import pytest

from finr1.engine.base import Sampling
from finr1.errors import ConfigError
from finr1.grpo.settings import GrpoSettings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "ppo"}, r"grpo\.loss=ppo: no such choice; use one of dapo, grpo"),
        ({"scale": "std"}, r"grpo\.scale=std: no such choice; use one of group, batch, none"),
        ({"combine": "and"}, r"grpo\.combine=and: no such choice; use one of sum, product"),
        ({"correction": "token"}, r"grpo\.correction=token: no such choice"),
        ({"beta": -0.1}, r"grpo\.beta=-0\.1: it cannot be negative"),
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


def test_what_can_work_does() -> None:
    for loss in ("dapo", "grpo", "bnpo", "dr_grpo", "gspo"):
        GrpoSettings(loss=loss, dual_clip=3.0)
    GrpoSettings(loss="cispo", clip_high=4.0, correction="sequence_mask", correction_high=None, correction_low=0.5)
