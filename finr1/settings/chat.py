"""Settings of the chat command."""

from dataclasses import dataclass

from finr1.core.errors import ConfigError
from finr1.core.prompt import scenarios
from finr1.settings.bounds import Bounded, above, least
from finr1.settings.http import address


@dataclass
class ChatSettings(Bounded, key="chat"):
    """Which server to chat with, and how."""

    base_url: str = "http://127.0.0.1:8000/v1"
    model: str | None = None  # the server's name for it; null: the first model that it serves
    api_key_env: str | None = None  # name of the environment variable that holds the key; null: none is sent
    preset: str | None = None  # a scenario of finr1/core/prompt, such as compliance; null: prompt.system
    ask: str | None = None  # ask one question and exit; null: a conversation
    temperature: float = least(0.7, 0)  # Fin-R1's model card
    top_p: float = above(0.8, 0, up_to=1)
    max_new_tokens: int | None = least(None, 1)  # null: as many as the server's context leaves
    timeout_s: float = above(600.0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if address(self.base_url) is None or "@" in self.base_url:
            why = "not an address, or it contains a secret"
            raise ConfigError("chat.base_url", "…", why, "give one like https://host/v1")
        if self.preset is not None and self.preset not in scenarios():
            raise ConfigError("chat.preset", self.preset, "no such scenario", f"use one of {', '.join(scenarios())}")
