"""A transformer of a few thousand seeded weights, for tests that need a model."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from finr1.training.rows.attention import register

VOCABULARY = 50
SHAPES = {
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 1},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 12},
}


def tiny(kind: str = "llama", attention: str = "", **more: Any) -> Any:
    """Return the same model each time; with our attention, or one that transformers names (`eager`).

    `more` overrides values of its configuration.
    """
    torch.manual_seed(0)
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        **SHAPES[kind],
        **more,
    }
    config = AutoConfig.for_model(kind, attn_implementation=attention or register(), **shape)
    return AutoModelForCausalLM.from_config(config)
