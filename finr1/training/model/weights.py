"""Read a trained model's weights: merged with its adapters, the adapter alone, or exported to a folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finr1.core.errors import ConfigError
from finr1.core.files import read_json, replacing_folder, write_json
from finr1.core.ranks import ALONE, Ranks
from finr1.parts.engine.base import Adapter
from finr1.settings.model import ModelSettings
from finr1.training.model.load import base_model

ADAPTER = "adapter"  # subfolder of an exported model: the adapter that was trained


def checkpoint_weights(model: Any, dtype: str, merged: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights under their checkpoint names, adapters merged, tied copies omitted, cast to `dtype`.

    4-bit weights are dequantised before the merge. With `merged=False` the base weights below the adapters are yielded.
    If the weights are sharded, all ranks must iterate together; each gets full tensors. The model stays bit-identical.
    """
    kind = getattr(torch, dtype)
    inner = base_model(model)
    adapted = _adapted(inner) if merged and inner is not model else {}
    packed = {f"{name}.weight": layer.weight for name, layer in inner.named_modules() if is_packed(layer)}
    tied = set(getattr(inner, "all_tied_weights_keys", {}) or {})
    for name, tensor in inner.state_dict().items():
        weight, _, part = name.partition(".weight.")
        if name in tied or ".lora_" in name or (part and f"{weight}.weight" in packed):
            continue
        if name in packed:
            full = _dequantised(packed[name], adapted.get(name)).to(kind)
        else:
            full = _merged(adapted[name], kind) if name in adapted else whole(tensor.detach()).to(kind)
        yield name.replace(".base_layer.", "."), full


def adapter_of(model: Any, dtype: str) -> Adapter:
    """Copy the active adapter in `dtype` to the CPU; ConfigError if it has more than pairs of LoRA matrices.

    No engine takes what peft adds for DoRA, biases, fully trained modules and embeddings.
    """
    from peft import get_peft_model_state_dict

    name, kind = model.active_adapter, getattr(torch, dtype)
    weights: dict[str, Tensor] = {}
    for key, tensor in get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False).items():
        if not key.endswith((".lora_A.weight", ".lora_B.weight")):
            why = f"only LoRA matrices of linear layers can be synced as an adapter, and this one has {key}"
            raise ConfigError("engine.policy.lora_sync", "adapter", why, "use merged, or plain LoRA of linear layers")
        weights[key] = tensor.detach().to("cpu", kind, copy=True).contiguous()
    config = {k: sorted(v) if isinstance(v, set) else v for k, v in model.peft_config[name].to_dict().items()}
    return Adapter(config, weights)


def whole(tensor: Tensor) -> Tensor:
    """The full tensor of a sharded weight, on every rank; any other tensor unchanged."""
    gather = getattr(tensor, "full_tensor", None)
    return gather() if gather else tensor


def is_packed(layer: torch.nn.Module) -> bool:
    """Whether a layer's weight is stored in 4 bits."""
    return type(getattr(layer, "weight", None)).__name__ == "Params4bit"


def _dequantised(weight: Any, layer: Any | None) -> Tensor:
    """A 4-bit weight as a matrix, plus its layer's adapter if any: merged into 4 bits it would be rounded away."""
    from bitsandbytes.functional import dequantize_4bit

    full: Tensor = dequantize_4bit(weight.data, weight.quant_state)
    if layer is not None:
        for adapter in layer.active_adapters:
            full = full + layer.get_delta_weight(adapter).detach()
    return full


def _adapted(inner: PreTrainedModel) -> dict[str, Any]:
    """The layers with an adapter, by the name of the weight it changes."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    named = inner.named_modules()
    return {f"{name}.base_layer.weight": layer for name, layer in named if isinstance(layer, BaseTunerLayer)}


def _merged(layer: Any, kind: torch.dtype) -> Tensor:
    """A copy of a layer's weight with its adapter merged."""
    before = layer.get_base_layer().weight.detach().clone()
    layer.merge()
    merged: Tensor = layer.get_base_layer().weight.detach().to(kind, copy=True)
    layer.unmerge()
    # Unmerging subtracts what merging added, with rounding: the frozen weights would drift step by step.
    layer.get_base_layer().weight.data.copy_(before)
    return merged


def export(
    model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, settings: ModelSettings, ranks: Ranks = ALONE
) -> None:
    """Write a model folder atomically: merged safetensors, config, tokenizer, chat template.

    Adapters are also saved alone in `adapter/`, in peft's format and the precision they were trained in; those of
    `qlora` belong on the 4-bit weights. Every rank calls this; the first one writes.
    """
    weights: dict[str, Tensor] = {}
    sharded = any(hasattr(weight, "full_tensor") for weight in base_model(model).parameters())
    if not (ranks.first or sharded):
        return
    for name, weight in checkpoint_weights(model, settings.dtype):
        if ranks.first:
            weights[name] = weight.cpu()
    if not ranks.first:
        return
    inner = base_model(model)
    with replacing_folder(folder) as temporary:
        inner.save_pretrained(temporary, state_dict=weights)
        # save_pretrained writes the dtype, cache setting and quantisation of the model in memory: fp32, off, or 4 bits.
        config = read_json(temporary / "config.json")
        config.pop("quantization_config", None)
        write_json(temporary / "config.json", {**config, "dtype": settings.dtype, "use_cache": True})
        tokenizer.save_pretrained(temporary)
        if inner is not model:
            # Embeddings are not trained; "auto" would query the hub about them.
            model.save_pretrained(temporary / ADAPTER, save_embedding_layers=False)
            (temporary / ADAPTER / "README.md").unlink()  # peft's empty model card
