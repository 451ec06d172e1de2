"""How far judges agree, beyond what chance gives: Cohen's kappa of two, Fleiss' of repeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from finr1.evaluation.scores.intervals import wilson


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


def two_judges(table: Sequence[int], confidence: float = 0.95) -> dict[str, float | None]:
    """`cohen_kappa` of a table (both, only a, only b, neither) as plain values, with Wilson's interval of the
    agreement; all None without a case."""
    both, only_a, only_b, neither = table
    n = sum(table)
    if not n:
        return dict.fromkeys(("agreement", "low", "high", "kappa", "ones_a", "ones_b"))
    found, interval = cohen_kappa(both, only_a, only_b, neither), wilson(both + neither, n, confidence)
    more = {"low": interval.low, "high": interval.high, "kappa": found.kappa}
    return {"agreement": found.agreement, **more, "ones_a": found.ones_a, "ones_b": found.ones_b}


def fleiss_kappa(ones_N: Sequence[int], n_N: Sequence[int]) -> tuple[float, float | None]:
    """Share of agreeing pairs of 0/1 ratings of one case, and Fleiss' kappa (Psychol. Bull. 76, 1971, eq. 7).

    Case i has `ones_N[i]` ones of `n_N[i]` ratings, at least two each. The pairs' share is the mean over cases of
    (c(c-1) + z(z-1)) / (n(n-1)); chance is p² + (1-p)² at the share p of ones. The kappa is None where all ratings
    are the same. ValueError without a case.
    """
    if not len(n_N) or min(n_N) < 2:
        raise ValueError(f"{list(n_N)}: cases of at least two ratings are needed")
    ones, n = np.asarray(ones_N, float), np.asarray(n_N, float)
    zeros = n - ones
    observed = float(np.mean((ones * (ones - 1) + zeros * (zeros - 1)) / (n * (n - 1))))
    p = float(ones.sum() / n.sum())
    chance = p * p + (1 - p) * (1 - p)
    return observed, None if p in (0.0, 1.0) else (observed - chance) / (1 - chance)
