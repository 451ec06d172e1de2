"""Confidence intervals of scores, and paired tests of two models on the same questions.

Letters: Q questions, S samples per question, B resamples, U units, H strata. Samples of one question are correlated,
and so are questions on one document: whole units are counted, resampled or sign-flipped (`Design`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_CELLS = 4_000_000  # numbers drawn at once: 32 MB


class Interval(NamedTuple):
    """A confidence interval and its method."""

    low: float
    high: float
    method: str


class Paired(NamedTuple):
    """Comparison of model b with model a on the same questions: `diff` = b - a, its interval, and a two-sided p."""

    n: int  # questions decided for both
    diff: float
    low: float
    high: float
    p: float
    method: str
    improved: int  # questions on which b does better than a
    worsened: int


class Design(NamedTuple):
    """Survey design of the questions of a benchmark, one entry per question.

    `weight_Q`: how many questions of the full benchmark each represents (any scale); `cluster_Q`: the sampling unit,
    such as the document; `stratum_Q`: the category within which questions were sampled.
    """

    weight_Q: Sequence[float]
    cluster_Q: Sequence[str]
    stratum_Q: Sequence[str]

    @property
    def plain(self) -> bool:
        """Whether every question is its own cluster and all weights are equal."""
        return len(set(self.weight_Q)) <= 1 and len(set(self.cluster_Q)) == len(self.cluster_Q)


class _Units(NamedTuple):
    """Weighted totals of each column per unit, and the stratum of each unit."""

    totals: Floats  # (columns, U)
    stratum_U: NDArray[np.intp]


def _units(design: Design | None, *columns_Q: Sequence[float]) -> _Units:
    """Sum the weighted columns per unit.

    If a cluster spans two strata, all units form one stratum. Strata of a single unit, whose
    variance is undefined, are merged (collapsed strata: Cochran, Sampling Techniques, 1977, §5A.12).
    """
    columns = np.asarray(columns_Q, float)
    if design is None:
        return _Units(columns, np.zeros(columns.shape[1], np.intp))
    unit_Q, stratum_U = _members(design)
    weighted = columns * np.asarray(design.weight_Q, float)
    totals = np.asarray([np.bincount(unit_Q, column, len(stratum_U)) for column in weighted], float)
    return _Units(totals, stratum_U)


def _members(design: Design) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the unit of each question and the stratum of each unit, merged as in `_units`."""
    names, unit_Q = np.unique(np.asarray(design.cluster_Q), return_inverse=True)
    _, stratum_Q = np.unique(np.asarray(design.stratum_Q), return_inverse=True)
    stratum_U = np.zeros(len(names), np.intp)
    stratum_U[unit_Q] = stratum_Q
    if (stratum_U[unit_Q] != stratum_Q).any():
        return unit_Q, np.zeros_like(stratum_U)
    sizes = np.bincount(stratum_U)
    alone = np.flatnonzero(sizes == 1)
    if len(alone):
        others = np.flatnonzero(sizes > 1)
        home = others[sizes[others].argmin()] if len(alone) == 1 and len(others) else alone[0]
        stratum_U[np.isin(stratum_U, alone)] = home
    return unit_Q, stratum_U


def _tail(confidence: float) -> float:
    """Return the probability of one tail; ValueError unless 0 < confidence < 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: it is a probability between 0 and 1")
    return (1 - confidence) / 2


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(1 - _tail(confidence))


def _t(confidence: float, freedom: int) -> float:
    from scipy.stats import t

    return float(t.isf(_tail(confidence), freedom))


def wilson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval of a share (Wilson, JASA 22, 1927).

    Both counts may be fractional (effective sample sizes). ValueError unless 0 <= successes <= n and n > 0.
    """
    from statsmodels.stats.proportion import proportion_confint

    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"successes={successes}, n={n}: a share needs 0 <= successes <= n and n > 0")
    low, high = proportion_confint(successes, n, alpha=2 * _tail(confidence), method="wilson")
    return Interval(
        0.0 if successes == 0 else max(0.0, float(low)), 1.0 if successes == n else min(1.0, float(high)), "wilson"
    )


def effective_n(successes_Q: Sequence[float], n_Q: Sequence[float], design: Design | None = None) -> float:
    """Return the effective sample size, p(1-p) / Var(p), bounded by `_at_most`.

    p = Σws/Σwn is a ratio over units, so Var(p) = Σ_h U_h/(U_h-1) Σ(z - z̄_h)² / (Σwn)² with z = w(s - p n) summed by
    unit (linearised: Cochran, Sampling Techniques, 1977, §6; units within strata sampled with replacement). U/(U-1)
    applies the same correction to p(1-p). S identical samples of each of Q questions count as Q, independent ones as
    about Q·S; stratified ones may count as more than there are. Where p is 0 or 1 the correlation cannot be estimated,
    and the result is the number of units, fewer where their weights differ (Kish).
    """
    (s, n), stratum_U = _units(design, successes_Q, n_Q)
    there = n > 0
    s, n, stratum_U = s[there], n[there], stratum_U[there]
    total, units = float(n.sum()), len(n)
    p = float(s.sum()) / total
    z = s - p * n
    size_H = np.bincount(stratum_U).astype(float)
    mean_H = np.divide(np.bincount(stratum_U, z), size_H, where=size_H > 0, out=np.zeros_like(size_H))
    spread_H = np.bincount(stratum_U, (z - mean_H[stratum_U]) ** 2)
    usable = size_H > 1
    variance = float((size_H[usable] / (size_H[usable] - 1) * spread_H[usable]).sum()) / total**2
    if variance <= 0 or not 0 < p < 1:
        weight = n if design is not None else np.ones(units)
        return float(weight.sum() ** 2 / (weight**2).sum())
    return min(_at_most(successes_Q, n_Q, design), units / (units - 1) * p * (1 - p) / variance)


def _at_most(successes_Q: Sequence[float], n_Q: Sequence[float], design: Design | None) -> float:
    """Return the effective sample size of independent samples: (Σwn)² / Σw²n, or more where strata differ.

    Within strata, Var(p) = Σ_h W_h² p_h(1-p_h) / m_h with W_h the stratum's share of Σwn and m_h its own (Σwn)² / Σw²n.
    p_h is smoothed to (p_h m_h + 1) / (m_h + 2), so that few samples without variance do not count as certainty.
    """
    weight_Q = [1.0] * len(n_Q) if design is None else design.weight_Q
    squares_Q = [w * n for w, n in zip(weight_Q, n_Q, strict=True)]
    columns, stratum_U = _units(design, successes_Q, n_Q, squares_Q)
    s_H, n_H, squares_H = (np.bincount(stratum_U, column) for column in columns)
    there = n_H > 0
    s_H, n_H, squares_H = s_H[there], n_H[there], squares_H[there]
    total = float(n_H.sum())
    p, m_H = float(s_H.sum()) / total, n_H**2 / squares_H
    p_H = (s_H / n_H * m_H + 1) / (m_H + 2)
    variance = float(((n_H / total) ** 2 * p_H * (1 - p_H) / m_H).sum())
    return max(total**2 / float(squares_H.sum()), p * (1 - p) / variance)


def share(
    successes_Q: Sequence[float], n_Q: Sequence[float], confidence: float = 0.95, design: Design | None = None
) -> Interval:
    """Return Wilson's interval of Σw·successes / Σw·n at the effective sample size.

    With one sample per question and independent questions this is Wilson's plain interval. The effective sample size
    enters as in Korn and Graubard (Survey Methodology 24, 1998), who also reduce it by (z/t)² for the few units its
    variance is estimated from (t with U - H degrees of freedom); we do so where documents are the units.
    """
    if max(n_Q, default=0) <= 1 and (design is None or (design.plain and len(set(design.stratum_Q)) <= 1)):
        return wilson(float(np.sum(successes_Q)), float(np.sum(n_Q)), confidence)
    n = effective_n(successes_Q, n_Q, design)
    (s, total), stratum_U = _units(design, successes_Q, n_Q)
    if design is not None and len(stratum_U) < len(n_Q):
        n *= (_z(confidence) / _t(confidence, max(1, len(stratum_U) - len(np.unique(stratum_U))))) ** 2
    interval = wilson(min(1.0, float(s.sum()) / float(total.sum())) * n, n, confidence)
    return interval._replace(method=f"wilson at effective n over {over(design)}")


def weighted_mean(values_Q: Sequence[float], design: Design | None = None) -> float:
    """Return Σwv / Σw."""
    weight = np.ones(len(values_Q)) if design is None else np.asarray(design.weight_Q, float)
    return float(np.dot(weight, np.asarray(values_Q, float)) / weight.sum())


def over(design: Design | None) -> str:
    """Return what the units are, for the name of a method."""
    if design is None:
        return "questions"
    units = "questions" if len(set(design.cluster_Q)) == len(design.cluster_Q) else "documents"
    return units + (" within categories" if len(set(design.stratum_Q)) > 1 else "")


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the probability that at least one of k samples is right, given c right of n: 1 - C(n-c, k) / C(n, k).

    An unbiased estimate (Chen et al., arXiv 2107.03374, eq. 1). ValueError unless
    0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"n={n}, c={c}, k={k}: needs 0 <= c <= n and 1 <= k <= n")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values in the order given (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    from statsmodels.stats.multitest import multipletests

    return multipletests(p_values, method="holm")[1].tolist() if len(p_values) else []


def bootstrap_means(values_Q: Sequence[float], samples: int, seed: int, design: Design | None = None) -> Floats:
    """Return the means Σwv/Σw of B resamples of the units within strata, with replacement: shape (B,)."""
    (value_U, weight_U), stratum_U = _units(design, values_Q, [1.0] * len(values_Q))
    rng = np.random.default_rng(seed)
    sums = np.zeros((2, samples))
    for stratum in np.unique(stratum_U):
        members = np.flatnonzero(stratum_U == stratum)
        step = max(1, _CELLS // len(members))
        for i in range(0, samples, step):
            drawn = members[rng.integers(0, len(members), (min(step, samples - i), len(members)))]
            sums[0, i : i + step] += value_U[drawn].sum(axis=1)
            sums[1, i : i + step] += weight_U[drawn].sum(axis=1)
    return sums[0] / sums[1]  # type: ignore[no-any-return]


def resampled_weights(n: int, samples: int, seed: int, design: Design | None = None) -> Iterator[Floats]:
    """Yield the weights of n questions in B resamples of the units (count times weight), in chunks of shape (B', n)."""
    unit_Q, stratum_U = (np.arange(n), np.zeros(n, np.intp)) if design is None else _members(design)
    weight_Q = np.ones(n) if design is None else np.asarray(design.weight_Q, float)
    rng, step = np.random.default_rng(seed), max(1, _CELLS // n)
    strata = [np.flatnonzero(stratum_U == stratum) for stratum in np.unique(stratum_U)]
    for i in range(0, samples, step):
        times_BU = np.empty((min(step, samples - i), len(stratum_U)))
        for members in strata:
            size, b = len(members), len(times_BU)
            drawn = rng.integers(0, size, (b, size)) + size * np.arange(b)[:, None]  # one row of bins per resample
            times_BU[:, members] = np.bincount(drawn.ravel(), minlength=b * size).reshape(b, size)
        yield times_BU[:, unit_Q] * weight_Q


def tails(n: int, confidence: float, design: Design | None = None) -> tuple[float, float]:
    """Return the quantiles of an expanded percentile interval: Φ(∓t √(U/(U-H))), t with U-H degrees of freedom.

    Plain percentiles are too narrow with few units (Hesterberg, The American Statistician 69, 2015).
    """
    stratum_U = np.zeros(n, np.intp) if design is None else _members(design)[1]
    units, freedom = len(stratum_U), max(1, len(stratum_U) - len(np.unique(stratum_U)))
    tail = NormalDist().cdf(-_t(confidence, freedom) * math.sqrt(units / freedom))
    return tail, 1 - tail


def bootstrap(
    values_Q: Sequence[float], samples: int, seed: int, confidence: float = 0.95, design: Design | None = None
) -> Interval:
    """Return the percentile interval of the mean over questions (Efron and Tibshirani, 1993, ch. 13), at `tails`.

    Units are resampled within strata (Davison and Hinkley, 1997, §3.2). ValueError if empty.
    """
    if len(values_Q) == 0 or samples < 1:
        raise ValueError(f"{len(values_Q)} values, samples={samples}: nothing to resample")
    means = bootstrap_means(values_Q, samples, seed, design)
    low, high = np.quantile(means, tails(len(values_Q), confidence, design))
    return Interval(float(low), float(high), f"bootstrap over {over(design)}")


def mcnemar_p(improved: int, worsened: int) -> float:
    """Return McNemar's exact two-sided p: min(1, 2·P[X <= min(improved, worsened)]), X ~ Binomial(their sum, 1/2)."""
    from statsmodels.stats.contingency_tables import mcnemar as test

    return float(test([[0, improved], [worsened, 0]], exact=True).pvalue)


def mcnemar(a_Q: Sequence[float], b_Q: Sequence[float], confidence: float = 0.95) -> Paired:
    """Compare model b with model a by right (1) and wrong (0) verdicts on the same questions.

    The p is McNemar's exact one; the interval of the difference is Bonett and Price's adjusted Wald (J. Educ. Behav.
    Stat. 37, 2012): with g = (improved+1)/(Q+2) and l = (worsened+1)/(Q+2), g - l ± z √((g + l - (g-l)²) / (Q+2)).
    """
    n = _paired_length(a_Q, b_Q)
    improved = sum(bool(b > a) for a, b in zip(a_Q, b_Q, strict=True))
    worsened = sum(bool(b < a) for a, b in zip(a_Q, b_Q, strict=True))
    g, l_ = (improved + 1) / (n + 2), (worsened + 1) / (n + 2)
    half = _z(confidence) * math.sqrt((g + l_ - (g - l_) ** 2) / (n + 2))
    low, high = max(-1.0, g - l_ - half), min(1.0, g - l_ + half)
    return Paired(
        n,
        (improved - worsened) / n,
        low,
        high,
        mcnemar_p(improved, worsened),
        "exact McNemar test, adjusted Wald interval",
        improved,
        worsened,
    )


def sign_flip_p(differences_Q: Sequence[float], samples: int, seed: int) -> float:
    """Return the two-sided p of a paired permutation test: under H0 each difference has either sign equally likely.

    p = (1 + #{|mean(±d)| >= |mean(d)|}) / (1 + B), which is never 0 (Phipson and Smyth, 2010).
    """
    d = np.asarray(differences_Q, float)
    d = d[d != 0]  # zeros have no sign to flip
    if len(d) == 0:
        return 1.0
    rng, observed = np.random.default_rng(seed), abs(float(d.sum()))
    step, hits = max(1, _CELLS // len(d)), 0
    for i in range(0, samples, step):
        signs = rng.integers(0, 2, (min(step, samples - i), len(d)), dtype=np.int8) * 2.0 - 1.0
        hits += int((np.abs(signs @ d) >= observed - 1e-9 * len(d)).sum())
    return (1 + hits) / (1 + samples)


def paired_means(
    a_Q: Sequence[float],
    b_Q: Sequence[float],
    samples: int,
    seed: int,
    confidence: float = 0.95,
    design: Design | None = None,
) -> Paired:
    """Compare model b with model a by each question's mean over S samples: bootstrap interval, sign-flip p.

    Whole units are resampled and sign-flipped: with several questions per document, the document's sum.
    """
    n = _paired_length(a_Q, b_Q)
    d = np.asarray(b_Q, float) - np.asarray(a_Q, float)
    d[np.abs(d) < 1e-12] = 0.0
    interval = bootstrap(list(d), samples, seed, confidence, design)
    (total_U,), _ = _units(design, list(d))
    p = sign_flip_p(list(total_U), samples, seed)
    method = f"bootstrap interval and sign-flip permutation test over {over(design)}"
    diff = weighted_mean(list(d), design)
    return Paired(n, diff, interval.low, interval.high, p, method, int((d > 0).sum()), int((d < 0).sum()))


def _paired_length(a_Q: Sequence[float], b_Q: Sequence[float]) -> int:
    if len(a_Q) != len(b_Q) or len(a_Q) == 0:
        raise ValueError(f"{len(a_Q)} and {len(b_Q)} questions: a paired test needs the same ones, at least one")
    return len(a_Q)
