"""Settings of the serve command."""

from __future__ import annotations

from dataclasses import dataclass, field

from finr1.core.errors import ConfigError


@dataclass
class ServeSettings:
    """Which model is served, and to whom."""

    model: str | None = None  # base, sft, grpo or a model folder; null: the run's last
    name: str | None = None  # what clients call it; null: the run's name
    host: str = "127.0.0.1"  # another address needs a key
    port: int = 8000
    api_key_env: str | None = None  # name of the environment variable with the key that clients must send
    max_model_len: int | None = None  # null: model.max_model_len
    tensor_parallel_size: int = 1  # GPUs a model spans
    kv_cache_gib: float = 1.0  # on CPU; a fraction will do
    chat_template: str | None = None  # a file, for a folder that has none
    reasoning_parser: str | None = None  # of vLLM, such as deepseek_r1; null: tags stay in the text
    extra: list[str] = field(default_factory=list)  # more arguments of vLLM's server

    def __post_init__(self) -> None:
        for key, least in (("tensor_parallel_size", 1), ("max_model_len", 2), ("port", 1)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise ConfigError(f"serve.{key}", value, "too small", f"use {least} or more")
        if self.kv_cache_gib <= 0:
            raise ConfigError("serve.kv_cache_gib", self.kv_cache_gib, "no room for a token", "use a value above 0")
