"""Settings of the evaluate stage."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from finr1.core.errors import ConfigError
from finr1.settings.sampling import Sampling

SCORERS = ("rules", "llm", "rules_then_llm")


@dataclass
class EvaluateSettings:
    """Which models are scored, and how completions are sampled."""

    models: list[str] = field(default_factory=lambda: ["base", "sft", "grpo"])  # or a model folder, or an engine's role
    greedy: bool = True  # one completion per question at temperature 0
    sampled: bool = True  # `sampling.n` completions per question
    sampling: Sampling = field(default_factory=lambda: Sampling(n=4, temperature=1.0, max_new_tokens=160))
    samples: dict[str, int] = field(default_factory=dict)  # model -> its number of samples, in place of sampling.n
    scorer: str = (
        "rules"  # or llm (the judge models of judge.answer), rules_then_llm (a judge model where rules are undecided)
    )
    judge_repeats: int = 1  # how often the judge model judges each answer; the majority counts
    box_anywhere: bool = False  # without an answer block, read the last \\boxed{}, as Fin-R1's judge does
    confidence: float = 0.95  # of every interval
    bootstrap_samples: int = 10_000

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError("evaluate.models", "[]", "no model to score", "name base, sft, grpo or a folder")
        if not (self.greedy or self.sampled):
            raise ConfigError("evaluate.greedy", False, "evaluate.sampled is off too", "turn one of them on")
        if self.scorer not in SCORERS:
            raise ConfigError("evaluate.scorer", self.scorer, "no such scorer", f"use one of {', '.join(SCORERS)}")
        if self.judge_repeats < 1:
            raise ConfigError(
                "evaluate.judge_repeats",
                self.judge_repeats,
                "needs at least one verdict",
                "use 1 or more",
            )
        for model, n in self.samples.items():
            if n < 1:
                raise ConfigError(f"evaluate.samples.{model}", n, "needs at least one sample", "use 1 or more")
        if not 0 < self.confidence < 1:
            raise ConfigError("evaluate.confidence", self.confidence, "it must lie between 0 and 1", "use 0.95")
        if self.bootstrap_samples < 1:
            raise ConfigError("evaluate.bootstrap_samples", self.bootstrap_samples, "needs at least one", "use 10000")

    def modes(self, model: str = "") -> dict[str, Sampling]:
        """Return mode -> sampling settings of this model; both modes have the same length limit."""
        greedy = replace(self.sampling, n=1, temperature=0.0, top_p=1.0, top_k=-1)
        sampled = replace(self.sampling, n=self.samples.get(model, self.sampling.n))
        return {**({"greedy": greedy} if self.greedy else {}), **({"sampled": sampled} if self.sampled else {})}
