"""Settings of the chat command."""

from __future__ import annotations

from dataclasses import dataclass

from finr1.core.errors import ConfigError
from finr1.core.prompt import scenarios


@dataclass
class ChatSettings:
    """Which server is asked, and how."""

    base_url: str = "http://127.0.0.1:8000/v1"
    model: str | None = None  # the server's name for it; null: the first that it serves
    api_key_env: str | None = None  # name of the environment variable that holds the key; null: none is sent
    preset: str | None = None  # a scenario of finr1/prompt, such as compliance; null: prompt.system
    ask: str | None = None  # one question, answered and done; null: a conversation
    temperature: float = 0.7  # Fin-R1's model card
    top_p: float = 0.8
    max_new_tokens: int = 2048
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")) or "@" in self.base_url:
            raise ConfigError("chat.base_url", "…", "not an address without a secret", "give one like https://host/v1")
        if self.preset is not None and self.preset not in scenarios():
            raise ConfigError("chat.preset", self.preset, "no such scenario", f"use one of {', '.join(scenarios())}")
        if self.max_new_tokens < 1:
            raise ConfigError("chat.max_new_tokens", self.max_new_tokens, "no token at all", "use 1 or more")
