"""Simulations: intervals cover the truth as often as they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from finr1.evaluation.scores import intervals as stats


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[1, 2, 3, 4] * 25, [5] * 40, [10] * 20])
def test_the_difference_over_documents_is_covered_as_it_says(sizes: list[int]) -> None:
    """Two models on pages that are easy or hard for both. Plain percentiles covered 0.937, 0.940 and 0.909."""
    rng, design = np.random.default_rng(18), documents(sizes)
    _, page_Q = np.unique(np.asarray(design.cluster_Q), return_inverse=True)
    covered = 0
    for _ in range(FEWER):
        # b is right where a is, and of the rest by a share of the page's own: 0.2 in the mean
        a = rng.random(len(page_Q)) < rng.beta(2, 2, len(sizes))[page_Q]
        b = a | (rng.random(len(page_Q)) < rng.beta(1, 4, len(sizes))[page_Q])
        found = stats.paired_means(list(a.astype(float)), list(b.astype(float)), 300, 0, 0.95, design)
        covered += found.low <= 0.5 * 0.2 <= found.high
    assert WITHIN[0] <= covered / FEWER <= WITHIN[1]


TRIALS = 10_000


FEWER = 3_000  # where one takes long: the share that covers then has a standard deviation of 0.004


WITHIN = (0.93, 0.97)


@pytest.mark.parametrize("n", [200, 1000])
@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_wilson_covers_as_it_says(n: int, p: float) -> None:
    intervals = np.array([stats.wilson(k, n)[:2] for k in range(n + 1)])
    found = intervals[np.random.default_rng(11).binomial(n, p, TRIALS)]
    assert WITHIN[0] <= ((found[:, 0] <= p) & (p <= found[:, 1])).mean() <= WITHIN[1]


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_samples_of_a_question_cover_as_they_say(p: float) -> None:
    """200 questions of unlike difficulty, four samples each. As 800 independent ones they would cover 0.83."""
    rng = np.random.default_rng(12)
    right = rng.binomial(4, rng.beta(2 * p, 2 * (1 - p), (TRIALS, 200)))
    found = np.array([stats.share(row, [4] * 200)[:2] for row in right])
    assert WITHIN[0] <= ((found[:, 0] <= p) & (p <= found[:, 1])).mean() <= WITHIN[1]


# Shares of the questions that model a gets right, that b mends of the wrong ones, and that b spoils of the right ones.
@pytest.mark.parametrize(("right", "improved", "worsened"), [(0.5, 0.2, 0.1), (0.9, 0.3, 0.05)])
@pytest.mark.slow
def test_the_difference_of_two_models_is_covered_as_it_says(right: float, improved: float, worsened: float) -> None:
    rng, truth = np.random.default_rng(15), (1 - right) * improved - right * worsened
    a = rng.random((TRIALS, 200)) < right
    b = np.where(a, rng.random((TRIALS, 200)) >= worsened, rng.random((TRIALS, 200)) < improved)
    pairs = list(zip(a.astype(float).tolist(), b.astype(float).tolist(), strict=True))
    exact = [stats.mcnemar(*pair) for pair in pairs]
    drawn = [stats.paired_means(*pair, 500, 0) for pair in pairs[:FEWER]]
    for found in (exact, drawn):
        assert WITHIN[0] <= np.mean([one.low <= truth <= one.high for one in found]) <= WITHIN[1]
    # a model that is as good: as often as it says, or less (the exact test is discrete), a difference is seen
    same = [stats.mcnemar(one, other).p for (one, _), (other, _) in zip(pairs[:FEWER], pairs[-FEWER:], strict=True)]
    assert np.mean(np.array(same) < 0.05) <= 0.055


def documents(sizes: Sequence[int]) -> stats.Design:
    """A design of documents with so many questions each."""
    names = [f"d{i}" for i, size in enumerate(sizes) for _ in range(size)]
    return stats.Design([1.0] * len(names), names, [""] * len(names))


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_questions_on_one_document_cover_as_they_say(p: float) -> None:
    """100 pages with one to four questions that are easy or hard together. Wilson over questions would cover 0.90."""
    design = documents([1, 2, 3, 4] * 25)
    rng, n = np.random.default_rng(13), len(design.weight_Q)
    _, page_Q = np.unique(np.asarray(design.cluster_Q), return_inverse=True)
    page_p = rng.beta(3 * p, 3 * (1 - p), (FEWER, 100))
    right = rng.random((FEWER, n)) < page_p[:, page_Q]
    found = np.array([stats.share(row, [1] * n, 0.95, design)[:2] for row in right.astype(float)])
    assert WITHIN[0] <= ((found[:, 0] <= p) & (p <= found[:, 1])).mean() <= WITHIN[1]
    plain = np.array([stats.wilson(k, n)[:2] for k in range(n + 1)])[right.sum(axis=1)]
    assert ((plain[:, 0] <= p) & (p <= plain[:, 1])).mean() < 0.92  # what clustering is for


@pytest.mark.slow
def test_a_weighted_sample_of_categories_covers_as_it_says() -> None:
    """Three categories, of 8,000, 1,900 and 100 rows; 200 drawn, but 60 of the small one: weights matter."""
    size, drawn, p_H = np.array([8000, 1900, 100]), np.array([100, 40, 60]), np.array([0.3, 0.6, 0.95])
    truth = float((size * p_H).sum() / size.sum())  # 0.3635; unweighted: 0.555
    weight_Q = np.repeat(size / drawn, drawn)
    design = stats.Design(list(weight_Q), [str(i) for i in range(200)], list(np.repeat(["a", "b", "c"], drawn)))
    right = (np.random.default_rng(14).random((FEWER, 200)) < np.repeat(p_H, drawn)).astype(float)
    found = np.array([stats.share(row, [1] * 200, 0.95, design)[:2] for row in right])
    assert WITHIN[0] <= ((found[:, 0] <= truth) & (truth <= found[:, 1])).mean() <= WITHIN[1]


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[5] * 40, [2, 3, 4, 4, 5, 6, 3] * 8])
def test_few_documents_cover_as_they_say(sizes: list[int]) -> None:
    """40 conversations of five turns, most of them all right or all wrong: 10% right. Without t it was 0.930."""
    design = documents(sizes)
    _, page_Q = np.unique(np.asarray(design.cluster_Q), return_inverse=True)
    rng, n, truth = np.random.default_rng(16), len(design.weight_Q), 0.1
    page_p = rng.beta(0.7 / 3, 0.9 * 7 / 3, (TRIALS, len(sizes)))  # correlation 0.3 within a document
    right = (rng.random((TRIALS, n)) < page_p[:, page_Q]).astype(float)
    found = np.array([stats.share(row, [1] * n, 0.95, design)[:2] for row in right])
    assert WITHIN[0] <= ((found[:, 0] <= truth) & (truth <= found[:, 1])).mean() <= WITHIN[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "drawn", "p_H"),
    [
        ([3000, 3000, 3000], [67, 67, 66], [0.1, 0.5, 0.9]),  # as if there were no categories: 0.992
        ([8000, 1900, 100], [100, 40, 60], [0.1, 0.9, 0.5]),  # and 0.996
        ([100] * 40, [5] * 40, list(np.linspace(0.1, 0.9, 40))),
    ],
)
def test_categories_that_are_unlike_hard_narrow_the_interval_as_far_as_they_may(
    size: list[int], drawn: list[int], p_H: list[float]
) -> None:
    truth = float(np.dot(size, p_H) / np.sum(size))
    names = np.repeat([f"c{i}" for i in range(len(size))], drawn)
    weight_Q = np.repeat(np.array(size) / np.array(drawn), drawn)
    design = stats.Design(list(weight_Q), [str(i) for i in range(len(names))], list(names))
    right = (np.random.default_rng(17).random((TRIALS, len(names))) < np.repeat(p_H, drawn)).astype(float)
    found = np.array([stats.share(row, [1] * len(names), 0.95, design)[:2] for row in right])
    assert WITHIN[0] <= ((found[:, 0] <= truth) & (truth <= found[:, 1])).mean() <= WITHIN[1]
