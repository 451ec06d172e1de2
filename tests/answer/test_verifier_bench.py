"""The labels of the pairs in experiments/benchmarks/verifier.py are correct; few are graded differently."""

import random
from decimal import Decimal
from pathlib import Path

import pytest

from experiments.benchmarks import verifier
from finr1.answer.number_words import chinese_integer
from finr1.core.types import Question


def question(gold: str, language: str = "en", **meta: object) -> Question:
    prompt = [{"role": "user", "content": "?"}]
    return Question("t", "d", language, "reasoning business", "number", prompt, gold, meta=meta)  # type: ignore[arg-type]


def test_writings_keep_the_value() -> None:
    rng = random.Random(0)
    expected = {
        verifier._percent: {"25%", "25 %", "25 percent", "25\\%"},
        verifier._basis_points: {"2500 bps", "2500 basis points", "2500个基点"},
        verifier._power: {"2.5e-1", "2.5 \\times 10^{-1}"},
        verifier._fraction: {"1/4", "\\frac{1}{4}"},
        verifier._full_width: {"０．２５"},
    }
    for write, texts in expected.items():
        assert {write(Decimal("0.25"), rng) for _ in range(40)} == texts
    assert verifier._brackets(Decimal("0.25"), rng) is None and verifier._han(Decimal("0.25"), rng) is None
    assert all(chinese_integer(verifier.han(n)) == n for n in range(10_000))


@pytest.mark.parametrize("gold", ["1234", "-0.0625", "12.5%", "7"])
def test_a_wrong_number_has_another_value(gold: str) -> None:
    rng = random.Random(1)
    pairs = [verifier.number_pair(question(gold), False, rng) for _ in range(400)]
    plain = [pair.answer for pair in pairs if pair and pair.answer.lstrip("-").replace(".", "", 1).isdigit()]
    assert len(plain) > 3 and all(abs(Decimal(text) - verifier.value_of(gold)) > 0 for text in plain)  # type: ignore[operator]


def test_pairs_are_half_real_half_right_and_graded_as_they_are(data: Path) -> None:
    found = verifier.all_pairs(4000, str(data), seed=3)
    pairs = [*found["generated"], *found["real"]]
    assert len(found["generated"]) == 2000 and len(found["real"]) == pytest.approx(2000, abs=3)
    assert sum(pair.right for pair in pairs) / len(pairs) == pytest.approx(0.5, abs=0.05)
    assert {pair.question.kind for pair in pairs} == set(verifier.KINDS)
    assert {pair.question.source for pair in found["real"]} == set(verifier.REAL)
    assert len({(pair.question.id, pair.answer) for pair in pairs}) == len(pairs)
    _, verdicts = verifier.own_verdicts(pairs)
    assert verifier.share_right(pairs, verdicts) > 0.995
