"""What the vLLM engine draws leaves the random states of its process as they were; needs no engine."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from finr1.parts.engine.vllm.engine import _isolated


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("fails", [False, True])
def test_random_states_are_restored_after_an_exception_too(fails: bool) -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draws()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    try:
        with _isolated():
            torch.manual_seed(2)
            draws()
            if fails:
                raise RuntimeError("the engine failed")
    except RuntimeError as error:
        assert fails and str(error) == "the engine failed"
    assert draws() == expected
