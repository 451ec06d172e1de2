"""Settings of engine `http`; conf/engine/http.yaml lists them with their units."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from finr1.core.errors import ConfigError
from finr1.settings.bounds import above, check_bounds, least

CLIENTS = ("openai", "requests")
LEAD_INS = ("vllm", "deepseek")
# Settings that change how the server is reached or how fast, not what it is asked: completions on disk stay valid.
OPERATIONAL = frozenset(
    {"base_url", "client", "api_key_env", "concurrency", "requests_per_minute", "tokens_per_minute", "retries"}
    | {"backoff_s", "timeout_s", "max_spend_tokens", "max_spend_money", "price_in", "price_out"}
)


def address(text: object) -> SplitResult | None:
    """The parts of a server's address; None if it is none."""
    try:
        url = urlsplit(str(text))
        known = url.scheme in ("http", "https") and url.hostname and url.port != 0  # of another port: ValueError
    except ValueError:
        return None
    return url if known else None


def api_key(variable: str | None, setting: str) -> str:
    """The key in an environment variable, empty without a name; ConfigError, naming `setting`, if it is not set."""
    key = os.environ.get(variable or "", "").strip()
    if variable and not key:
        why = "no such environment variable, or it is empty"
        raise ConfigError(setting, variable, why, "export it, or set it to null")
    return key


@dataclass(frozen=True)
class HttpSettings:
    """How to call an OpenAI-compatible server."""

    model: str | None = None
    n_in_one_request: bool = True
    lead_in: str | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    base_url: str = "http://127.0.0.1:8000/v1"
    client: str = "openai"
    api_key_env: str | None = None
    concurrency: int = least(64, 1)
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    retries: int = least(6, 0)
    backoff_s: float = least(1.0, 0)
    timeout_s: float = above(600.0, 0)
    max_spend_tokens: int | None = None
    max_spend_money: float | None = None
    price_in: float = least(0.0, 0)
    price_out: float = least(0.0, 0)

    @property
    def api_key(self) -> str:
        """The key, read from the environment; empty if none is sent."""
        return os.environ.get(self.api_key_env or "", "").strip()

    @property
    def url(self) -> str:
        """The address of the chat completions endpoint."""
        return self.base_url.rstrip("/") + "/chat/completions"

    def check(self, key: str) -> None:
        """Raise ConfigError for the first invalid setting; `key` is the place of the settings in the configuration."""

        def refuse(name: str, why: str, remedy: str, value: object = None) -> None:
            raise ConfigError(f"{key}.{name}", getattr(self, name) if value is None else value, why, remedy)

        if not self.model:
            refuse("model", "the server needs a model name", f"set {key}.model=<its name there>")
        url = address(self.base_url)
        if url is None:
            refuse("base_url", "not an address", "give one like https://host/v1")
        elif url.username or url.password or url.query:
            remedy = f"put the key into an environment variable and name it in {key}.api_key_env"
            refuse("base_url", "it must not contain a secret", remedy, "…")
        if self.api_key_env and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(self.api_key_env)):
            refuse("api_key_env", "not the name of an environment variable", "give its name, never the key", "…")
        api_key(self.api_key_env, f"{key}.api_key_env")
        if self.client not in CLIENTS:
            refuse("client", "no such client", f"use one of {', '.join(CLIENTS)}")
        if self.lead_in not in (None, *LEAD_INS):
            refuse("lead_in", "no such lead-in", f"use null or one of {', '.join(LEAD_INS)}")
        check_bounds(key, self)
        for name in ("requests_per_minute", "tokens_per_minute", "max_spend_tokens", "max_spend_money"):
            if (value := getattr(self, name)) is not None and value <= 0:
                refuse(name, "no request could be sent", "use null for no limit")
        if self.max_spend_money is not None and not (self.price_in or self.price_out):
            refuse("max_spend_money", "it needs prices", f"set {key}.price_in and {key}.price_out")
