"""Adapters in the real engine, apart from the weights below them, in a process of its own: it leaves things behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from finr1.engine import vllm_lora
from finr1.engine.vllm import VllmEngine
from finr1.errors import ConfigError

PROGRAM = """
import json, sys
import torch
from pathlib import Path
from finr1.data.attention import register
from finr1.engine.base import Request, Sampling
from finr1.engine.vllm import VllmEngine
from finr1.errors import ConfigError
from finr1.grpo.canary import Canary
from finr1.grpo.rollout import Sampler
from finr1.model.load import checkpoint_weights, load_trainable, resolve
from finr1.model.settings import LoraSettings, ModelSettings
from finr1.types import Message, Question


def stir(model, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.02)


def main():
    settings = ModelSettings(max_model_len=256, adapter="lora", dtype="float32", lora=LoraSettings(r=5, alpha=9, rslora=True))
    folder = resolve(settings)
    engine = VllmEngine(settings, kv_cache_gib=0.2, max_num_seqs=16, lora_sync="adapter")
    sampler = Sampler(engine, Sampling(n=2, temperature=0.8, max_new_tokens=12), None, "float32")
    questions = [Question("t", text, "en", "reasoning business", "number", [Message(role="user", content=text)], "1") for text in ("3 percent of 200?", "A bank?")]
    text = "The revenue of the bank in 2019 was 3.4 million dollars, 12% more than in 2018, as interest income rose."
    canary = Canary(engine, engine.llm.get_tokenizer().encode(text), 1e9)
    engine.load_folder(folder)
    first, before = [c.text for g in sampler.sample(questions) for c in g.completions], engine.weight_names

    found = {"canary": {}, "stale": {}}
    def follow(name, model, version):
        found["stale"][name] = canary.check(model, 0)
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

    # A sleeping engine has dropped its weights: as nothing here can sleep, others stand in its place.
    engine.load_weights(((n, torch.zeros_like(w)) for n, w in checkpoint_weights(model, "float32")), "")
    follow("slept", model, "step 3")

    engine.load_folder(folder)
    found["after_folder"] = [c.text for g in sampler.sample(questions) for c in g.completions] == first
    found["moved"] = moved != first and len(moved) == 4

    torch.manual_seed(0)
    packed = load_trainable(folder, ModelSettings(adapter="qlora", dtype="float32", lora=settings.lora), register())
    for module in packed.modules():
        if hasattr(module, "compute_dtype"):  # of the 4-bit layers: bf16 would hide small faults
            module.compute_dtype = torch.float32
    stir(packed, 3)
    follow("qlora", packed, "step 4")

    for name, lora in {"head": {"targets": ".*(lm_head|q_proj)"}, "embedding": {"targets": ".*(embed_tokens|q_proj)"},
                       "dora": {"dora": True}}.items():
        other = load_trainable(folder, ModelSettings(adapter="lora", dtype="float32", lora=LoraSettings(r=5, **lora)), register())
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
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive"}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=600, env=environment, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    (line,) = (line for line in run.stdout.splitlines() if line.startswith("RESULT"))
    return json.loads(line.removeprefix("RESULT"))  # type: ignore[no-any-return]


@pytest.mark.slow
def test_print(result: dict[str, Any]) -> None:
    print(json.dumps(result, indent=1))
