"""Syncing adapters without their base weights: what the engine gets, when, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from finr1.core.errors import ConfigError
from finr1.parts.engine.base import AdapterEngine
from finr1.settings.sampling import Sampling
from finr1.training.grpo.canary import Canary, check_names
from finr1.training.grpo.sampler import Sampler
from finr1.training.model.weights import adapter_of, checkpoint_weights
from tests.helpers.stages import question
from tests.helpers.tiny_engine import TinyEngine
from tests.helpers.tiny_model import tiny

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def adapted(kind: str = "llama", spread: float = 0.3, **options: Any) -> Any:
    """A tiny model with adapters that do something."""
    torch.manual_seed(1)
    options = {"r": 3, "lora_alpha": 6, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **options}
    model = get_peft_model(tiny(kind), LoraConfig(**options))
    stir(model, spread)
    return model.train()


def stir(model: Any, spread: float) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=spread)


def sampler(engine: TinyEngine) -> Sampler:
    return Sampler(engine, Sampling(n=4, max_new_tokens=6), None, "float32")


def test_the_tiny_engine_loads_adapters() -> None:
    assert isinstance(TinyEngine(), AdapterEngine)


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"target_modules": ["q_proj", "down_proj"]}], ids=str)
def test_an_engine_with_an_adapter_equals_one_with_merged_weights(options: dict[str, Any]) -> None:
    engines = [TinyEngine(lora_sync=sync) for sync in ("merged", "adapter")]
    found = []
    for engine in engines:
        model, side = adapted(**options), sampler(engine)
        side.load_weights(model, "step 1")
        canary = Canary(engine, range(1, 20), 1e9)
        assert canary.check(model, 1) < 1e-6 and engine.weights_version == "step 1"
        stir(model, 0.3)
        assert canary.check(model, 2) > 1e-2  # not synced yet: the bound above can fail
        side.load_weights(model, "step 2")
        assert canary.check(model, 2) < 1e-6 and engine.weights_version == "step 2"
        groups = side.sample([question("one"), question("two")])
        found.append([c.text for group in groups for c in group.completions])
    assert found[0] == found[1] and len(found[0]) == 8
    assert engines[0].loaded == ["step 1", "step 2"] and engines[1].loaded == ["below step 1"]


def test_base_weights_are_synced_once_until_the_engine_drops_them() -> None:
    model, engine = adapted(), TinyEngine(lora_sync="adapter")
    side = sampler(engine)
    for step in range(3):
        side.load_weights(model, f"step {step}")
    assert engine.loaded == ["below step 0"]
    engine.base_version = ""  # what `rest` leaves of an engine that sleeps
    side.load_weights(model, "step 3")
    assert engine.loaded == ["below step 0", "below step 3"]
    engine.load_weights(
        checkpoint_weights(adapted(spread=0.9), "float32"), "a folder"
    )  # an evaluation of another model
    side.load_weights(model, "step 4")
    assert engine.loaded[-1] == "below step 4" and Canary(engine, range(1, 20), 1e-6).check(model, 4) < 1e-6


def test_base_weights_have_the_checkpoints_names_and_values() -> None:
    plain = dict(checkpoint_weights(tiny(), "float32"))
    model = adapted()
    below, merged = dict(checkpoint_weights(model, "float32", merged=False)), dict(checkpoint_weights(model, "float32"))
    assert below.keys() == plain.keys() == merged.keys()
    assert all(torch.equal(plain[name], tensor) for name, tensor in below.items())
    moved = {name.split(".")[-2] for name in plain if not torch.equal(plain[name], merged[name])}
    assert moved == set(LINEAR)


def test_merged_sync_and_a_model_without_adapters_send_all_weights() -> None:
    for engine, model in ((TinyEngine(), adapted()), (TinyEngine(lora_sync="adapter"), tiny())):
        sampler(engine).load_weights(model, "step 1")
        assert engine.loaded == ["step 1"] and not engine.adapter_layers
        check_names(frozenset(dict(checkpoint_weights(model, "float32"))), engine.weight_names)


def test_an_adapter_is_its_matrices_and_its_configuration() -> None:
    model = adapted("qwen2", r=5, use_rslora=True)
    adapter = adapter_of(model, "bfloat16")
    assert adapter.layers == {
        f"model.layers.{i}.{'mlp' if name in LINEAR[4:] else 'self_attn'}.{name}" for i in range(3) for name in LINEAR
    }
    assert len(adapter.weights) == 2 * len(adapter.layers)
    assert {tensor.dtype for tensor in adapter.weights.values()} == {torch.bfloat16}
    assert (adapter.config["r"], adapter.config["lora_alpha"], adapter.config["use_rslora"]) == (5, 6, True)
    own = model.base_model.model.model.layers[2].mlp.up_proj.lora_B["default"].weight
    sent = adapter.weights["base_model.model.model.layers.2.mlp.up_proj.lora_B.weight"]
    assert torch.equal(sent, own.bfloat16()) and sent.data_ptr() != own.data_ptr()


def test_layers_that_the_engine_lacks_are_an_error() -> None:
    message = (
        r"lora_sync=adapter: the engine lacks 3 of the trainer's 21 adapted layers \(model\.layers\.0\.mlp\.up_p.* "
    )
    with pytest.raises(ConfigError, match=message + r"…\) and would silently sample.*; use merged"):
        sampler(TinyEngine(lora_sync="adapter", lacks="up_proj")).load_weights(adapted(), "step 0")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"use_dora": True}, "lora_magnitude_vector"),
        ({"bias": "all"}, "bias"),
        ({"lora_bias": True}, "lora_B.bias"),
        ({"modules_to_save": ["lm_head"]}, "lm_head.weight"),
        ({"target_modules": ["embed_tokens", "q_proj"]}, "lora_embedding_A"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")  # peft advises against some of these
def test_adapters_other_than_plain_lora_are_refused(options: dict[str, Any], word: str) -> None:
    kind = "qwen2" if "bias" in word else "llama"  # which has biases
    with pytest.raises(
        ConfigError, match=rf"engine\.policy\.lora_sync=adapter: only LoRA matrices.*{word}.*; use merged"
    ):
        sampler(TinyEngine(lora_sync="adapter")).load_weights(adapted(kind, **options), "step 0")
