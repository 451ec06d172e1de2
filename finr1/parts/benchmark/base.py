"""The protocol of benchmarks: the questions a model is scored on, and metrics beyond accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from finr1.core.types import Question


class Outcome(NamedTuple):
    """One greedy answer as a benchmark's metrics see it: the parsed answer (None: none) and its correctness."""

    question: Question
    answer: str | None
    correct: float | None


class Benchmark(Protocol):
    """A set of held-out questions.

    One that leaves rows out has `left_out`: their number by reason, of the last `load`.
    """

    name: str

    def load(self) -> Sequence[Question]:
        """The questions in a stable order, sampled if there is a limit; each has a gold answer."""
        ...

    def figures(self, outcomes: Sequence[Outcome]) -> Mapping[str, float]:
        """Metrics beyond accuracy (macro-F1, the majority-class baseline, ...); may be empty."""
        ...


Figures = Callable[[NDArray[np.float64]], Mapping[str, NDArray[np.float64]]]


@runtime_checkable
class Resampled(Protocol):
    """A benchmark that can compute some of its metrics on resamples of its questions, for confidence intervals."""

    def resampled(self, outcomes: Sequence[Outcome]) -> Figures | None:
        """A function of `weight_BQ` (how often resample b counts outcome q) to B values per metric; NaN: undefined.

        None if the benchmark has no such metrics.
        """
        ...


@runtime_checkable
class Categories(Protocol):
    """A benchmark whose questions have categories, which the report shows separately."""

    def category(self, question: Question) -> str:
        """The question's category; empty if it has none."""
        ...
