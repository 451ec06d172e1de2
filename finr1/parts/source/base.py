"""Question sources: the protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from finr1.core.types import Question


class SetAside(NamedTuple):
    """A row that became no question: where it is, a word to count by, and why."""

    place: str
    reason: str
    why: str


class Source(Protocol):
    """One data set.

    `load` gives the rows of both splits (`Question.split`), in a stable order. A source that reads files also has
    `set_aside`: the `SetAside` rows of the last `load`.
    """

    name: str

    def load(self) -> Iterator[Question]: ...
