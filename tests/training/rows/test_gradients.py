"""Gradients of the embedded model, as it is trained, by prompt-shared rows: those of plain passes in 64 bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from finr1.core.errors import ConfigError
from finr1.parts.model.folder import resolve
from finr1.parts.model.tokens import load_tokenizer
from finr1.settings.model import ModelSettings
from finr1.training.model.load import load_trainable
from finr1.training.rows.attention import register
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row

TEXT = (
    "In 2019 net revenue was $ 3,412.5 million, 12% more than the $ 3,046.9 million of 2018, as interest income rose. "
)


def flat(model: Any) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.slow
def test_a_shared_row_in_32_bits_has_the_gradient_of_single_sequences_in_64() -> None:
    """Whole model, relative to the norm: 6e-6 here. Plain passes in fp32 are themselves 1.2e-5 off or more, most of it
    by log_softmax over 49,152 tokens: they are no measure for a bound of 1e-5."""
    try:
        folder = resolve(ModelSettings())
    except ConfigError as error:
        pytest.skip(str(error))
    ids = load_tokenizer(folder).encode(TEXT * 20)
    groups = [
        RowGroup(ids[3:303], [ids[40:100], ids[7:52], ids[220:300]], [0, 1, 2]),
        RowGroup(ids[20:140], [ids[300:330], ids[11:81]], [3, 4]),
    ]
    pairs = [(group.prompt, completion) for group in groups for completion in group.completions]
    weights = torch.randn(sum(len(c) for _, c in pairs), generator=torch.Generator().manual_seed(0))
    model = load_trainable(folder, ModelSettings(), register())
    (completion_stats(model, make_row(groups)).logprobs_N * weights).sum().backward()
    shared = flat(model)
    del model
    plain: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="sdpa")
    pieces: Any = torch.split(weights.double(), [len(c) for _, c in pairs])
    for (prompt, completion), own in zip(pairs, pieces, strict=True):
        logits = plain(input_ids=torch.tensor([[*prompt, *completion]]), use_cache=False).logits[
            0, len(prompt) - 1 : -1
        ]
        logprobs = logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0]
        (logprobs * own).sum().backward()
    exact = flat(plain)
    assert (shared - exact).norm() / exact.norm() <= 1e-5
