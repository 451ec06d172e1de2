"""Breakdowns of the scores of one model in one mode: by category, by completion length, and cost."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finr1.evaluation.scores import intervals as stats
from finr1.evaluation.scores.figures import Units, accuracy, design_of
from finr1.evaluation.scores.rows import ScoredCompletion, headline
from finr1.parts.benchmark.base import Outcome, Resampled

BINS = 5  # of completions by length, of about equal size


def by_category(
    rows: Sequence[ScoredCompletion], category: Mapping[str, str], confidence: float, units: Units | None = None
) -> list[dict[str, Any]]:
    """Return one row per category, sorted by name: `n` completions, `n_decided`, accuracy `value` with interval.

    `category` maps question ids to names. `value`, `low` and `high` are None without a decided completion.
    """
    groups: dict[str, list[ScoredCompletion]] = {}
    for row in rows:
        groups.setdefault(category[row.question_id], []).append(row)
    return [{"category": name, **_share(groups[name], confidence, units)} for name in sorted(groups)]


def by_length(rows: Sequence[ScoredCompletion], confidence: float, units: Units | None = None) -> dict[str, Any]:
    """Return `bins` of the completions by length, shortest first, and the mean tokens of right and wrong ones.

    Bin edges are quantiles of the lengths, so completions of equal length share a bin; failed calls are left out. A bin
    has `tokens` [shortest, longest], `mean_tokens`, and its accuracy as in `by_category`.
    """
    completed = sorted((row for row in rows if not row.failed), key=lambda row: row.n_tokens)
    lengths = [row.n_tokens for row in completed]
    edges = sorted({lengths[-(-len(lengths) * i // BINS) - 1] for i in range(1, BINS + 1)}) if completed else []
    groups: list[list[ScoredCompletion]] = [[] for _ in edges]
    for row in completed:
        groups[bisect_left(edges, row.n_tokens)].append(row)
    bins = [
        {
            "tokens": [group[0].n_tokens, group[-1].n_tokens],
            "mean_tokens": sum(row.n_tokens for row in group) / len(group),
            **_share(group, confidence, units),
        }
        for group in groups
    ]
    means = {}
    for name, wanted in (("right", 1.0), ("wrong", 0.0)):
        tokens = [row.n_tokens for row in completed if row.correct == wanted]
        means[f"mean_tokens_{name}"] = sum(tokens) / len(tokens) if tokens else None
    return {"bins": bins, **means}


def own_intervals(
    benchmark: object, outcomes: Sequence[Outcome], samples: int, seed: int, confidence: float, units: Units | None
) -> dict[str, dict[str, Any]]:
    """Return bootstrap intervals of a benchmark's own figures, over whole units within strata.

    Empty for a benchmark without `resampled()`; resamples in which a figure is undefined are left out.
    """
    of_weights = benchmark.resampled(outcomes) if isinstance(benchmark, Resampled) else None
    if of_weights is None:
        return {}
    design = design_of([outcome.question.id for outcome in outcomes], units)
    pieces = [of_weights(weights) for weights in stats.resampled_weights(len(outcomes), samples, seed, design)]
    tails = stats.tails(len(outcomes), confidence, design)
    out = {}
    for name in pieces[0]:
        values = np.concatenate([piece[name] for piece in pieces])
        values = values[np.isfinite(values)]
        if len(values):
            low, high = np.quantile(values, tails)
            out[name] = {"low": float(low), "high": float(high), "method": f"bootstrap over {stats.over(design)}"}
    return out


def cost(rows: Sequence[ScoredCompletion], price_in: float = 0.0, price_out: float = 0.0) -> dict[str, Any]:
    """Return tokens generated, and tokens and money charged by a server (None where unknown or without prices).

    Prices are per million tokens. `tokens_per_right_answer` is None without a right answer.
    """
    tokens, paid = sum(row.n_tokens for row in rows), [row.paid for row in rows if row.paid]
    right = sum(row.correct == 1 for row in rows)
    prompt, completion = (sum(p[i] for p in paid) if paid else None for i in (0, 1))
    priced = paid and (price_in or price_out)
    return {
        "tokens": tokens,
        "tokens_per_right_answer": tokens / right if right else None,
        "paid_prompt_tokens": prompt,
        "paid_completion_tokens": completion,
        "money": ((prompt or 0) * price_in + (completion or 0) * price_out) / 1e6 if priced else None,
    }


def _share(rows: Sequence[ScoredCompletion], confidence: float, units: Units | None) -> dict[str, Any]:
    accuracies = accuracy(rows, headline(rows), confidence, units) or {"value": None, "low": None, "high": None, "n": 0}
    return {"n": len(rows), "n_decided": accuracies["n"], **{key: accuracies[key] for key in ("value", "low", "high")}}
