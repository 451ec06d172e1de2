"""Benchmarks: which questions a model is scored on, and which figures beyond accuracy are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from finr1.core.types import Question


class Outcome(NamedTuple):
    """One greedy answer, as the figures of a benchmark see it: the answer read (None: none found) and the gold."""

    question: Question
    answer: str | None
    correct: float | None


class Benchmark(Protocol):
    """A set of held-out questions."""

    name: str

    def load(self) -> Sequence[Question]:
        """The questions, every one with gold, in a stable order, already limited and seeded."""
        ...

    def figures(self, outcomes: Sequence[Outcome]) -> Mapping[str, float]:
        """Figures beyond accuracy (macro-F1, the majority-class baseline, ...); empty where there are none."""
        ...


Figures = Callable[[NDArray[np.float64]], Mapping[str, NDArray[np.float64]]]


@runtime_checkable
class Resampled(Protocol):
    """A benchmark that says what some of its figures would be on resamples of its questions: their intervals."""

    def resampled(self, outcomes: Sequence[Outcome]) -> Figures | None:
        """Of `weight_BQ`, how often resample b counts outcome q, figure -> its B values; NaN: there is none.

        None where the benchmark has no such figures.
        """
        ...


@runtime_checkable
class Categories(Protocol):
    """A benchmark whose questions have categories, which the report shows apart."""

    def category(self, question: Question) -> str:
        """The category's name; empty where the question has none."""
        ...
