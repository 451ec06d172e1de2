"""How completions are sampled."""

from dataclasses import dataclass

from finr1.core.errors import ConfigError
from finr1.settings.bounds import Bounded, above, least


@dataclass
class Sampling(Bounded, key="sampling"):
    """How completions are sampled."""

    n: int = least(1, 1)  # completions per request
    temperature: float = least(1.0, 0)  # 0 is greedy
    top_p: float = above(1.0, 0, up_to=1)
    top_k: int = -1  # -1: off
    max_new_tokens: int = least(160, 1)
    regex: str | None = None  # structured output: the completion must match this regular expression
    repetition_penalty: float = above(1.0, 0)  # above 1: tokens of the prompt and completion so far become less likely

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n > 1 and self.temperature == 0:
            why = "greedy samples are identical"
            raise ConfigError("sampling.n", self.n, why, "set temperature above 0, or n=1")

    def seed_values(self) -> tuple[object, ...]:
        """The settings that a request's seed depends on; a neutral `repetition_penalty` is left out."""
        plain = (self.n, self.temperature, self.top_p, self.top_k, self.max_new_tokens, self.regex)
        return plain if self.repetition_penalty == 1 else (*plain, self.repetition_penalty)
