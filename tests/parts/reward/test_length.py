"""Length shaping by hand."""

from __future__ import annotations

import pytest

from finr1.answer.tags import render
from finr1.parts.reward.base import RewardItem
from finr1.parts.reward.length import Length
from tests.helpers.stages import question


def value(answer: str, n_characters: int, gold: str | None = "1") -> float | None:
    """Of a completion with exactly so many characters; target 100, limit 300."""
    text = render("x" * (n_characters - len(render("", answer))), answer)
    assert len(text) == n_characters
    return Length(target=100, limit=300).grade([RewardItem(question("q", gold), text, False)])[0].value


@pytest.mark.parametrize(("n", "expected"), [(80, 1.0), (100, 1.0), (150, 0.75), (250, 0.25), (300, 0.0), (400, 0.0)])
def test_a_right_answer_earns_less_the_longer_it_is(n: int, expected: float) -> None:
    assert value("1", n) == pytest.approx(expected, abs=1e-12)


def test_a_wrong_answer_earns_nothing_and_an_undecided_one_stays_undecided() -> None:
    assert value("2", 80) == 0.0
    assert value("1", 80, gold=None) is None
    assert value("maybe", 80) == 0.0


def test_bounds_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="target=300 is not within 0 and limit=300"):
        Length(target=300, limit=300)
