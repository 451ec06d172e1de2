"""Grade hostile strings (`make fuzz`: a million); and check that the fuzzer detects planted failures."""

import json
import time
from pathlib import Path

import pytest

from finr1.answer.grade import Grade
from finr1.core.types import Question, Verdict
from tests.answer import fuzz

SEED = 0
ROWS = 20_000  # in `make test`
FEWER = 4_000  # of them, in `make check`


@pytest.mark.parametrize(("first", "rows"), [(0, FEWER), pytest.param(FEWER, ROWS - FEWER, marks=pytest.mark.slow)])
def test_hostile_strings_are_graded_without_fault_and_in_time(first: int, rows: int, tmp_path: Path) -> None:
    failures = fuzz.run(SEED, first, rows, tmp_path)
    assert not failures, [(row, why, ascii(text[:200])) for row, text, _, why in failures[:5]]


def test_the_strings_are_hostile_and_made_again_from_seed_and_row() -> None:
    texts = [fuzz.hostile(SEED, row)[0] for row in range(3000)]
    assert texts[2000] == fuzz.hostile(SEED, 2000)[0] != fuzz.hostile(SEED + 1, 2000)[0]
    sizes = [fuzz.n_bytes(text) for text in texts]
    assert 50_000 < max(sizes) <= fuzz.LARGEST and sum(size > fuzz.BLOCK for size in sizes) > 60
    for piece in ("\ud800", "9**9**9", "1e999", "(" * 500, "\\boxed{" * 100, "百分之", "9" * 500):
        assert any(piece in text for text in texts), ascii(piece)


def _impossible(text: str, question: Question) -> Grade:
    return Grade(Verdict(1.0, text, "a"), Verdict(0.0, text, "b"))


def _raises(text: str, question: Question) -> Grade:
    raise ValueError("a bug")


def _slow(text: str, question: Question) -> Grade:
    began = time.process_time()
    while time.process_time() - began < 1.3 * fuzz.LIMIT_S:
        pass
    return Grade(Verdict(None, text, "a"), Verdict(None, text, "b"))


@pytest.mark.parametrize(
    ("grader", "why"),
    [(_impossible, "strict but not scaled"), (_raises, "ValueError: a bug"), (_slow, "ms of CPU time, 10 allowed")],
)
def test_a_failure_is_printed_and_kept(
    grader: object, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = next(row for row in range(100) if fuzz.n_bytes(fuzz.hostile(SEED, row)[0]) < 1000)
    monkeypatch.setattr(fuzz, "grade", grader)
    (failure,) = fuzz.run(SEED, row, 1, tmp_path)
    text, asked = fuzz.hostile(SEED, row)
    assert failure.text == text and why in failure.why
    kept = json.loads((tmp_path / f"fuzz_{SEED}_{row}.json").read_text(encoding="utf-8"))
    assert (kept["text"], kept["question"]["gold"]) == (text, asked.gold) and why in kept["why"]
    assert ascii(text[:200]) in capsys.readouterr().out


def test_a_row_that_was_late_once_is_timed_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[int] = []

    def late_once(text: str, question: Question) -> Grade:
        calls.append(1)
        return (
            _slow(text, question)
            if len(calls) == 1
            else _impossible(text, question)._replace(scaled=Verdict(1.0, "", "b"))
        )

    monkeypatch.setattr(fuzz, "grade", late_once)
    assert not fuzz.broken("x", fuzz.hostile(SEED, 0)[1]) and len(calls) == 1 + fuzz.TIMED_AGAIN
