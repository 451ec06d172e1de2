"""How completions are drawn."""

from __future__ import annotations

from dataclasses import dataclass

from finr1.core.errors import ConfigError


@dataclass
class Sampling:
    """How completions are drawn."""

    n: int = 1  # completions a request
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = -1  # -1: off
    max_new_tokens: int = 160
    regex: str | None = None  # structured output: the completion must match this regular expression
    repetition_penalty: float = 1.0  # above 1: what prompt or completion holds already becomes less likely; 1: off

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError("sampling.n", self.n, "at least one completion is needed", "set it to 1 or more")
        if self.temperature < 0:
            raise ConfigError("sampling.temperature", self.temperature, "it cannot be negative", "use 0 for greedy")
        if not 0 < self.top_p <= 1:
            raise ConfigError("sampling.top_p", self.top_p, "it is a probability mass", "use a value in (0, 1]")
        if self.repetition_penalty <= 0:
            raise ConfigError("sampling.repetition_penalty", self.repetition_penalty, "it divides", "use 1 for none")
        if self.max_new_tokens < 1:
            raise ConfigError("sampling.max_new_tokens", self.max_new_tokens, "no token at all", "use 1 or more")
        if self.n > 1 and self.temperature == 0:
            raise ConfigError("sampling.n", self.n, "greedy samples are all alike", "set temperature above 0, or n=1")

    def drawn_by(self) -> tuple[object, ...]:
        """What decides the draws; a setting at its neutral value is left out, so that adding one changes no seed."""
        plain = (self.n, self.temperature, self.top_p, self.top_k, self.max_new_tokens, self.regex)
        return plain if self.repetition_penalty == 1 else (*plain, self.repetition_penalty)
