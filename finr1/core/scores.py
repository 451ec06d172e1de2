"""The rows of `6_scores/scores.json` and `paired.json`, which the evaluation writes, and report and tables read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from finr1.core.files import read_json


class _Flat:
    """A dataclass whose last field, a mapping, is written as further keys of the row."""

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = asdict(self)  # type: ignore[call-overload]
        values = row.pop("values")
        return {**row, **values}

    @classmethod
    def read(cls, path: Path) -> list[Self]:
        """The rows of a file; none where the stage has not run."""
        names = [name for name in cls.__annotations__ if name != "values"]
        rows = read_json(path) if path.is_file() else []
        return [cls(*map(row.pop, names), row) for row in rows]  # type: ignore[call-arg]


@dataclass(frozen=True)
class Score(_Flat):
    """The figures of one model on a benchmark in one mode. `headline` names the accuracy that counts."""

    benchmark: str
    model: str
    mode: str
    headline: str
    questions: int  # of the benchmark
    training_rows: Mapping[str, Any]  # what is known of the benchmark's documents in training: state, note
    values: Mapping[str, Any] = field(default_factory=dict)  # figure or breakdown -> what `finr1.evaluation` computes

    @property
    def accuracy(self) -> float | None:
        """The accuracy that counts."""
        value: float | None = self.values.get(self.headline)
        return value


@dataclass(frozen=True)
class Pair(_Flat):
    """The tests of one model against another on a benchmark in one mode; none without a common decided question."""

    benchmark: str
    model: str
    against: str
    mode: str
    values: Mapping[str, Any] = field(default_factory=dict)  # of `finr1.evaluation.scores.figures.compare`
