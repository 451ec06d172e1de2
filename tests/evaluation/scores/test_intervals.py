"""Intervals against textbook values; paired tests against hand arithmetic and by their properties."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from finr1.evaluation.scores import intervals as stats


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
    ("improved", "worsened", "p"),
    [
        (0, 0, 1.0),
        (5, 0, 2 / 32),
        (0, 5, 2 / 32),
        (3, 3, 1.0),
        (9, 1, 2 * (1 + 10) / 1024),
        (12, 4, 2 * (1 + 16 + 120 + 560 + 1820) / 65536),
    ],
)
def test_mcnemar_p_is_the_binomial_tail(improved: int, worsened: int, p: float) -> None:
    assert stats.mcnemar_p(improved, worsened) == pytest.approx(p, rel=1e-12)


def test_mcnemar_counts_and_points_the_right_way() -> None:
    a = [0.0] * 9 + [1.0] * 1 + [1.0] * 5 + [0.0] * 5
    b = [1.0] * 9 + [0.0] * 1 + [1.0] * 5 + [0.0] * 5
    test, back = stats.mcnemar(a, b), stats.mcnemar(b, a)
    assert (test.n, test.improved, test.worsened, test.diff) == (20, 9, 1, 0.4)
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
    assert (test.diff, test.low, test.high, test.p, test.improved, test.worsened) == (0, 0, 0, 1, 0, 0)


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


def test_percentiles_are_taken_further_out_the_fewer_units_there_are() -> None:
    low, high = stats.tails(1_000_000, 0.95)
    assert (low, high) == pytest.approx((0.025, 0.975), abs=1e-6)
    # 20 units: t of 19 degrees is 2.093024, times √(20/19) = 2.147; Φ(-2.147) = 0.01589
    assert stats.tails(20, 0.95)[0] == pytest.approx(0.01589, abs=2e-5)
    assert stats.tails(40, 0.95, documents([2] * 20)) == stats.tails(20, 0.95), "documents are the units"
    strata = stats.Design([1.0] * 20, [str(i) for i in range(20)], list("ab" * 10))
    assert stats.tails(20, 0.95, strata)[0] < stats.tails(20, 0.95)[0]


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


def test_mcnemar_takes_numpys_numbers() -> None:
    b = [1.0] * 100 + [0.0] * 20
    plain = stats.mcnemar([0.0] * 120, b)
    assert stats.mcnemar(list(np.zeros(120)), list(np.array(b))) == plain and plain.p == 2.0**-99


def documents(sizes: Sequence[int]) -> stats.Design:
    """A design of documents with so many questions each."""
    names = [f"d{i}" for i, size in enumerate(sizes) for _ in range(size)]
    return stats.Design([1.0] * len(names), names, [""] * len(names))


def test_students_quantile_is_the_tables() -> None:
    for freedom, t in ((3, 3.182446), (5, 2.570582), (10, 2.228139), (39, 2.022691)):
        assert stats._t(0.95, freedom) == pytest.approx(t, rel=1e-6)
    assert stats._t(0.99, 20) == pytest.approx(2.845340, rel=1e-6)  # of 99%


def test_effective_n_of_documents_by_hand() -> None:
    # Documents of 2 questions: (2, 2), (0, 2), (1, 2), (1, 2) right of 4 documents: p = 4/8, z = s - p n = 1, -1, 0, 0.
    # Var = 4/3 · 2 / 8² = 1/24; n = 4/3 · 1/4 / (1/24) = 8: as many as there are.
    assert stats.effective_n([1, 1, 0, 0, 1, 0, 0, 1], [1] * 8, documents([2, 2, 2, 2])) == pytest.approx(8)
    # (2, 0, 2, 0): z = ±1, Var = 4/3 · 4 / 64 = 1/12; n = 4/3 · 1/4 · 12 = 4: as many as documents
    assert stats.effective_n([1, 1, 0, 0, 1, 1, 0, 0], [1] * 8, documents([2, 2, 2, 2])) == pytest.approx(4)
    interval = stats.share([1, 1, 0, 0, 1, 1, 0, 0], [1] * 8, 0.95, documents([2, 2, 2, 2]))
    n = 4 * (1.959964 / 3.182446) ** 2  # Student's t of 3 degrees of freedom: four documents tell little
    assert interval[:2] == pytest.approx(stats.wilson(n / 2, n)[:2], abs=1e-3)
    assert interval.method.endswith("over documents")
    # nothing is right: the number of documents, not of questions
    assert stats.effective_n([0] * 8, [1] * 8, documents([2, 2, 2, 2])) == pytest.approx(4)


def test_effective_n_within_categories_by_hand() -> None:
    # a: 1 of 2 right, b: 2 of 2, equal weights: p = 3/4, z = (1/4, -3/4 | 1/4, 1/4), means -1/4 and 1/4.
    # Σ(z - z̄)² = 1/2 in a, 0 in b; Var = 2/1 · 1/2 / 4² = 1/16; n = 4/3 · 3/16 · 16 = 4, capped at 4.
    design = stats.Design([1.0] * 4, list("wxyz"), list("aabb"))
    assert stats.effective_n([1, 0, 1, 1], [1] * 4, design) == pytest.approx(4)
    # b stands for three times as many: p = (1 + 6)/8 = 7/8; z = (1/8, -7/8 | 3/8, 3/8); Σ(z - z̄)² = 1/2 in a.
    # Var = 2 · 1/2 / 8² = 1/64; 4/3 · 7/64 · 64 = 28/3, at most Kish's 8² / (1 + 1 + 9 + 9) = 3.2.
    heavy = stats.Design([1.0, 1.0, 3.0, 3.0], list("wxyz"), list("aabb"))
    assert stats.effective_n([1, 0, 1, 1], [1] * 4, heavy) == pytest.approx(3.2)
    assert stats.weighted_mean([1, 0, 1, 1], heavy) == pytest.approx(7 / 8)
    # 19 of 20 and 1 of 20: p = 1/2, W = 1/2, smoothed 20/22 and 2/22: 1/4 / (2 · 1/4 · 40/484 / 20) = 121, not 40;
    # Var = 2 · 20/19 · 0.95 / 40² = 1/800: 40/39 · 1/4 · 800 = 205
    unlike = stats.Design([1.0] * 40, [str(i) for i in range(40)], list("a" * 20 + "b" * 20))
    assert stats.effective_n([1] * 19 + [0] + [1] + [0] * 19, [1] * 40, unlike) == pytest.approx(121)
    # categories of one question each have no spread of their own: together they have
    lone = stats.Design([1.0] * 4, list("wxyz"), list("abcd"))
    assert stats.effective_n([1, 0, 1, 1], [1] * 4, lone) == pytest.approx(stats.effective_n([1, 0, 1, 1], [1] * 4))
    # a document in two categories: they are of no use
    across = stats.Design([1.0] * 4, list("wxxz"), list("aabb"))
    none = stats.Design([1.0] * 4, list("wxxz"), list("aaaa"))
    assert stats.effective_n([1, 0, 1, 1], [1] * 4, across) == stats.effective_n([1, 0, 1, 1], [1] * 4, none)


def test_bootstrap_draws_documents_within_categories() -> None:
    # Two categories without any spread inside: every resample has the same weighted mean, (3 · 1 + 1 · 0) / 4.
    design = stats.Design([3.0, 3.0, 1.0, 1.0], list("wxyz"), list("aabb"))
    assert stats.bootstrap_means([1, 1, 0, 0], 50, 0, design) == pytest.approx(np.full(50, 0.75))
    free = design._replace(stratum_Q=[""] * 4)
    assert np.std(stats.bootstrap_means([1, 1, 0, 0], 200, 0, free)) > 0.1
    # Questions that always go together are as uncertain as one: twice the variance of independent ones.
    values = [float(i // 2 % 2) for i in range(400)]
    together = np.var(stats.bootstrap_means(values, 4000, 0, documents([2] * 200)))
    assert together / np.var(stats.bootstrap_means(values, 4000, 0)) == pytest.approx(2, rel=0.15)


def test_resamples_as_weights_are_those_of_the_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "_CELLS", 50)  # in pieces
    design = stats.Design([3.0, 3.0, 1.0, 1.0, 1.0], list("wxyyz"), list("aabbb"))
    weights = np.concatenate(list(stats.resampled_weights(5, 2000, 0, design)))
    assert weights.shape == (2000, 5)
    assert (weights[:, 2] == weights[:, 3]).all(), "one document is drawn as one"
    assert (weights[:, :2].sum(axis=1) == 6).all(), "two draws of the first category"
    values = [1.0, 0.0, 1.0, 0.0, 0.0]
    means, direct = weights @ values / weights.sum(axis=1), stats.bootstrap_means(values, 2000, 1, design)
    assert means.mean() == pytest.approx(direct.mean(), abs=0.02) and means.std() == pytest.approx(
        direct.std(), rel=0.1
    )
    plain = next(stats.resampled_weights(4, 10, 0))
    assert (plain.sum(axis=1) == 4).all() and plain.std() > 0


def test_paired_means_flip_whole_documents() -> None:
    # Five documents of four questions, all better: 2 of 2^5 flips are as extreme, not 2 of 2^20.
    design = documents([4] * 5)
    test = stats.paired_means([0.0] * 20, [1.0] * 20, 20_000, 0, design=design)
    assert test.p == pytest.approx(2 / 32, abs=0.01) and test.method.endswith("over documents")
    assert stats.paired_means([0.0] * 20, [1.0] * 20, 20_000, 0).p < 0.001
    # one question of weight 3 got better, one of weight 1 worse
    heavy = stats.Design([3.0, 1.0], ["a", "b"], ["", ""])
    assert stats.paired_means([0.0, 1.0], [1.0, 0.0], 10, 0, design=heavy).diff == pytest.approx((3 - 1) / 4)


@pytest.mark.parametrize(
    ("n", "c", "k", "value"),
    [
        (4, 1, 1, 1 / 4),
        (4, 1, 2, 1 - 3 / 6),  # C(3,2) / C(4,2)
        (5, 2, 3, 1 - 1 / 10),  # C(3,3) / C(5,3)
        (5, 3, 3, 1.0),  # only two are wrong
        (4, 0, 4, 0.0),
        (4, 4, 1, 1.0),
    ],
)
def test_pass_at_k_by_hand(n: int, c: int, k: int, value: float) -> None:
    assert stats.pass_at_k(n, c, k) == pytest.approx(value, abs=1e-12)


def test_pass_at_k_is_unbiased() -> None:
    # The mean over draws of 6 is the chance with 3: 1 - 0.7³. The naive 1 - (1 - c/n)³ falls short of it.
    right = np.random.default_rng(15).binomial(6, 0.3, 200_000)
    table = np.array([stats.pass_at_k(6, c, 3) for c in range(7)])
    assert table[right].mean() == pytest.approx(1 - 0.7**3, abs=0.003)
    assert (1 - (1 - right / 6) ** 3).mean() < 1 - 0.7**3 - 0.02
    with pytest.raises(ValueError, match="1 <= k <= n"):
        stats.pass_at_k(2, 1, 3)


def test_holm_by_hand() -> None:
    # sorted 0.01 0.02 0.03 0.04: 4·0.01, 3·0.02, 2·0.03, 1·0.04 = 0.04 0.06 0.06 0.04 -> never less than before
    assert stats.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0] and stats.holm([0.3]) == [0.3] and stats.holm([]) == []
