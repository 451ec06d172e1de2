"""Questions by id without holding them in memory, and a check for repeated ids: a few bytes per id."""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np

from finr1.core.errors import DataError
from finr1.core.jsonl import raw_rows
from finr1.core.types import Question

RECENT = 2048  # questions cached as objects: traces are in the order of their questions
_HEX = re.compile("[0-9a-f]{16}")


def number_of(name: str) -> int:
    """An id as 64 bits: `stable_id`s are parsed as hexadecimal, any other id is hashed."""
    if _HEX.fullmatch(name):
        return int(name, 16)
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest(), "big")


def repeated(numbers: array[int]) -> int | None:
    """A number that occurs more than once; None if all differ. Sorts the array in place."""
    ordered = np.frombuffer(numbers, dtype=np.uint64)
    ordered.sort()
    same = np.flatnonzero(ordered[1:] == ordered[:-1])
    return int(ordered[same[0]]) if len(same) else None


class QuestionIndex:
    """The questions of a file by id. Holds 16 bytes per question and the most recently read questions.

    `asked` and `solved` are flags by position in this index. Use as a context manager. DataError names the line of an
    incomplete question.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        numbers, starts = array("Q"), array("Q")
        for row in raw_rows(path, ["id", *Question.needed()]):
            numbers.append(number_of(row.values["id"]))
            starts.append(row.start)
        unsorted = np.frombuffer(numbers, dtype=np.uint64)
        order = np.argsort(unsorted, kind="stable")
        self._numbers = unsorted[order]
        self._starts = np.frombuffer(starts, dtype=np.uint64)[order]
        self.asked, self.solved = bytearray(len(order)), bytearray(len(order))
        self._file = path.open("rb")
        self.find = lru_cache(RECENT)(self._find)

    def _find(self, question_id: str) -> tuple[int, Question] | None:
        """A question and its position in this index; None for an unknown id."""
        place = self._place(question_id)
        question = None if place is None else self._read(place)
        return (place, question) if place is not None and question and question.id == question_id else None

    def _place(self, question_id: str) -> int | None:
        """The position of an id in this index, judged by its number alone."""
        wanted = np.uint64(number_of(question_id))
        place = int(np.searchsorted(self._numbers, wanted))
        return place if place < len(self._numbers) and self._numbers[place] == wanted else None

    def _read(self, place: int) -> Question:
        self._file.seek(int(self._starts[place]))
        return Question.from_json(json.loads(self._file.readline()))

    def __contains__(self, question_id: object) -> bool:
        return isinstance(question_id, str) and self._place(question_id) is not None

    def __getitem__(self, question_id: str) -> Question:
        position_and_question = self.find(question_id)
        if position_and_question is None:
            raise DataError(self.path, f"no question {question_id}", "run stage=questions again")
        return position_and_question[1]

    def mark(self, question_id: str, solved: bool) -> None:
        """Mark that a question has a trace, and whether a good one."""
        if position_and_question := self.find(question_id):
            position = position_and_question[0]
            self.asked[position] = 1
            self.solved[position] |= solved

    def unsolved(self) -> Iterator[Question]:
        """The questions that have traces but no good one."""
        for place, (asked, solved) in enumerate(zip(self.asked, self.solved, strict=True)):
            if asked and not solved:
                yield self._read(place)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
