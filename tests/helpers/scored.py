"""Scored completions for tests of the statistics."""

from __future__ import annotations

from typing import Any

from finr1.evaluation.scores.rows import ScoredCompletion


def scored(question_id: str, strict: float | None, *, tokens: int = 10, **more: Any) -> ScoredCompletion:
    """Return a well-formed completion with this rule verdict; `more`: other fields."""
    fields = {"sample": 0, "text": "", "finish_reason": "stop", "error": "", "n_tokens": tokens, "well_formed": True}
    fields |= {"format_why": "", "answer": "1", "strict": strict, "strict_why": "", "scaled": strict, "scaled_why": ""}
    return ScoredCompletion(question_id=question_id, **fields | more)
