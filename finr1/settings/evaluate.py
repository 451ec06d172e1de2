"""Settings of the evaluate stage."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from finr1.core.errors import ConfigError
from finr1.settings.bounds import Bounded, least, one_of
from finr1.settings.sampling import Sampling


@dataclass
class EvaluateSettings(Bounded, key="evaluate"):
    """Which models are scored, and how completions are sampled."""

    models: list[str] = field(default_factory=lambda: ["base", "sft", "grpo"])  # also model folders, engine roles
    greedy: bool = True  # one completion per question at temperature 0
    sampled: bool = True  # `sampling.n` completions per question
    sampling: Sampling = field(default_factory=lambda: Sampling(n=4, temperature=1.0, max_new_tokens=160))
    samples: dict[str, int] = field(default_factory=dict)  # model -> its `n` when sampled; sampling.n for the others
    scorer: str = one_of("rules", "llm", "rules_then_llm")  # llm: the model judges of judge.answer
    judge_repeats: int = least(1, 1)  # times that a model judges each answer: the majority counts
    reading: str = one_of("content", "strict")  # strict: an answer outside the answer block counts as none
    confidence: float = 0.95  # of every interval
    bootstrap_samples: int = least(10_000, 1)
    retry_failed: bool = False  # ask again what failed before, also in a finished stage

    operational: ClassVar[frozenset[str]] = frozenset({"retry_failed"})  # in no fingerprint

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.models:
            raise ConfigError("evaluate.models", "[]", "no model to score", "name base, sft, grpo or a folder")
        if not (self.greedy or self.sampled):
            raise ConfigError("evaluate.greedy", False, "sampled is off too", "turn one of them on")
        for model, n in self.samples.items():
            if n < 1:
                raise ConfigError(f"evaluate.samples.{model}", n, "must be at least 1", "use 1 or more")
        if not 0 < self.confidence < 1:
            raise ConfigError("evaluate.confidence", self.confidence, "it is a probability", "use 0.95")

    def modes(self, model: str = "") -> dict[str, Sampling]:
        """Mode -> how this model's completions are sampled; both have the same length limit."""
        greedy = replace(self.sampling, n=1, temperature=0.0, top_p=1.0, top_k=-1)
        sampled = replace(self.sampling, n=self.samples.get(model, self.sampling.n))
        return {**({"greedy": greedy} if self.greedy else {}), **({"sampled": sampled} if self.sampled else {})}
