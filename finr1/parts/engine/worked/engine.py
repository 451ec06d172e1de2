"""Engine `worked`: renders a question's program as a reasoning trace, optionally with a planted fault.

It is a renderer, not a model: it reads the program, facts and labels that source `worked` wrote to `Question.meta`. It
replaces a teacher where there is no network and no GPU. Planted faults are recorded in `Completion.meta["fault"]`, so
that the filter's precision and recall can be measured.
"""

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
    """Renders `sampling.n` traces per question, determined by question, sample number and seed.

    A small model trained on `stepwise` traces is right more often than one trained on `leap`. Of the sampling settings
    only `n` has an effect.

    Args:
        fault_rate: share of traces with exactly one planted fault.
        faults: weights of the kinds of fault (see `FAULTS`).
        styles: weights of the styles: `stepwise` (given values, one labelled equation per step, percentages and long
            products broken down), `brief` (one bare equation per step), `leap` (the plan in words, all arithmetic in
            one expression).
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
            raise ConfigError("engine.teacher.fault_rate", fault_rate, "it is a share of the traces", "use 0 to 1")
        self.fault_rate, self.seed = fault_rate, seed
        self.faults = _weights("faults", faults, FAULTS)
        self.styles = _weights("styles", styles, STYLES)

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        """Return `sampling.n` completions per request; error completions for a question without a program."""
        results = []
        for index, request in enumerate(requests):
            completions = [self._complete(request.question, sample) for sample in range(sampling.n)]
            results.append(completions)
            if on_done:
                on_done(index, completions)
        return results

    def close(self) -> None:
        """Do nothing: there are no resources."""

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
            why = f"no worked solution: {error}" if "program" in question.meta else "the question has no program"
            return Completion(text="", finish_reason="error", error=why, meta={"fault": None, "style": style})
        reasoning = "\n".join(trace.lines)
        return Completion(text=render(reasoning, f"\\boxed{{{trace.answer}}}"), reasoning=reasoning, meta=meta)


def _weights(key: str, given: Mapping[str, float] | None, known: Mapping[str, float]) -> dict[str, float]:
    weights = dict(known if given is None else given)
    for name, weight in weights.items():
        if name not in known:
            raise ConfigError(f"engine.teacher.{key}", name, "unknown name", f"use some of {', '.join(known)}")
        if weight < 0:
            raise ConfigError(f"engine.teacher.{key}.{name}", weight, "must be at least 0", "use 0 or more")
    if not sum(weights.values()) > 0:
        raise ConfigError(f"engine.teacher.{key}", weights, "all weights are zero", "raise one of them")
    return weights
