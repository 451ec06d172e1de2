"""Weights as they leave a model with adapters: merged, and the model as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from finr1.training.model.weights import checkpoint_weights
from tests.helpers.tiny_model import tiny


def adapted(kind: str, **options: Any) -> tuple[Any, Any]:
    """A tiny model with adapters that do something, and a plain one of its shape."""
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **options)
    model, plain = get_peft_model(tiny(kind, "eager"), config), tiny(kind, "eager")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval(), plain.eval()


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_merged_weights_compute_what_the_adapters_do(kind: str, options: dict[str, Any]) -> None:
    model, plain = adapted(kind, **options)
    missing, unexpected = plain.load_state_dict(dict(checkpoint_weights(model, "float32")), strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    ids = torch.arange(20)[None]
    with torch.no_grad():
        ours, theirs = model(input_ids=ids).logits, plain(input_ids=ids).logits
        model.disable_adapter_layers()
        bare = model(input_ids=ids).logits
    assert (ours - theirs).abs().max() < 1e-5
    assert (ours - bare).abs().max() > 1e-2  # the adapters do something


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_hundred_syncs_leave_the_model_as_it_was(dtype: str) -> None:
    model, _ = adapted("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = dict(checkpoint_weights(model, dtype))
    for _ in range(100):
        last = dict(checkpoint_weights(model, dtype))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert first.keys() == last.keys() and all(torch.equal(first[name], last[name]) for name in first)
