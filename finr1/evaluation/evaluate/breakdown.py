"""What the scores of one model in one mode are made of: categories, lengths of completions, cost."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finr1.evaluation.scores import intervals as stats
from finr1.evaluation.scores.figures import Units, accuracy, design_of
from finr1.evaluation.scores.rows import ScoredCompletion, headline
from finr1.parts.benchmark.base import Outcome, Resampled

BINS = 5  # groups of completions by length, of about as many each


def by_category(
    rows: Sequence[ScoredCompletion], category: Mapping[str, str], confidence: float, units: Units | None = None
) -> list[dict[str, Any]]:
    """One row a category (question id -> category), by name: `n` completions, how many were decided, the share right.

    `value`, `low` and `high` are None where nobody decided.
    """
    groups: dict[str, list[ScoredCompletion]] = {}
    for row in rows:
        groups.setdefault(category[row.question_id], []).append(row)
    return [{"category": name, **_share(groups[name], confidence, units)} for name in sorted(groups)]


def by_length(rows: Sequence[ScoredCompletion], confidence: float, units: Units | None = None) -> dict[str, Any]:
    """`bins` of the completions by their tokens, shortest first, and the mean tokens of right and of wrong ones.

    The edges are the quantiles of the lengths, so that completions of one length share a bin; failed calls are left
    out. A bin: `tokens` [shortest, longest], `mean_tokens`, and its share right as in `by_category`.
    """
    there = sorted((row for row in rows if not row.failed), key=lambda row: row.n_tokens)
    lengths = [row.n_tokens for row in there]
    edges = sorted({lengths[-(-len(lengths) * i // BINS) - 1] for i in range(1, BINS + 1)}) if there else []
    groups: list[list[ScoredCompletion]] = [[] for _ in edges]
    for row in there:
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
        tokens = [row.n_tokens for row in there if row.correct == wanted]
        means[f"mean_tokens_{name}"] = sum(tokens) / len(tokens) if tokens else None
    return {"bins": bins, **means}


def own_intervals(
    benchmark: object, outcomes: Sequence[Outcome], samples: int, seed: int, confidence: float, units: Units | None
) -> dict[str, dict[str, Any]]:
    """Percentile intervals of the figures that a benchmark adds to accuracy, by whole units within their strata.

    Empty for a benchmark without such figures; resamples in which a figure is not there are left out.
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
    """Tokens written and, of a server, tokens and money paid (None where it tells none, or has no price).

    The prices are those of a million tokens. `tokens_per_right_answer` is None without a right one.
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
    found = accuracy(rows, headline(rows), confidence, units) or {"value": None, "low": None, "high": None, "n": 0}
    return {"n": len(rows), "n_decided": found["n"], **{key: found[key] for key in ("value", "low", "high")}}
