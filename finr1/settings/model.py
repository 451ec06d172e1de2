"""Which language model, and in what form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from finr1.core.errors import ConfigError


@dataclass
class LoraSettings:
    """Low-rank adapters (peft); used when `model.adapter` is lora or qlora."""

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: str = "all-linear"
    dora: bool = False  # weights as magnitude and direction, the adapter on the direction (arXiv 2402.09353)
    rslora: bool = False  # scaled by alpha / sqrt(r), not alpha / r (arXiv 2312.03732)


@dataclass
class ModelSettings:
    """A causal language model of transformers.

    `path` is a folder, a hub id, or `embedded:<name>` for one that a package carries. `shape` is the model's
    config.json in yaml, for `dry_run` on a machine that cannot reach the hub.
    """

    name: str = "smollm2_135m"
    path: str = "embedded:smollm2_135m"
    dtype: str = "bfloat16"  # of exported weights and of the engine
    max_model_len: int = 1024  # tokens: prompt and completion
    adapter: str = "full"  # full | lora | qlora (lora over frozen weights in 4 bits)
    lora: LoraSettings = field(default_factory=LoraSettings)
    gradient_checkpointing: bool = False  # keep layers' inputs alone, compute the rest anew: slower
    attention: str = "auto"  # on a GPU: auto (flex attention where torch can compile it) | padded (never)
    trust_remote_code: bool = False
    shape: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.adapter not in ("full", "lora", "qlora"):
            raise ConfigError("model.adapter", self.adapter, "no such way to train", "use full, lora or qlora")
        if self.attention not in ("auto", "padded"):
            raise ConfigError("model.attention", self.attention, "no such attention", "use auto or padded")
        if self.dtype not in ("bfloat16", "float32", "float16"):
            raise ConfigError("model.dtype", self.dtype, "no such type of weights", "use bfloat16, float32 or float16")
        if self.max_model_len < 2:
            raise ConfigError("model.max_model_len", self.max_model_len, "no room for a token", "use 2 or more")
