"""A low-rank adapter in the vLLM engine, apart from the weights below it (`lora_sync=adapter`).

vLLM reads an adapter from a folder in peft's form (its `LoRARequest` has a path and nothing in memory), so each version
is written once and read at once. It comes under a name, number and path of its own: the cache of prefixes knows an
adapter by name and path, and one loaded again in place (`load_inplace`) would be read anew for every batch. Two LoRA
matrices of a name that its modules lack are left out in silence; `taken` says what is really there.
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
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's kernels are made for; a smaller adapter is padded


def check_sync(node: Mapping[str, Any], key: str) -> None:
    """ConfigError for a way to sync that this engine's model cannot take."""
    sync, model = node.get("lora_sync", "merged"), node.get("model") or {}
    if sync not in SYNCS:
        raise ConfigError(f"{key}.lora_sync", sync, "no such way", f"use one of {', '.join(SYNCS)}")
    if sync == "merged":
        return
    lora = model.get("lora") or {}
    if model.get("adapter", "full") == "full":
        why, remedy = "model.adapter=full trains no adapter", "use merged, or model.adapter=lora"
    elif lora.get("dora"):
        why, remedy = "vLLM has no DoRA (model.lora.dora=true)", "use merged, or model.lora.dora=false"
    elif lora.get("r", 0) > RANKS[-1]:
        why, remedy = f"vLLM takes ranks up to {RANKS[-1]}, not model.lora.r={lora['r']}", "use merged, or a lower rank"
    else:
        return
    raise ConfigError(f"{key}.lora_sync", sync, why, remedy)


def options(rank: int) -> dict[str, Any]:
    """Keywords of `vllm.LLM` for one adapter of this rank."""
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": next(r for r in RANKS if r >= rank)}


def write(adapter: Adapter, folder: Path) -> None:
    """The two files that vLLM reads."""
    from safetensors.torch import save_file

    save_file(dict(adapter.weights), folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(adapter.config), encoding="utf-8")


def taken(model: Module) -> frozenset[str]:
    """Names, as transformers has them, of the linear layers whose first matrix is there; run inside the engine.

    peft draws that matrix at random: one of zeros is one that vLLM has not put in.
    """
    from vllm.lora.layers import BaseLayerWithLoRA

    fused: Mapping[str, list[str]] = getattr(model, "packed_modules_mapping", {})
    found = []
    for name, layer in model.named_modules():
        stacked = getattr(layer, "lora_a_stacked", None)
        if isinstance(layer, BaseLayerWithLoRA) and isinstance(stacked, tuple):  # the head's is no tuple
            owner, _, last = name.rpartition(".")
            parts = zip(fused.get(last, [last]), stacked, strict=True)
            found += [f"{owner}.{part}" for part, matrices in parts if matrices[0].any()]
    return frozenset(found)
