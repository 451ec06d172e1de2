"""Settings of the distil stage."""

from dataclasses import dataclass, field
from typing import ClassVar

from finr1.settings.bounds import Bounded, least
from finr1.settings.sampling import Sampling


@dataclass
class DistilSettings(Bounded, key="distil"):
    """How the teacher generates traces."""

    sampling: Sampling = field(default_factory=lambda: Sampling(n=1, temperature=0.6, max_new_tokens=512))
    boxed: bool = True  # request \boxed{} in the question's language unless its text does (Fin-R1, README)
    chunk: int = least(64, 1)  # questions per call of an engine without streaming
    stop_after_failed_calls: int = least(128, 0)  # consecutive failed calls of engine.teacher end the stage; 0: never
    retry_failed: bool = False  # ask again what failed before, also in a finished stage

    operational: ClassVar[frozenset[str]] = frozenset({"stop_after_failed_calls", "retry_failed"})  # in no fingerprint
