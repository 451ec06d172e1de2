"""Find a model, load it for training, and write it out so that transformers and `vllm serve` load it."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finr1.engine.base import Adapter
from finr1.errors import ConfigError
from finr1.model import embedded
from finr1.model.settings import ModelSettings
from finr1.ranks import ALONE, Ranks
from finr1.store import read_json, write_json
from finr1.types import Message

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = "embedded:"
ADAPTER = "adapter"  # below a model folder: what was trained, where that is an adapter


def resolve(settings: ModelSettings) -> Path:
    """The local folder of the model; an embedded one is unpacked, a hub id downloaded or taken from the hub's cache."""
    if settings.path.startswith(EMBEDDED):
        return embedded.unpack(settings.path.removeprefix(EMBEDDED))
    folder = Path(settings.path).expanduser()
    if folder.is_dir():
        return folder
    return from_hub("model.path", settings.path)


def from_hub(key: str, name: str) -> Path:
    """A hub model's local folder (safetensors only); ConfigError where it is neither a folder nor to be had."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]))
    except Exception as error:
        reason = str(error).splitlines()[0][:120]
        why = f"no such folder, and the hub does not give it ({type(error).__name__}: {reason})"
        raise ConfigError(key, name, why, "give a model folder, or a hub id with the network at hand") from error


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer, which must have a chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if not tokenizer.chat_template:
        raise ConfigError("model.path", folder, "its tokenizer has no chat template", "use an instruct model")
    return tokenizer


def load_trainable(folder: Path, settings: ModelSettings, attention: str) -> Any:
    """The model for training: fp32 weights (the trainer's autocast chooses the computing type), caches off.

    `attention` names an implementation registered with transformers. With `adapter=lora` only the adapters train; with
    `qlora` the linear layers below them are in 4 bits (NF4, double quantisation: QLoRA, arXiv 2305.14314 §3), the head
    is not, and products are in bf16.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from finr1.model.embedding import lean_vocabulary
    from finr1.model.mlp import lean_mlps
    from finr1.model.norm import fuse_norms

    quiet()
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation=attention,
        trust_remote_code=settings.trust_remote_code,
        use_safetensors=True,
        quantization_config=_nf4() if settings.adapter == "qlora" else None,
    )
    model.hf_quantizer = None  # else save_pretrained would write packed weights in place of merged ones
    model.config.use_cache = False
    if getattr(model.config, "sliding_window", None) and getattr(model.config, "use_sliding_window", True):
        raise ConfigError("model.path", folder, "it uses sliding-window attention", "use a model with full attention")
    if settings.adapter != "full":
        from peft import LoraConfig, get_peft_model

        lora = settings.lora
        config = LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
            use_dora=lora.dora,
            use_rslora=lora.rslora,
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(model, config)
    fuse_norms(model)
    lean_vocabulary(core(model))
    if settings.gradient_checkpointing:
        core(model).gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        lean_mlps(model)
    model.train()
    return model


def _nf4() -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    # On CPU it would ask for the package of faster kernels, which fetches them from the hub.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def core(model: Any) -> PreTrainedModel:
    """The transformers model inside a peft wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[no-any-return]


def checkpoint_weights(model: Any, dtype: str, merged: bool = True) -> Iterator[tuple[str, Tensor]]:
    """The weights as a checkpoint names them, adapters merged, tied copies left out, cast to `dtype`.

    Weights in 4 bits leave as what they stand for; adapters are merged into that. With `merged=False` the weights leave
    as they are below the adapters. Of weights in pieces every rank must walk this, and gets each one whole. The model
    is left as it was, to the last bit.
    """
    import torch

    kind = getattr(torch, dtype)
    inner = core(model)
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
    pieces = any(hasattr(weight, "full_tensor") for weight in core(model).parameters())
    if not (ranks.first or pieces):
        return
    for name, weight in checkpoint_weights(model, settings.dtype):
        if ranks.first:
            weights[name] = weight.cpu()
    if not ranks.first:
        return
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    inner = core(model)
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


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    """Token ids of the chat up to where the assistant begins."""
    chat: Any = messages
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
    return list(ids)


def completion_ids(tokenizer: PreTrainedTokenizerBase, messages: list[Message], text: str) -> list[int]:
    """Token ids of an assistant's answer, its end-of-turn token included: what the loss is taken over.

    ValueError where the chat template does not render the answer as `prompt + answer + end of turn`: the mask would be
    wrong (a template that strips or moves the thinking, for example).
    """
    ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
    chat: Any = [*messages, Message(role="assistant", content=text)]
    whole = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)
    expected = prompt_ids(tokenizer, messages) + ids
    if list(whole)[: len(expected)] != expected:
        raise ValueError("the chat template does not render an answer as prompt + answer + end of turn")
    return ids


def quiet() -> None:
    """No loading bars nor advice from transformers: the stage has its own bar."""
    from transformers.utils import logging

    untyped: Any = logging
    untyped.disable_progress_bar()
    untyped.set_verbosity_error()
