"""The protocol of question sources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from finr1.core.types import Question, Split


class SetAside(NamedTuple):
    """A row that did not become a question: its place, a category for counting, why, and the split of its file."""

    place: str
    reason: str
    why: str
    split: Split = "train"


class Source(Protocol):
    """One data set.

    `load` yields the questions of both splits (`Question.split`) in a stable order. A source that reads files also has
    `set_aside`, the `SetAside` rows of the last `load`, and `n_rows`, the number of all rows it read.
    """

    name: str

    def load(self) -> Iterator[Question]: ...
