"""The weights of a model as a checkpoint names them: merged with its adapters, or the adapter's alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finr1.core.errors import ConfigError
from finr1.core.files import read_json, write_json
from finr1.core.ranks import ALONE, Ranks
from finr1.parts.engine.base import Adapter
from finr1.settings.model import ModelSettings
from finr1.training.model.load import base_model

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTER = "adapter"  # below a model folder: what was trained, where that is an adapter


def checkpoint_weights(model: Any, dtype: str, merged: bool = True) -> Iterator[tuple[str, Tensor]]:
    """The weights as a checkpoint names them, adapters merged, tied copies left out, cast to `dtype`.

    Weights in 4 bits leave as what they stand for; adapters are merged into that. With `merged=False` the weights leave
    as they are below the adapters. Of weights in pieces every rank must walk this, and gets each one whole. The model
    is left as it was, to the last bit.
    """
    import torch

    kind = getattr(torch, dtype)
    inner = base_model(model)
    adapted = _adapted(inner) if merged and inner is not model else {}
    packed = {f"{name}.weight": layer.weight for name, layer in inner.named_modules() if _is_packed(layer)}
    tied = set(getattr(inner, "all_tied_weights_keys", {}) or {})
    for name, tensor in inner.state_dict().items():
        weight, _, part = name.partition(".weight.")
        if name in tied or ".lora_" in name or (part and f"{weight}.weight" in packed):
            continue
        if name in packed:
            found = _unpacked(packed[name], adapted.get(name)).to(kind)
        else:
            found = _merged(adapted[name], kind) if name in adapted else whole(tensor.detach()).to(kind)
        yield name.replace(".base_layer.", "."), found


def adapter_of(model: Any, dtype: str) -> Adapter:
    """A copy of the active adapter in `dtype`, on the CPU; ConfigError where it is more than pairs of matrices.

    What peft adds for DoRA, for biases and for modules trained whole, and adapters of embeddings, are in no engine.
    """
    import torch
    from peft import get_peft_model_state_dict

    name, kind = model.active_adapter, getattr(torch, dtype)
    weights: dict[str, Tensor] = {}
    for key, tensor in get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False).items():
        if not key.endswith((".lora_A.weight", ".lora_B.weight")):
            why = f"only pairs of matrices of linear layers can be handed over apart, and here is {key}"
            raise ConfigError("engine.policy.lora_sync", "adapter", why, "use merged, or plain LoRA of linear layers")
        weights[key] = tensor.detach().to("cpu", kind, copy=True).contiguous()
    config = {k: sorted(v) if isinstance(v, set) else v for k, v in model.peft_config[name].to_dict().items()}
    return Adapter(config, weights)


def whole(tensor: Tensor) -> Tensor:
    """A weight that lies in pieces on several ranks as one tensor on each; others as they are."""
    gather = getattr(tensor, "full_tensor", None)
    return gather() if gather else tensor


def _is_packed(layer: torch.nn.Module) -> bool:
    return type(getattr(layer, "weight", None)).__name__ == "Params4bit"


def _unpacked(weight: Any, layer: Any | None) -> Tensor:
    """A 4-bit weight as a matrix, with the layer's adapter if it has one: merging into 4 bits would round it away."""
    from bitsandbytes.functional import dequantize_4bit

    full: Tensor = dequantize_4bit(weight.data, weight.quant_state)
    if layer is not None:
        for adapter in layer.active_adapters:
            full = full + layer.get_delta_weight(adapter).detach()
    return full


def _adapted(inner: PreTrainedModel) -> dict[str, Any]:
    """The layers with an adapter, by the name of the weight that it changes."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    named = inner.named_modules()
    return {f"{name}.base_layer.weight": layer for name, layer in named if isinstance(layer, BaseTunerLayer)}


def _merged(layer: Any, kind: torch.dtype) -> Tensor:
    """A copy of a layer's weight with its adapter merged."""
    kept = layer.get_base_layer().weight.detach().clone()
    layer.merge()
    merged: Tensor = layer.get_base_layer().weight.detach().to(kind, copy=True)
    layer.unmerge()
    # Unmerging takes off what merging added, and rounds: step by step the frozen weights would drift.
    layer.get_base_layer().weight.data.copy_(kept)
    return merged


def export(
    model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, settings: ModelSettings, ranks: Ranks = ALONE
) -> None:
    """Write a model folder, whole or not at all: merged safetensors, config, tokenizer, chat template.

    Adapters lie apart in `adapter/` too, in the form of peft and the precision they were trained in. Below `qlora` they
    belong to the weights in 4 bits, as `model.adapter=qlora` loads them. Every rank calls this; the first one writes.
    """
    weights: dict[str, Tensor] = {}
    pieces = any(hasattr(weight, "full_tensor") for weight in base_model(model).parameters())
    if not (ranks.first or pieces):
        return
    for name, weight in checkpoint_weights(model, settings.dtype):
        if ranks.first:
            weights[name] = weight.cpu()
    if not ranks.first:
        return
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    inner = base_model(model)
    inner.save_pretrained(temporary, state_dict=weights)
    # save_pretrained writes type, cache setting and quantisation of the model in memory: fp32, no cache, or 4 bits.
    config = read_json(temporary / "config.json")
    config.pop("quantization_config", None)
    write_json(temporary / "config.json", {**config, "dtype": settings.dtype, "use_cache": True})
    tokenizer.save_pretrained(temporary)
    if inner is not model:
        # Embeddings are not trained: "auto" would ask the hub whether they were.
        model.save_pretrained(temporary / ADAPTER, save_embedding_layers=False)
        (temporary / ADAPTER / "README.md").unlink()  # a card with nothing filled in
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)
