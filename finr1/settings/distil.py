"""Settings of the distil stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from finr1.core.errors import ConfigError
from finr1.settings.sampling import Sampling


@dataclass
class DistilSettings:
    """How the teacher is asked."""

    sampling: Sampling = field(default_factory=lambda: Sampling(n=1, temperature=0.6, max_new_tokens=512))
    boxed: bool = True  # ask for \boxed{}, in the question's language, where its text does not (Fin-R1, README)
    chunk: int = 64  # questions handed to the engine at once, unless it streams
    stop_after_failed_chunks: int = 2  # stop when this many chunks of questions in a row gave only errors; 0: never

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise ConfigError("distil.chunk", self.chunk, "nothing would be asked", "use 1 or more")
