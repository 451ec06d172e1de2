"""Model types of transformers, tiny and random: trained with the model's own loss and gradient, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from finr1.core.errors import ConfigError
from finr1.settings.model import ModelSettings
from finr1.training.model.check import load_checked
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row, pack

SIZES = {  # of those names that a type's configuration has
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "lru_width"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "linear_num_value_heads"), 4),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 256),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_key_value_heads", "linear_num_key_heads", "n_groups", "num_experts_per_tok"), 2),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "rotary_dim", "linear_key_head_dim"), 8),
    **dict.fromkeys(("linear_value_head_dim", "state_size", "ssm_state_size", "mamba_d_state", "mamba_n_heads"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_num_heads", "mamba_head_dim", "chunk_size", "mamba_chunk_size"), 8),
    **dict.fromkeys(("time_step_rank", "mamba_dt_rank"), 4),
    **dict.fromkeys(("n_group", "topk_group", "mamba_n_groups"), 1),
    "mamba_d_ssm": 64,
    "vocab_size": 60,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MLA = {"head_dim": None, "num_key_value_heads": 4, "v_head_dim": 6}
PACKED: dict[str, dict[str, Any]] = {
    **{kind: {} for kind in ("llama", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "mistral", "ministral3", "mixtral")},
    **{kind: {} for kind in ("phi", "phi3", "gemma", "gemma3_text", "olmo2", "olmoe", "smollm3", "glm4", "glm4_moe")},
    **{kind: {} for kind in ("gpt2", "gpt_neox", "opt", "starcoder2", "seed_oss", "exaone4", "hunyuan_v1_dense")},
    "granite": {"logits_scaling": 8.0, "residual_multiplier": 0.5, "embedding_multiplier": 3.0},
    "granitemoe": {"logits_scaling": 4.0},
    "cohere": {},  # logit_scale 1/16
    "cohere2": {},
    "nanochat": {"final_logit_softcapping": 2.0},
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "minicpm3"), MLA),
}
SINGLE: dict[str, dict[str, Any]] = {
    **{kind: {} for kind in ("bloom", "mpt", "doge", "gpt_oss", "gemma2", "nemotron", "stablelm", "qwen3_next")},
    **{kind: {} for kind in ("qwen3_5_text", "mamba", "falcon_mamba", "jamba", "bamba", "nemotron_h", "minimax")},
    **{kind: {} for kind in ("granitemoehybrid", "olmo_hybrid", "recurrent_gemma")},
    "gptj": {"rotary_dim": 4},
    "codegen": {"rotary_dim": 4},
    "falcon": {"alibi": True, "head_dim": None},
    "falcon_h1": {"lm_head_multiplier": 0.25},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"mamba_num_heads": None, "mamba_n_heads": None, "num_heads": 8},
    "llama4_text": {"attn_temperature_tuning": True},
}
SHORT = {"sliding_window": 16}
WINDOWS = {"mistral": SHORT, "gemma3_text": {**SHORT, "layer_types": ["sliding_attention", "full_attention"]}}
REFUSED = [
    ("cpmant", "model.path=.* model type cpmant would not be trained right: .*; use another model"),
    ("xmod", "model.path=.* a pass of model type xmod fails: Input language unknown.*; use another model"),
]
SETTINGS = ModelSettings(max_model_len=64)
TEXTS = (([5, 9, 2, 41], [[7, 33, 8], [12, 4]]), ([50, 3], [[17, 21, 6, 30, 11]]))


def folder_of(kind: str, more: dict[str, Any], place: Path) -> Path:
    """Save a model of seeded weights that are large enough for every term to count."""
    make = CONFIG_MAPPING[kind]
    known = make()
    names = {name: size for name, size in SIZES.items() if hasattr(known, name)}
    if known.to_dict().get("layer_types"):
        names["layer_types"] = None  # two of the default pattern
    shape = {name: value for name, value in {**names, **more}.items() if value is not None or name == "layer_types"}
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(make(**shape), attn_implementation="eager")
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and "A_log" not in name:
            torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
        elif "bias" in name or "norm" in name or "sink" in name:
            weight.data += 0.2 * torch.randn_like(weight)
    model.save_pretrained(place)
    return place


def own(folder: Path) -> tuple[float, dict[str, Tensor]]:
    """The model's own loss, summed over completion tokens, and its gradients; each text alone."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    total = 0.0
    for prompt, completions in TEXTS:
        for completion in completions:
            ids = torch.tensor([[*prompt, *completion]])
            labels = torch.tensor([[-100] * len(prompt) + completion])
            loss = model(input_ids=ids, labels=labels, use_cache=False).loss * len(completion)
            loss.backward()
            total += float(loss.detach())
    return total, {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def ours(model: Any) -> tuple[float, dict[str, Tensor]]:
    """The same by the rows that training makes."""
    groups = [RowGroup(prompt, completions, range(len(completions))) for prompt, completions in TEXTS]
    total = 0.0
    for row in pack(groups, 30, model.single_rows):
        loss = -completion_stats(model, make_row(row)).logprobs_N.sum()
        loss.backward()
        total += float(loss.detach())
    return total, {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def check(kind: str, more: dict[str, Any], place: Path) -> str:
    """Compare loss and gradients; returns why the model takes single rows."""
    folder = folder_of(kind, more, place)
    notes: list[str] = []
    model = load_checked(folder, SETTINGS, notes.append)
    model.eval()
    (loss, gradients), (right, expected) = ours(model), own(folder)
    assert abs(loss - right) <= 1e-6 * right
    missing = {name for name in expected if name not in gradients and expected[name].any()}
    assert not missing
    norm = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    gaps = [(gradients[name] - gradient).norm() for name, gradient in expected.items() if name in gradients]
    assert torch.stack(gaps).norm() <= 5e-5 * norm
    assert model.single_rows == bool(notes)
    return notes[0] if notes else ""


@pytest.mark.parametrize("kind", PACKED)
def test_packed_rows_train_right(kind: str, tmp_path: Path) -> None:
    assert not check(kind, PACKED[kind], tmp_path)


@pytest.mark.parametrize("kind", SINGLE)
def test_single_rows_train_right(kind: str, tmp_path: Path) -> None:
    assert check(kind, SINGLE[kind], tmp_path).startswith("the model trains in single rows: ")


@pytest.mark.parametrize("kind", WINDOWS)
def test_a_window_shorter_than_the_texts_trains_in_single_rows(kind: str, tmp_path: Path) -> None:
    note = check(kind, WINDOWS[kind], tmp_path)
    assert note == "the model trains in single rows: a token attends to 16 of model.max_model_len=64"


@pytest.mark.parametrize(("kind", "line"), REFUSED)
def test_a_model_that_would_be_trained_wrong_is_refused(kind: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=line):
        load_checked(folder_of(kind, {}, tmp_path), SETTINGS)
