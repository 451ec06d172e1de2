"""Load a model for training."""

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from finr1.core.cpu import has_bf16
from finr1.core.errors import ConfigError
from finr1.parts.model.folder import first_line, quiet
from finr1.settings.model import ModelSettings
from finr1.training.model.cpu.embedding import lean_vocabulary
from finr1.training.model.cpu.mlp import lean_mlps
from finr1.training.model.cpu.norm import fuse_norms


def load_trainable(folder: Path, settings: ModelSettings, attention: str) -> Any:
    """Load the model for training: fp32 weights (autocast decides the compute dtype), key-value cache off.

    `attention` names an implementation registered with transformers. With `adapter=lora` only the adapters are trained;
    with `qlora` the linear layers below them, except the head, are stored in 4 bits (NF4 with double quantisation:
    QLoRA, arXiv 2305.14314 §3) and computed in bf16, or in fp32 on a CPU without bf16 instructions. ConfigError for
    what transformers cannot load, adapters on no layer, and gradient checkpointing that the model lacks.
    """
    quiet()
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation=attention,
            trust_remote_code=settings.trust_remote_code,
            use_safetensors=True,
            quantization_config=_nf4() if settings.adapter == "qlora" else None,
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        why = f"transformers cannot load it ({first_line(error)})"
        remedy = "give the folder of a causal language model: config.json and safetensors"
        raise ConfigError("model.path", folder, why, remedy) from error
    model.hf_quantizer = None  # else save_pretrained would write the 4-bit weights instead of the merged ones
    model.config.use_cache = False
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
        try:
            model = get_peft_model(model, config)
        except ValueError as error:
            linear = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
            names = sorted({n.rpartition(".")[2] for n, m in linear.items() if m is not model.get_output_embeddings()})
            why, remedy = f"no adapter fits ({first_line(error)})", f"use all-linear, or some of {', '.join(names)}"
            raise ConfigError("model.lora.targets", lora.targets, why, remedy) from error
    fuse_norms(model)
    lean_vocabulary(base_model(model))
    if settings.gradient_checkpointing and not base_model(model).supports_gradient_checkpointing:
        why = f"{type(base_model(model)).__name__} of transformers has none"
        raise ConfigError("model.gradient_checkpointing", "true", why, "use false")
    if settings.gradient_checkpointing:
        base_model(model).gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        lean_mlps(model)
    model.train()
    return model


def _nf4() -> Any:
    # On CPU it advises to install a package of faster kernels, which downloads them from the hub.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_available() or has_bf16() else torch.float32,
    )


def base_model(model: Any) -> PreTrainedModel:
    """The transformers model inside a peft wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[no-any-return]
