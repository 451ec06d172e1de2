"""Benchmark `worked`: held-out questions of the generated source."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from finr1.core.errors import ConfigError
from finr1.core.types import Question
from finr1.parts.benchmark.base import Outcome
from finr1.parts.source.base import Source


class Worked:
    """The first `limit` questions that `source` holds out."""

    name = "worked"

    def __init__(self, source: Source, limit: int = 256) -> None:
        if limit < 1:
            raise ConfigError("benchmark.worked.limit", limit, "no question is left", "use 1 or more")
        self.source, self.limit = source, limit

    def load(self) -> Sequence[Question]:
        """The held-out questions in the source's order; ConfigError if there are fewer than `limit`."""
        questions = [question for question in self.source.load() if question.split == "test"][: self.limit]
        if len(questions) < self.limit:
            why = f"its source holds out only {len(questions)} questions"
            raise ConfigError("benchmark.worked.limit", self.limit, why, "lower it, or raise the source's n_test")
        return questions

    def category(self, question: Question) -> str:
        """The question's group of templates."""
        return str(question.meta["group"])

    def figures(self, outcomes: Sequence[Outcome]) -> Mapping[str, float]:
        """Accuracy over decided answers by language and by group of templates: `accuracy/en`, `accuracy/bonds`."""
        decided: dict[str, list[float]] = defaultdict(list)
        for question, _, correct in outcomes:
            if correct is not None:
                decided[question.language].append(correct)
                decided[str(question.meta["group"])].append(correct)
        return {f"accuracy/{key}": sum(values) / len(values) for key, values in sorted(decided.items())}
