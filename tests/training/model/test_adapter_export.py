"""A trained adapter leaves merged weights, and itself in the form of peft: both score as what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from finr1.settings.model import LoraSettings, ModelSettings
from finr1.training.model.load import load_trainable
from finr1.training.model.weights import export
from finr1.training.rows.attention import register
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row
from tests.helpers.byte_tokenizer import tokenizer
from tests.helpers.tiny_model import tiny

ROW = make_row([RowGroup(list(range(1, 9)), [[3, 7, 1, 4], [9, 2, 8]], [0, 1])])
FORMS: list[dict[str, Any]] = [{}, {"dora": True}, {"rslora": True}, {"targets": ".*q_proj|.*up_proj"}]


def scores(model: Any) -> torch.Tensor:
    return completion_stats(model, ROW).logprobs_N.detach()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_merged_weights_and_the_adapter_alone_score_as_what_was_trained(
    tmp_path: Path, form: dict[str, Any], kind: str
) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    tiny(kind).save_pretrained(base)
    settings = ModelSettings(adapter="lora", dtype="float32", lora=LoraSettings(r=4, alpha=8, **form))
    model = load_trainable(base, settings, register())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    trained, made = scores(model), tokenizer("{{ messages }}")
    export(model, made, out, settings)
    plain = AutoModelForCausalLM.from_pretrained(out, attn_implementation=register())
    begun = AutoModelForCausalLM.from_pretrained(base, attn_implementation=register())
    assert (scores(begun) - trained).abs().max() > 0.01
    assert (scores(plain) - trained).abs().max() < 1e-5
    apart = PeftModel.from_pretrained(begun, out / "adapter")
    assert (scores(apart) - trained).abs().max() < 1e-5
    assert sorted(path.name for path in (out / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_whole_weights_leave_no_adapter(tmp_path: Path) -> None:
    export(tiny(), tokenizer("{{ messages }}"), tmp_path / "out", ModelSettings())
    assert not (tmp_path / "out" / "adapter").exists() and (tmp_path / "out" / "model.safetensors").is_file()
