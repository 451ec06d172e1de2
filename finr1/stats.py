"""Intervals and paired tests: how sure a score is, and whether two models differ on the same questions.

Letters: Q questions, S samples of a question, B resamples. Samples of one question are not independent, so everything
here counts, draws or flips whole questions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_CELLS = 4_000_000  # numbers drawn at once: 32 MB


class Interval(NamedTuple):
    """A confidence interval and how it was made."""

    low: float
    high: float
    method: str


class Paired(NamedTuple):
    """Model b against model a on the same questions: `diff` = b - a, its interval, and a two-sided p."""

    n: int  # questions decided for both
    diff: float
    low: float
    high: float
    p: float
    method: str
    gained: int  # questions on which b is better than a
    lost: int


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: it is a probability between 0 and 1")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share p = successes / n (Wilson, JASA 22, 1927).

    (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n); n may be an effective, fractional count. ValueError if n <= 0.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"successes={successes}, n={n}: a share needs 0 <= successes <= n and n > 0")
    z, p = _z(confidence), successes / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if p == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if p == 1 else min(1.0, (centre + half) / scale)
    return Interval(low, high, "wilson")


def effective_n(successes_Q: Sequence[float], n_Q: Sequence[float]) -> float:
    """How many independent draws the samples are worth: p(1-p) / Var(p), at most Σn.

    p = Σs/Σn is a ratio over questions, so Var(p) = Σ(s - p n)² / (Σn)² (linearised, between questions). S equal
    samples of each of Q questions are worth Q; independent ones are worth about Q·S. Without any spread (p is 0 or 1)
    the samples tell nothing of their dependence, and the cautious answer is the number of questions.
    """
    s, n = np.asarray(successes_Q, float), np.asarray(n_Q, float)
    total = float(n.sum())
    p = float(s.sum()) / total
    variance = float(((s - p * n) ** 2).sum()) / total**2
    return min(total, p * (1 - p) / variance) if variance > 0 else float((n > 0).sum())


def share(successes_Q: Sequence[float], n_Q: Sequence[float], confidence: float = 0.95) -> Interval:
    """Interval of Σsuccesses / Σn over questions with several samples each: Wilson's at the effective n.

    With one sample a question this is Wilson's plain interval (Korn and Graubard, Survey Methodology 24, 1998, put the
    effective n into the binomial interval in the same way).
    """
    total = float(np.sum(n_Q))
    n = effective_n(successes_Q, n_Q)
    plain = max(n_Q, default=0) <= 1
    interval = wilson(float(np.sum(successes_Q)) / total * n, n, confidence)
    return interval if plain else interval._replace(method="wilson at effective n over questions")


class Kappa(NamedTuple):
    """Two judges, 0 or 1 each, on the same n cases."""

    n: int
    agreement: float  # share of cases on which they agree
    kappa: float | None  # None where chance alone would make them agree always: one of them never changes its mind
    ones_a: float  # share of cases that a calls 1
    ones_b: float


def cohen_kappa(both: int, only_a: int, only_b: int, neither: int) -> Kappa:
    """Cohen's kappa (Educ. Psychol. Meas. 20, 1960) of a table of verdicts: κ = (p_o - p_e) / (1 - p_e).

    `both` counts the cases that both call 1, `only_a` those that a calls 1 and b calls 0. p_o is the share on which
    they agree, p_e = P(a=1) P(b=1) + P(a=0) P(b=0) what independent judges with these marginals would reach.
    ValueError without a case.
    """
    n = both + only_a + only_b + neither
    if n <= 0 or min(both, only_a, only_b, neither) < 0:
        raise ValueError(f"{(both, only_a, only_b, neither)}: counts of at least one case are needed")
    a, b = (both + only_a) / n, (both + only_b) / n
    observed, expected = (both + neither) / n, a * b + (1 - a) * (1 - b)
    constant = (both + only_a) in (0, n) and (both + only_b) in (0, n)
    kappa = None if constant and expected >= 1 else (observed - expected) / (1 - expected)
    return Kappa(n, observed, kappa, a, b)


def bootstrap_means(values_Q: Sequence[float], samples: int, seed: int) -> Floats:
    """Means of B resamples, with replacement, of the questions' values: shape (B,)."""
    values, rng = np.asarray(values_Q, float), np.random.default_rng(seed)
    size = len(values)
    step = max(1, _CELLS // size)
    parts = [
        values[rng.integers(0, size, (min(step, samples - i), size))].mean(axis=1) for i in range(0, samples, step)
    ]
    return np.concatenate(parts)


def bootstrap(values_Q: Sequence[float], samples: int, seed: int, confidence: float = 0.95) -> Interval:
    """Percentile interval of the mean over questions (Efron and Tibshirani, 1993, ch. 13). ValueError if empty."""
    if len(values_Q) == 0 or samples < 1:
        raise ValueError(f"{len(values_Q)} values, samples={samples}: nothing to resample")
    tail = (1 - confidence) / 2
    low, high = np.quantile(bootstrap_means(values_Q, samples, seed), [tail, 1 - tail])
    return Interval(float(low), float(high), "bootstrap over questions")


def mcnemar_p(gained: int, lost: int) -> float:
    """McNemar's exact two-sided p: min(1, 2·P[X <= min(gained, lost)]) with X ~ Binomial(gained + lost, 1/2)."""
    n = gained + lost
    tail: float = sum(math.comb(n, k) for k in range(min(gained, lost) + 1)) / (1 << n)
    return min(1.0, 2 * tail)


def mcnemar(a_Q: Sequence[float], b_Q: Sequence[float], confidence: float = 0.95) -> Paired:
    """Model b against a, right (1) or wrong (0) on the same questions, both decided.

    The p is McNemar's exact one; the interval of the difference is Bonett and Price's adjusted Wald (J. Educ. Behav.
    Stat. 37, 2012): with g = (gained+1)/(Q+2) and l = (lost+1)/(Q+2), g - l ± z √((g + l - (g-l)²) / (Q+2)).
    """
    n = _paired_length(a_Q, b_Q)
    gained = sum(b > a for a, b in zip(a_Q, b_Q, strict=True))
    lost = sum(b < a for a, b in zip(a_Q, b_Q, strict=True))
    g, l_ = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = _z(confidence) * math.sqrt((g + l_ - (g - l_) ** 2) / (n + 2))
    low, high = max(-1.0, g - l_ - half), min(1.0, g - l_ + half)
    return Paired(
        n,
        (gained - lost) / n,
        low,
        high,
        mcnemar_p(gained, lost),
        "exact McNemar test, adjusted Wald interval",
        gained,
        lost,
    )


def sign_flip_p(differences_Q: Sequence[float], samples: int, seed: int) -> float:
    """Two-sided p of a paired permutation test: under H0 each question's difference is as likely with either sign.

    p = (1 + #{|mean(±d)| >= |mean(d)|}) / (1 + B), which is never 0 (Phipson and Smyth, 2010).
    """
    d = np.asarray(differences_Q, float)
    d = d[d != 0]  # a zero has no sign to flip
    if len(d) == 0:
        return 1.0
    rng, observed = np.random.default_rng(seed), abs(float(d.sum()))
    step, hits = max(1, _CELLS // len(d)), 0
    for i in range(0, samples, step):
        signs = rng.integers(0, 2, (min(step, samples - i), len(d)), dtype=np.int8) * 2.0 - 1.0
        hits += int((np.abs(signs @ d) >= observed - 1e-9 * len(d)).sum())
    return (1 + hits) / (1 + samples)


def paired_means(
    a_Q: Sequence[float], b_Q: Sequence[float], samples: int, seed: int, confidence: float = 0.95
) -> Paired:
    """Model b against a by the mean over S samples of each question: bootstrap interval, sign-flip p."""
    n = _paired_length(a_Q, b_Q)
    d = np.asarray(b_Q, float) - np.asarray(a_Q, float)
    d[np.abs(d) < 1e-12] = 0.0
    interval = bootstrap(list(d), samples, seed, confidence)
    p = sign_flip_p(list(d), samples, seed)
    method = "bootstrap interval and sign-flip permutation test over questions"
    return Paired(n, float(d.mean()), interval.low, interval.high, p, method, int((d > 0).sum()), int((d < 0).sum()))


def _paired_length(a_Q: Sequence[float], b_Q: Sequence[float]) -> int:
    if len(a_Q) != len(b_Q) or len(a_Q) == 0:
        raise ValueError(f"{len(a_Q)} and {len(b_Q)} questions: a paired test needs the same ones, at least one")
    return len(a_Q)
