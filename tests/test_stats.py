"""Intervals against textbook values; paired tests against hand arithmetic and by their properties."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finr1 import stats


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),  # R: prop.test(8, 10, correct = FALSE)
        (81, 263, 0.2553, 0.3662),  # Newcombe, Stat. Med. 17 (1998), table I, method 3
        (15, 148, 0.0624, 0.1605),  # the same table
        (0, 20, 0.0, 0.1611),  # the same table
        (1, 29, 0.0061, 0.1718),  # the same table
        (20, 20, 0.8389, 1.0),  # mirror image of 0 of 20
    ],
)
def test_wilson_gives_the_textbook_interval(successes: int, n: int, low: float, high: float) -> None:
    interval = stats.wilson(successes, n)
    assert interval.low == pytest.approx(low, abs=6e-5)
    assert interval.high == pytest.approx(high, abs=6e-5)


def test_wilson_widens_with_confidence_and_narrows_with_n() -> None:
    assert stats.wilson(8, 10, 0.99).low < stats.wilson(8, 10, 0.95).low
    assert stats.wilson(80, 100).low > stats.wilson(8, 10).low


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_share(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="a share needs"):
        stats.wilson(successes, n)


def test_one_sample_a_question_is_the_plain_interval() -> None:
    assert stats.share([1.0] * 8 + [0.0] * 2, [1] * 10) == stats.wilson(8, 10)


def test_copies_of_a_sample_add_no_certainty() -> None:
    interval = stats.share([4.0] * 8 + [0.0] * 2, [4] * 10)
    assert interval[:2] == pytest.approx(stats.wilson(8, 10)[:2])
    assert "effective n" in interval.method


def test_independent_samples_count_almost_in_full() -> None:
    rng = np.random.default_rng(0)
    successes = rng.binomial(4, 0.6, 2000)
    assert stats.effective_n(list(successes), [4] * 2000) == pytest.approx(8000, rel=0.08)


def test_without_spread_the_questions_count_not_the_samples() -> None:
    assert stats.share([0.0] * 20, [4] * 20)[:2] == pytest.approx(stats.wilson(0, 20)[:2])
    assert stats.share([4.0] * 20, [4] * 20).high == 1.0


def test_clustered_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    # Question difficulties from Beta(2, 1): the true rate is 2/3. Ignoring the clusters would cover about 0.86.
    rng, covered = np.random.default_rng(1), 0
    for _ in range(400):
        successes = rng.binomial(4, rng.beta(2, 1, 60))
        interval = stats.share(list(successes), [4] * 60)
        covered += interval.low <= 2 / 3 <= interval.high
    assert 0.91 <= covered / 400 <= 0.98


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (5, 0, 2 / 32),
        (0, 5, 2 / 32),
        (3, 3, 1.0),
        (9, 1, 2 * (1 + 10) / 1024),
        (12, 4, 2 * (1 + 16 + 120 + 560 + 1820) / 65536),
    ],
)
def test_mcnemar_p_is_the_binomial_tail(gained: int, lost: int, p: float) -> None:
    assert stats.mcnemar_p(gained, lost) == pytest.approx(p, rel=1e-12)


def test_mcnemar_counts_and_points_the_right_way() -> None:
    a = [0.0] * 9 + [1.0] * 1 + [1.0] * 5 + [0.0] * 5
    b = [1.0] * 9 + [0.0] * 1 + [1.0] * 5 + [0.0] * 5
    test, back = stats.mcnemar(a, b), stats.mcnemar(b, a)
    assert (test.n, test.gained, test.lost, test.diff) == (20, 9, 1, 0.4)
    # Bonett and Price: g = 10/22, l = 2/22, 8/22 ± 1.96 √((12/22 - (8/22)²)/22)
    half = 1.959964 * math.sqrt((12 / 22 - (8 / 22) ** 2) / 22)
    assert (test.low, test.high) == pytest.approx((8 / 22 - half, 8 / 22 + half), abs=1e-6)
    assert (back.diff, back.low, back.high) == pytest.approx((-test.diff, -test.high, -test.low))
    assert back.p == test.p


def test_mcnemar_of_many_pairs_neither_overflows_nor_underflows_to_nonsense() -> None:
    assert stats.mcnemar_p(2500, 2500) == 1.0
    assert 0 < stats.mcnemar_p(3000, 2000) < 1e-40


def test_identical_models_do_not_differ() -> None:
    values = [0.0, 0.25, 0.5, 1.0] * 10
    test = stats.paired_means(values, values, 500, 0)
    assert (test.diff, test.low, test.high, test.p, test.gained, test.lost) == (0, 0, 0, 1, 0, 0)


def test_paired_means_swap_sign_with_the_models() -> None:
    rng = np.random.default_rng(2)
    a = rng.integers(0, 5, 100) / 4
    b = np.clip(a + rng.integers(0, 2, 100) / 4, 0, 1)
    test, back = stats.paired_means(list(a), list(b), 2000, 0), stats.paired_means(list(b), list(a), 2000, 0)
    assert test.diff == pytest.approx(float((b - a).mean())) and test.diff > 0
    assert test.low > 0 and test.p == 1 / 2001
    assert (back.diff, back.p) == pytest.approx((-test.diff, test.p))
    assert back.high < 0


def test_one_sample_against_four_rejects_as_often_as_it_says() -> None:
    """No difference between the models, questions of unlike difficulty: 5% of tests say otherwise, not more."""
    rng, rejected, tests = np.random.default_rng(5), 0, 400
    for _ in range(tests):
        p_Q = rng.beta(2, 1, 80)
        one, four = rng.binomial(1, p_Q) / 1, rng.binomial(4, p_Q) / 4
        rejected += stats.sign_flip_p(list(four - one), 400, 0) < 0.05
    assert 0.02 <= rejected / tests <= 0.08


def test_sign_flip_p_approaches_the_exact_one() -> None:
    # Five questions, all better by the same: only all-plus and all-minus are as extreme, 2 of 32.
    assert stats.sign_flip_p([0.25] * 5, 100_000, 0) == pytest.approx(2 / 32, abs=0.004)
    assert stats.sign_flip_p([0.25] * 5 + [0.0] * 50, 100_000, 0) == pytest.approx(2 / 32, abs=0.004)


def test_bootstrap_matches_the_normal_interval_and_repeats_with_its_seed() -> None:
    values = list(np.random.default_rng(3).normal(10, 2, 400))
    interval = stats.bootstrap(values, 5000, 7)
    half = 1.96 * float(np.std(values)) / 20
    assert interval.low == pytest.approx(float(np.mean(values)) - half, abs=0.03)
    assert interval.high == pytest.approx(float(np.mean(values)) + half, abs=0.03)
    assert stats.bootstrap(values, 5000, 7) == interval != stats.bootstrap(values, 5000, 8)


def test_resampling_in_pieces_keeps_the_number_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "_CELLS", 30)
    assert stats.bootstrap_means([1.0, 2.0, 3.0, 4.0], 101, 0).shape == (101,)
    assert stats.sign_flip_p([1.0] * 12, 101, 0) >= 1 / 102


@pytest.mark.parametrize("call", [stats.mcnemar, lambda a, b: stats.paired_means(a, b, 10, 0)])
def test_paired_tests_refuse_other_questions(call: object) -> None:
    with pytest.raises(ValueError, match="same ones"):
        call([1.0], [1.0, 0.0])  # type: ignore[operator]
    with pytest.raises(ValueError, match="at least one"):
        call([], [])  # type: ignore[operator]
