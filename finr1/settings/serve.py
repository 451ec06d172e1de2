"""Settings of the serve command."""

from dataclasses import dataclass, field

from finr1.settings.bounds import Bounded, above, least, within


@dataclass
class ServeSettings(Bounded, key="serve"):
    """Which model to serve, and how."""

    model: str | None = None  # base, sft, grpo or a model folder; null: the run's last trained model
    name: str | None = None  # the model's name for clients; null: the run's name
    host: str = "127.0.0.1"  # any other address requires a key
    port: int = within(8000, 1, 65535)
    api_key_env: str | None = None  # name of the environment variable with the key that every route but /health needs
    max_model_len: int | None = least(None, 2)  # null: model.max_model_len
    tensor_parallel_size: int = least(1, 1)  # GPUs per model
    kv_cache_gib: float = above(1.0, 0)  # on CPU only
    chat_template: str | None = None  # a file, for a model folder without one
    reasoning_parser: str | None = None  # a parser of vLLM, such as deepseek_r1; null: tags stay in the text
    extra: list[str] = field(default_factory=list)  # more arguments for vLLM's server
