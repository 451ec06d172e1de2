"""Engine `worked`: writes a question's own program out as a reasoning trace, and plants faults on purpose.

It is a renderer, not a model: it reads the program, the facts and the labels that source `worked` put into
`Question.meta`, and needs no weights. It stands in for a teacher where there is no network and no GPU, and as every
planted fault is noted in `Completion.meta["fault"]`, it gives the filter's precision and recall.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from finr1.answer.program import ProgramError
from finr1.answer.tags import render
from finr1.core.errors import ConfigError
from finr1.core.types import Completion, Question, stable_id
from finr1.parts.engine.base import OnDone, Request
from finr1.parts.engine.worked.faults import FAULTS, plant
from finr1.parts.engine.worked.trace import STYLES, Solution, write
from finr1.settings.sampling import Sampling


class WorkedEngine:
    """Renders `sampling.n` traces a question, the same ones for the same (question, sample, seed).

    `fault_rate` is the share of traces with exactly one planted fault, `faults` weighs the kinds, `styles` the
    phrasings: `stepwise` (given values, one named equation a step, percentages and long products broken down), `brief`
    (one bare equation a step), `leap` (the steps in words, all arithmetic in one expression). A small model that
    imitates them is right more often in the first than in the last. Of the sampling settings only `n` has a meaning.
    """

    name = "worked"

    def __init__(
        self,
        fault_rate: float = 0.3,
        faults: Mapping[str, float] | None = None,
        styles: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        if not 0 <= fault_rate <= 1:
            raise ConfigError("engine.teacher.fault_rate", fault_rate, "it is a share", "use 0 to 1")
        self.fault_rate, self.seed = fault_rate, seed
        self.faults = _weights("faults", faults, FAULTS)
        self.styles = _weights("styles", styles, STYLES)

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        """One list of `sampling.n` completions a request; an error completion where a question has no program."""
        results = []
        for index, request in enumerate(requests):
            completions = [self._complete(request.question, sample) for sample in range(sampling.n)]
            results.append(completions)
            if on_done:
                on_done(index, completions)
        return results

    def close(self) -> None:
        """Nothing is held."""

    def _complete(self, question: Question, sample: int) -> Completion:
        rng = random.Random(stable_id("worked", self.seed, question.id, sample))
        style = rng.choices(list(self.styles), list(self.styles.values()))[0]
        fault = (
            rng.choices(list(self.faults), list(self.faults.values()))[0] if rng.random() < self.fault_rate else None
        )
        meta: dict[str, Any] = {"fault": fault, "style": style}
        try:
            solution = Solution.of(question)
            trace = write(solution, style) if fault is None else plant(solution, style, fault, rng)
        except (ProgramError, KeyError) as error:
            why = f"no worked solution: {error}" if "program" in question.meta else "the question carries no program"
            return Completion(text="", finish_reason="error", error=why, meta={"fault": None, "style": style})
        reasoning = "\n".join(trace.lines)
        return Completion(text=render(reasoning, f"\\boxed{{{trace.answer}}}"), reasoning=reasoning, meta=meta)


def _weights(key: str, given: Mapping[str, float] | None, known: Mapping[str, float]) -> dict[str, float]:
    weights = dict(known if given is None else given)
    for name, weight in weights.items():
        if name not in known:
            raise ConfigError(f"engine.teacher.{key}", name, "no such name", f"use some of {', '.join(known)}")
        if weight < 0:
            raise ConfigError(f"engine.teacher.{key}.{name}", weight, "a weight cannot be negative", "use 0 or more")
    if not sum(weights.values()) > 0:
        raise ConfigError(f"engine.teacher.{key}", weights, "all weights are zero", "raise one of them")
    return weights
