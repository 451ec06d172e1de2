"""Adapters in the real engine, loaded separately from the base weights; in a separate process, as in test_vllm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from finr1.cli import compose, nodes
from finr1.core.errors import ConfigError
from finr1.parts.engine.base import Adapter
from finr1.parts.engine.vllm import lora as vllm_lora
from finr1.parts.engine.vllm.engine import VllmEngine
from finr1.settings.model import ModelSettings
from tests.helpers.engine_process import result_of

PROGRAM = """
import json, sys
import torch
from pathlib import Path
from finr1.training.rows.attention import register
from finr1.parts.engine.base import Request
from finr1.settings.sampling import Sampling
from finr1.parts.engine.vllm.engine import VllmEngine
from finr1.core.errors import ConfigError
from finr1.training.grpo.canary import Canary
from finr1.training.grpo.sampler import Sampler
from finr1.training.model.weights import checkpoint_weights
from finr1.training.model.load import load_trainable
from finr1.parts.model.folder import resolve
from finr1.settings.model import LoraSettings, ModelSettings
from finr1.core.types import Message, Question


def stir(model, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.02)


def main():
    lora = LoraSettings(r=5, alpha=9, rslora=True)
    of = lambda adapter="lora", lora=lora: ModelSettings(max_model_len=256, adapter=adapter, dtype="float32", lora=lora)
    settings = of()
    folder = resolve(settings)
    engine = VllmEngine(settings, kv_cache_gib=0.2, max_num_seqs=16, lora_sync="adapter")
    sampler = Sampler(engine, Sampling(n=2, temperature=0.8, max_new_tokens=12), None, "float32")
    asked = [[Message(role="user", content=text)] for text in ("3 percent of 200?", "Name a bank.")]
    questions = [Question("t", "d", "en", "reasoning business", "number", prompt, "1") for prompt in asked]
    text = "The revenue of the bank in 2019 was 3.4 million dollars, 12% more than in 2018, as interest income rose."
    canary = Canary(engine, engine.llm.get_tokenizer().encode(text), 1e9)
    engine.load_folder(folder)
    first, before = [c.text for g in sampler.sample(questions) for c in g.completions], engine.weight_names

    found = {"canary": {}, "stale": {}}
    def follow(name, model, version):
        found["stale"][name] = canary.check(model, 0)  # against the weights loaded before
        sampler.load_weights(model, version)
        found["canary"][name] = canary.check(model, 0)
        return engine.weights_version

    torch.manual_seed(0)
    model = load_trainable(folder, settings, register())
    stir(model, 1)
    assert follow("first", model, "step 1") == "step 1"
    found["names"] = [len(before), before == engine.weight_names, len(engine.adapter_layers), engine.base_version]
    moved = [c.text for g in sampler.sample(questions) for c in g.completions]
    stir(model, 2)
    follow("second", model, "step 2")
    found["base_stays"] = engine.base_version

    # A sleeping engine drops its weights; sleep needs a GPU, so other weights are loaded instead.
    engine.load_weights(((n, torch.zeros_like(w)) for n, w in checkpoint_weights(model, "float32")), "")
    follow("slept", model, "step 3")

    engine.load_folder(folder)
    found["after_folder"] = [c.text for g in sampler.sample(questions) for c in g.completions] == first
    found["moved"] = moved != first and len(moved) == 4

    torch.manual_seed(0)
    packed = load_trainable(folder, of("qlora"), register())
    for module in packed.modules():
        if hasattr(module, "compute_dtype"):  # of the 4-bit layers: bf16 would hide small errors
            module.compute_dtype = torch.float32
    stir(packed, 3)
    follow("qlora", packed, "step 4")

    for name, targets in {"head": ".*(lm_head|q_proj)", "embedding": ".*(embed_tokens|q_proj)"}.items():
        other = load_trainable(folder, of(lora=LoraSettings(r=5, targets=targets)), register())
        try:
            sampler.load_weights(other, name)
        except ConfigError as error:
            found[name] = str(error)
    print("RESULT" + json.dumps(found))
    engine.close()


if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return result_of(PROGRAM)


@pytest.mark.slow
def test_with_a_separate_adapter_engine_and_trainer_agree(result: dict[str, Any]) -> None:
    """In fp32 on both sides; rank 5 is padded to 8, the scale is rsLoRA's, and 4-bit weights are loaded dequantised."""
    assert result["canary"].keys() == {"first", "second", "slept", "qlora"}
    assert all(gap <= 1e-4 for gap in result["canary"].values())
    assert all(gap > 1e-2 for gap in result["stale"].values())  # each sync changed the weights: the bound can fail


@pytest.mark.slow
def test_names_are_compared_and_the_base_is_loaded_once(result: dict[str, Any]) -> None:
    n_names, alike, n_layers, base = result["names"]
    assert n_names > 250 and alike and n_layers == 30 * 7
    assert base == result["base_stays"] == "below step 1"


@pytest.mark.slow
def test_a_model_folder_runs_without_the_adapter(result: dict[str, Any]) -> None:
    assert result["after_folder"] and result["moved"]


@pytest.mark.slow
def test_layers_that_vllm_does_not_adapt_are_reported_in_one_line(result: dict[str, Any]) -> None:
    start = "engine.policy.lora_sync=adapter: "
    assert result["head"].startswith(
        f"{start}the engine lacks 1 of the trainer's 31 adapted layers (lm_head …) and would silently"
    )
    assert result["embedding"].startswith(f"{start}only LoRA matrices of linear layers can be synced as an adapter")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.adapter=lora"], ""),
        (["model.adapter=qlora", "model.lora.rslora=true", "model.lora.r=512"], ""),
        ([], "model.adapter=full trains no adapter; use merged"),
        (
            ["model.adapter=lora", "model.lora.dora=true"],
            r"vLLM does not support DoRA .*; use merged, or model\.lora\.dora=false",
        ),
        (["model.adapter=lora", "model.lora.r=513"], r"vLLM supports ranks up to 512, not model\.lora\.r=513"),
    ],
)
def test_adapters_that_cannot_be_synced_are_rejected_before_anything_starts(overrides: list[str], message: str) -> None:
    for sync in ("merged", "adapter"):
        values = compose.plain(compose.compose([*overrides, f"engine.policy.lora_sync={sync}"]))
        node = values["engine"]["policy"]
        if message and sync == "adapter":
            with pytest.raises(ConfigError, match=rf"engine\.policy\.lora_sync=adapter: {message}"):
                nodes.check_engine(node, "engine.policy")
        else:
            nodes.check_engine(node, "engine.policy")
    with pytest.raises(ConfigError, match=r"engine\.policy\.lora_sync=both: no such value; use one of merged, adapter"):
        nodes.check_engine({**node, "lora_sync": "both"}, "engine.policy")


@pytest.mark.parametrize(("rank", "room"), [(1, 1), (2, 8), (16, 16), (33, 64), (512, 512)])
def test_an_engine_has_room_for_the_rank(rank: int, room: int) -> None:
    assert vllm_lora.options(rank)["max_lora_rank"] == room


class Recorder:
    """Replaces `vllm.LLM`, and records the calls in order."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.llm_engine = self

    def sleep(self, level: int) -> None:
        self.calls.append(("sleep", level))

    def wake_up(self, tags: list[str]) -> None:
        self.calls.append(("wake_up", *tags))

    def collective_rpc(self, name: str, kwargs: dict[str, Any]) -> None:
        self.calls.append((name, *(key for key, _ in kwargs["weights_iterator"])))

    def add_lora(self, request: Any) -> None:
        files = sorted(path.name for path in Path(request.lora_path).iterdir())
        self.calls.append(("add_lora", request.lora_int_id, *files))

    def reset_prefix_cache(self) -> bool:
        self.calls.append(("reset_prefix_cache",))
        return True

    def apply_model(self, function: Any) -> list[frozenset[str]]:
        return [frozenset({"model.layers.0.q_proj", "other"}), frozenset({"model.layers.0.q_proj"})]


def test_after_sleep_the_weights_are_loaded_before_the_adapter() -> None:
    engine, llm = VllmEngine(ModelSettings(adapter="lora"), sleep=True, lora_sync="adapter"), Recorder()
    engine._llm = llm
    pair = {f"base_model.model.model.layers.0.q_proj.lora_{part}.weight": torch.ones(2, 2) for part in "AB"}
    adapter = Adapter({"r": 2}, pair)
    with pytest.raises(RuntimeError, match="an adapter needs base weights"):
        engine.load_adapter(adapter, "step 0")
    files = ("adapter_config.json", "adapter_model.safetensors")
    for step in (1, 2):
        assert engine.sleep() and engine.sleep() and engine.base_version == ""
        engine.load_weights([("w", torch.ones(1))], "below")
        engine.load_adapter(adapter, f"step {step}")
        asleep = [("sleep", 2), ("wake_up", "weights"), ("reload_weights", "w"), ("wake_up", "kv_cache")]
        forget = ("reset_prefix_cache",)
        assert llm.calls == [*asleep, forget, ("add_lora", step, *files), forget]
        assert (engine.base_version, engine.weights_version) == ("below", f"step {step}")
        assert engine.adapter_layers == adapter.layers  # those that every worker accepted
        llm.calls.clear()
