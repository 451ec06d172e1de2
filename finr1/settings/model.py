"""Settings of the language model: its weights, adapters, and dtype."""

from dataclasses import dataclass, field
from typing import Any

from finr1.settings.bounds import Bounded, above, least, one_of, share


@dataclass
class LoraSettings(Bounded, key="model.lora"):
    """Low-rank adapters (peft); used when `model.adapter` is lora or qlora."""

    r: int = least(16, 1)  # rank
    alpha: int = above(32, 0)
    dropout: float = share(0.0, of="an adapter's inputs")
    targets: str = "all-linear"
    dora: bool = False  # train magnitude and direction of the weights separately (arXiv 2402.09353)
    rslora: bool = False  # scale by alpha / sqrt(r) instead of alpha / r (arXiv 2312.03732)


@dataclass
class ModelSettings(Bounded, key="model"):
    """A causal language model of transformers.

    `path` is a folder, a hub id, or `embedded:<name>` for a model that a Python package carries. `shape` is the model's
    config.json as yaml, for `dry_run` on a machine without access to the hub.
    """

    name: str = "smollm2_135m"
    path: str = "embedded:smollm2_135m"
    dtype: str = one_of("bfloat16", "float32", "float16")  # of exported weights and of the engine
    max_model_len: int = least(1024, 2)  # tokens, prompt and completion together
    adapter: str = one_of("full", "lora", "qlora")  # qlora: lora over frozen 4-bit weights
    lora: LoraSettings = field(default_factory=LoraSettings)
    gradient_checkpointing: bool = False  # recompute activations in the backward pass: less memory, slower
    attention: str = one_of("auto", "padded")  # on a GPU: auto (flex attention where torch compiles it) | padded
    rows: str = one_of("auto", "packed", "single")  # auto: packed, if a check finds the model's own log-probs in them
    trust_remote_code: bool = False
    shape: dict[str, Any] = field(default_factory=dict)
