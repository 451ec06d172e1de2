"""LoRA adapters in the vLLM engine, separate from the base weights (`lora_sync=adapter`).

vLLM reads an adapter from a folder in peft's format (its `LoRARequest` takes a path, not tensors), so each version is
written to disk and read once. Each has its own name, number and path: the prefix cache identifies adapters by name and
path, and an adapter reloaded in place (`load_inplace`) would be read again for every batch. vLLM silently ignores LoRA
matrices of modules it does not know; `taken` returns the layers that it has really loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finr1.core.errors import ConfigError
from finr1.parts.engine.base import Adapter

if TYPE_CHECKING:
    from torch.nn import Module

SYNCS = ("merged", "adapter")
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # supported by vLLM's kernels; a smaller adapter is padded


def check_sync(node: Mapping[str, Any], key: str) -> None:
    """Raise ConfigError for a `lora_sync` that the engine's model does not support."""
    sync, model = node.get("lora_sync", "merged"), node.get("model") or {}
    if sync not in SYNCS:
        raise ConfigError(f"{key}.lora_sync", sync, "no such value", f"use one of {', '.join(SYNCS)}")
    if sync == "merged":
        return
    lora = model.get("lora") or {}
    if model.get("adapter", "full") == "full":
        why, remedy = "model.adapter=full trains no adapter", "use merged, or model.adapter=lora"
    elif lora.get("dora"):
        why, remedy = "vLLM does not support DoRA (model.lora.dora=true)", "use merged, or model.lora.dora=false"
    elif lora.get("r", 0) > RANKS[-1]:
        why, remedy = (
            f"vLLM supports ranks up to {RANKS[-1]}, not model.lora.r={lora['r']}",
            "use merged, or a lower rank",
        )
    else:
        return
    raise ConfigError(f"{key}.lora_sync", sync, why, remedy)


def options(rank: int) -> dict[str, Any]:
    """Keyword arguments of `vllm.LLM` for one adapter of this rank."""
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": next(r for r in RANKS if r >= rank)}


def write(adapter: Adapter, folder: Path) -> None:
    """Write the two files that vLLM reads."""
    from safetensors.torch import save_file

    save_file(dict(adapter.weights), folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(adapter.config), encoding="utf-8")


def taken(model: Module) -> frozenset[str]:
    """The linear layers, by their transformers names, that have a LoRA A matrix; runs inside the engine.

    peft initialises A at random, so a matrix of zeros is one that vLLM has not loaded.
    """
    from vllm.lora.layers import BaseLayerWithLoRA

    fused: Mapping[str, list[str]] = getattr(model, "packed_modules_mapping", {})
    names: list[str] = []
    for name, layer in model.named_modules():
        stacked = getattr(layer, "lora_a_stacked", None)
        if isinstance(layer, BaseLayerWithLoRA) and isinstance(stacked, tuple):  # the head's is not a tuple
            owner, _, last = name.rpartition(".")
            parts = zip(fused.get(last, [last]), stacked, strict=True)
            names += [f"{owner}.{part}" for part, matrices in parts if matrices[0].any()]
    return frozenset(names)
