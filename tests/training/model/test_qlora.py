"""Adapters over weights in 4 bits: what trains, what the weights stand for, and what leaves the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, LlamaConfig

from finr1.settings.model import LoraSettings, ModelSettings
from finr1.training.loop.masters import Bf16Weights
from finr1.training.loop.meter import Meter, Work
from finr1.training.model.load import base_model, load_trainable
from finr1.training.model.weights import checkpoint_weights, export
from finr1.training.rows.attention import register
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row
from tests.helpers.tiny_model import VOCABULARY

ROW = make_row([RowGroup(list(range(1, 9)), [[3, 7, 1, 4], [9, 2, 8]], [0, 1])])
WIDTH = 64  # a block of NF4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    path = tmp_path_factory.mktemp("model")
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return path


def load(folder: Path, adapter: str = "qlora") -> Any:
    torch.manual_seed(1)
    return load_trainable(folder, ModelSettings(adapter=adapter, lora=LoraSettings(r=4, alpha=8)), register())


def stir(model: Any) -> None:
    """Adapters begin as nothing."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))


def test_every_linear_layer_but_the_head_is_in_4_bits_and_only_adapters_train(folder: Path) -> None:
    model = load(folder)
    packed = {n: p for n, p in model.named_parameters() if type(p).__name__ == "Params4bit"}
    assert len(packed) == 2 * 7 and all(p.dtype == torch.uint8 for p in packed.values())
    # 4 attention matrices of 64 x 64 and 3 of 64 x 128 a layer, two weights a byte
    assert sum(p.numel() for p in packed.values()) == 2 * (4 * 64 * 64 + 3 * 64 * 128) // 2
    assert base_model(model).get_output_embeddings().weight.dtype == torch.float32
    assert all(("lora_" in n) == p.requires_grad for n, p in model.named_parameters())


def test_a_step_moves_the_adapters_and_nothing_else(folder: Path) -> None:
    model = load(folder)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(20):
        loss = -completion_stats(model, ROW).logprobs_N.mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and moved == {name for name in before if "lora_" in name}


def test_exported_weights_score_as_the_model_that_was_trained(folder: Path, tmp_path: Path) -> None:
    """In fp32 to rounding; without the adapters, or rounded to 4 bits again, they would be far off."""

    class NoTokenizer:
        def save_pretrained(self, _: Path) -> None: ...

    model = load(folder)
    stir(model)
    for module in model.modules():
        if hasattr(module, "compute_dtype"):  # of the 4-bit layers: bf16 would hide small faults
            module.compute_dtype = torch.float32
    trained = completion_stats(model, ROW).logprobs_N.detach()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export(model, NoTokenizer(), tmp_path / "out", ModelSettings(dtype="float32"))  # type: ignore[arg-type]
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation=register())
    assert type(plain.model.layers[0].mlp.up_proj) is torch.nn.Linear
    exported = completion_stats(plain, ROW).logprobs_N.detach()
    with model.disable_adapter():
        bare = completion_stats(model, ROW).logprobs_N.detach()
    assert (exported - trained).abs().max() < 1e-4
    assert (exported - bare).abs().max() > 0.3
    again = load(folder, "full")
    again.load_state_dict(dict(checkpoint_weights(load(folder), "float32")), strict=False)  # as the 4 bits have them
    apart = PeftModel.from_pretrained(again, tmp_path / "out" / "adapter")
    assert (completion_stats(apart, ROW).logprobs_N.detach() - trained).abs().max() < 1e-4


def test_4_bits_are_within_the_known_error_of_the_weights_and_names_are_the_checkpoints(folder: Path) -> None:
    """NF4's widest gap is 0.304 of a block's largest weight (QLoRA, appendix E): half of it, and a second rounding."""
    plain = dict(checkpoint_weights(load(folder, "full"), "float32"))
    packed = dict(checkpoint_weights(load(folder), "float32"))
    assert plain.keys() == packed.keys()
    for name, weight in plain.items():
        error = (packed[name] - weight).abs().max() / weight.abs().max()
        assert (0.01 < error < 0.2) if "proj" in name else error == 0


def test_bf16_weights_leave_the_packed_ones_alone(folder: Path) -> None:
    model = load(folder)
    before = model.state_dict()
    packed = {name: p.detach().clone() for name, p in model.named_parameters() if p.dtype == torch.uint8}
    Bf16Weights().convert_module(model)
    kinds = {p.dtype for p in model.parameters()}
    assert kinds == {torch.uint8, torch.bfloat16} and packed.keys() <= before.keys()
    assert all(torch.equal(p, packed[name]) for name, p in model.named_parameters() if name in packed)
    assert torch.isfinite(completion_stats(model, ROW).logprobs_N).all()


def test_flops_count_the_weights_not_their_bytes(folder: Path, tmp_path: Path) -> None:
    work = Work(rows=1, tokens=15, targets=7, pairs=99, padded_tokens=15)
    assert Meter(load(folder), tmp_path).flops(work) == Meter(load(folder, "lora"), tmp_path).flops(work)
