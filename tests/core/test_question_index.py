"""Questions by id without holding them, and ids that are there twice."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest

from finr1.core.errors import DataError
from finr1.core.jsonl import JsonlWriter
from finr1.core.question_index import QuestionIndex, number_of, repeated
from tests.helpers.stages import question, write_rows


def test_questions_are_found_by_their_ids_whatever_these_are(tmp_path: Path) -> None:
    made = [question(f"q{i} 亿", str(i)) for i in range(50)] + [question("named", id="by hand"), question("empty")]
    write_rows(tmp_path / "q.jsonl", made)
    with QuestionIndex(tmp_path / "q.jsonl") as index:
        assert [index[q.id] for q in reversed(made)] == made[::-1]
        assert all(q.id in index for q in made) and "0" * 16 not in index and "no such" not in index
        assert index[made[3].id] is index[made[3].id], "the last ones stay as they are"
        with pytest.raises(DataError, match="no question ffffffffffffffff"):
            index["f" * 16]
        index.mark(made[0].id, solved=False)
        index.mark(made[1].id, solved=True)
        index.mark(made[1].id, solved=False)
        assert [q.id for q in index.unsolved()] == [made[0].id] and index.solved.count(1) == 1


def test_a_question_that_lacks_something_is_named_by_its_line(tmp_path: Path) -> None:
    write_rows(tmp_path / "q.jsonl", [question("q")])
    with JsonlWriter(tmp_path / "q.jsonl") as writer:
        writer.write({"id": "x", "source": "s"})
    with pytest.raises(DataError, match="line 2 has no `document_id`"):
        QuestionIndex(tmp_path / "q.jsonl")


def test_numbers_of_ids() -> None:
    assert number_of("00000000000000ff") == 255
    assert number_of("00000000000000FF") != 255 and number_of("ff") != 255  # not ids of this program: hashed
    assert repeated(array("Q", [3, 1, 2**64 - 1, 2])) is None
    assert repeated(array("Q", [3, 2**64 - 1, 1, 2**64 - 1])) == 2**64 - 1
