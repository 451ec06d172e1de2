"""Agreement of judges beyond chance, by hand."""

from __future__ import annotations

import pytest

from finr1.evaluation.scores import intervals as stats
from finr1.evaluation.scores.kappa import cohen_kappa, fleiss_kappa


def test_fleiss_kappa_by_hand_and_equal_to_cohens_bound_cases() -> None:
    # three cases of three ratings: 3, 2, 0 ones. Pairs: 1, (1 + 0)/3, 1: mean 7/9. p = 5/9: chance 25/81 + 16/81
    pairs, kappa = fleiss_kappa([3, 2, 0], [3, 3, 3])
    assert pairs == pytest.approx(7 / 9)
    assert kappa == pytest.approx((7 / 9 - 41 / 81) / (1 - 41 / 81))
    assert fleiss_kappa([2, 2], [2, 2]) == (1.0, None)
    assert fleiss_kappa([1, 1], [2, 2]) == (0.0, -1.0)
    with pytest.raises(ValueError, match="at least two ratings"):
        fleiss_kappa([1], [1])


def test_without_a_case_there_is_no_agreement() -> None:
    assert set(cohen_kappa([0, 0, 0, 0])) == {None}
    found = cohen_kappa([3, 0, 1, 2])
    assert found.kappa == pytest.approx(2 / 3) and found.low == stats.wilson(5, 6).low
