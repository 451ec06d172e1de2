"""Agreement of judges beyond chance: Cohen's kappa of two judges, Fleiss' kappa of repeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from finr1.evaluation.scores.intervals import wilson


class Agreement(NamedTuple):
    """Agreement of two judges, a and b, that give 0 or 1 to the same cases; all None without a case."""

    agreement: float | None = None  # share of cases with equal verdicts
    low: float | None = None  # Wilson's interval of the agreement
    high: float | None = None
    kappa: float | None = None  # None where both judges always give the same verdict: chance agreement is 1
    ones_a: float | None = None  # share of cases that a calls 1
    ones_b: float | None = None


def cohen_kappa(table: Sequence[int], confidence: float = 0.95) -> Agreement:
    """Return agreement and Cohen's kappa (Educ. Psychol. Meas. 20, 1960) of the counts (both 1, only a, only b, none).

    κ = (p_o - p_e) / (1 - p_e) with p_o the observed agreement and p_e that of independent judges with these marginals.
    """
    from statsmodels.stats.inter_rater import cohens_kappa

    both, only_a, only_b, neither = table
    n = sum(table)
    if not n:
        return Agreement()
    constant = n in (both, neither)
    kappa = None if constant else float(cohens_kappa([[both, only_a], [only_b, neither]], return_results=False))
    interval = wilson(both + neither, n, confidence)
    return Agreement((both + neither) / n, interval.low, interval.high, kappa, (both + only_a) / n, (both + only_b) / n)


def fleiss_kappa(ones_N: Sequence[int], n_N: Sequence[int]) -> tuple[float, float | None]:
    """Return the share of agreeing pairs of 0/1 ratings, and Fleiss' kappa (Psychol. Bull. 76, 1971, eq. 7).

    Case i has `ones_N[i]` ones among `n_N[i]` ratings, at least two; statsmodels requires equal `n_N`, hence our own.
    The pairs' share is the mean over cases of (c(c-1) + z(z-1)) / (n(n-1)); chance is p² + (1-p)² at the share p of
    ones. The kappa is None where all ratings are the same. ValueError without a case.
    """
    if not len(n_N) or min(n_N) < 2:
        raise ValueError(f"{list(n_N)}: cases of at least two ratings are needed")
    ones, n = np.asarray(ones_N, float), np.asarray(n_N, float)
    zeros = n - ones
    observed = float(np.mean((ones * (ones - 1) + zeros * (zeros - 1)) / (n * (n - 1))))
    p = float(ones.sum() / n.sum())
    chance = p * p + (1 - p) * (1 - p)
    return observed, None if p in (0.0, 1.0) else (observed - chance) / (1 - chance)
