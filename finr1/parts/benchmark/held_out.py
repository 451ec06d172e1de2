"""A benchmark made of the held-out rows of a question source, all of them or a sample.

Fin-R1's size rule (arXiv 2503.16252 v5, §5.1) is `limit: 1000` with `stratify`: all rows up to 1,000, else a stratified
sample of 1,000; its 10% subset of Finance-Instruct-500k is `share: 0.1`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from finr1.answer.grade import grade
from finr1.core.errors import ConfigError, DataError
from finr1.core.types import Question, Split, stable_id
from finr1.parts.benchmark.base import Figures, Outcome
from finr1.parts.source.base import Source

Floats = NDArray[np.float64]
ATTRIBUTES = ("kind", "language", "module", "gold")  # what `stratify` may name beside the keys of `Question.meta`


class HeldOut:
    """The scorable rows (those with gold) of one split of `source`.

    Args:
        source: where the questions come from.
        split: train or test.
        limit: sample at most this many rows; the sample depends on `seed` and the rows only, so it is the same in every
            run.
        seed: of the sample.
        label_figures: add macro-F1, recall and the majority baseline, for closed sets of answers (labels, choices).
        name: of the benchmark; empty: the source's.
        stratify: keys that make up a row's category: keys of `Question.meta`, or kind, language, module, gold. A sample
            is proportional to the categories, with at least one row each; its rows have in `meta` their `stratum` and
            their `weight`, the number of rows they represent.
        share: use this share of the rows of every category, from both splits, instead of one split: the documents that
            a source with the same `test_share` holds out, up to rounding.
    """

    def __init__(
        self,
        source: Source,
        split: Split = "test",
        limit: int | None = None,
        seed: int = 0,
        label_figures: bool = False,
        name: str = "",
        stratify: Sequence[str] | None = None,
        share: float | None = None,
    ) -> None:
        name = name or source.name
        if limit is not None and limit < 1:
            raise ConfigError(f"benchmark.{name}.limit", limit, "no question is left", "use 1 or more, or null")
        if split not in ("train", "test"):
            raise ConfigError(f"benchmark.{name}.split", split, "no such split", "use test or train")
        if share is not None and not 0 < share <= 1:
            raise ConfigError(f"benchmark.{name}.share", share, "not a share", "use a value in (0, 1], or null")
        self.name, self.source, self.split, self.limit, self.seed = name, source, split, limit, seed
        self.label_figures, self.stratify, self.share = label_figures, tuple(stratify or ()), share
        self.left_out: Counter[str] = Counter()

    def load(self) -> Sequence[Question]:
        """The chosen questions in the source's order; DataError if the source has none with gold."""
        shared = self._shared()
        by_id: dict[str, Question] = {}
        self.left_out = Counter()
        for question in self.source.load():
            if shared is None and question.split != self.split:
                continue
            if question.gold is None or question.id in by_id:
                self.left_out["without_gold" if question.gold is None else "duplicate"] += 1
            if question.gold is not None and (shared is None or question.id in shared):
                by_id[question.id] = question
        of_any_file = self.share is not None or bool(getattr(self.source, "test_share", 0))
        aside = getattr(self.source, "set_aside", ())
        self.left_out.update(row.reason for row in aside if of_any_file or row.split == self.split)
        questions = list(by_id.values())
        if not questions:
            wanted = self.split if self.share is None else "chosen"
            raise DataError(f"benchmark.{self.name}", f"no {wanted} question with gold", "check the source's files")
        if self.limit is None or len(questions) <= self.limit:
            return questions
        return self._sample(questions, self.limit)

    def _shared(self) -> set[str] | None:
        """Ids of the `share` of every category; reads the source once more, to keep only the chosen rows in memory."""
        if self.share is None:
            return None
        keys: dict[str, dict[str, str]] = defaultdict(dict)
        for question in self.source.load():
            if question.gold is None:
                continue
            # the hash by which a source holds documents out (`FileSource.test_share`)
            keys[self.category(question)][question.id] = stable_id("split", question.document_id)
        chosen: set[str] = set()
        for rows in keys.values():
            lowest = sorted(rows, key=lambda key: (rows[key], key))
            chosen.update(lowest[: math.ceil(self.share * len(rows) - 1e-9)])
        return chosen

    def _sample(self, questions: Sequence[Question], limit: int) -> list[Question]:
        places: dict[str, list[int]] = defaultdict(list)
        for i, question in enumerate(questions):
            places[self.category(question)].append(i)
        if len(places) > limit:
            remedy = f"raise it, or stratify by less than {', '.join(self.stratify)}"
            raise ConfigError(f"benchmark.{self.name}.limit", limit, f"there are {len(places)} categories", remedy)
        drawn = allocate({category: len(rows) for category, rows in places.items()}, limit)
        chosen: dict[int, Question] = {}
        for category, rows in places.items():
            for i in sorted(rows, key=lambda i: stable_id(self.seed, questions[i].id))[: drawn[category]]:
                design = {"stratum": category, "weight": len(rows) / drawn[category]} if self.stratify else {}
                chosen[i] = replace(questions[i], meta={**questions[i].meta, **design})
        return [chosen[i] for i in sorted(chosen)]

    def category(self, question: Question) -> str:
        """The question's category by `stratify`; ConfigError for a key that the rows do not have."""
        parts = []
        for name in self.stratify:
            if name not in ATTRIBUTES and name not in question.meta:
                remedy = f"use some of {', '.join((*ATTRIBUTES, *question.meta))}"
                raise ConfigError(f"benchmark.{self.name}.stratify", name, "its rows have no such key", remedy)
            parts.append(str(getattr(question, name) if name in ATTRIBUTES else question.meta[name]))
        return " / ".join(parts)

    def figures(self, outcomes: Sequence[Outcome]) -> Mapping[str, float]:
        """`class_figures` with `label_figures`, and accuracy by category unless that is a class's recall."""
        figures = class_figures(outcomes) if self.label_figures and outcomes else {}
        decided: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for question, _, correct in outcomes if self.stratify and self.stratify != ("gold",) else ():
            if correct is not None:
                weight = _weight(question)
                decided[self.category(question)].append((weight * correct, weight))
        shares = {f"accuracy/{key}": sum(s for s, _ in v) / sum(n for _, n in v) for key, v in sorted(decided.items())}
        return {**figures, **shares}

    def resampled(self, outcomes: Sequence[Outcome]) -> Figures | None:
        """`class_figures` of each resample; see `Resampled`."""
        return _class_figures(outcomes) if self.label_figures else None


def allocate(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """How many rows of each category to draw: proportional to `sizes`, at least one each, `total` in all.

    Quotas are rounded down; then the category furthest below (above) its quota gets one more (fewer), the first in case
    of ties, until the total fits. Requires len(sizes) <= total <= Σ sizes.
    """
    rows = sum(sizes.values())
    quota = {category: total * size / rows for category, size in sizes.items()}
    drawn = {category: max(1, math.floor(wanted)) for category, wanted in quota.items()}
    while (missing := total - sum(drawn.values())) != 0:
        if missing > 0:
            drawn[max((c for c in drawn if drawn[c] < sizes[c]), key=lambda c: quota[c] - drawn[c])] += 1
        else:
            drawn[max((c for c in drawn if drawn[c] > 1), key=lambda c: drawn[c] - quota[c])] -= 1
    return drawn


def class_figures(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Macro-F1 over the classes that occur as gold, with each class's recall and the majority baseline.

    An answer outside the classes counts as an extra class, always wrong: it lowers recall, but no class's precision.
    `unparsed` is the share of such answers; failed calls are excluded. Sampled rows are weighted.
    """
    of_weights = _class_figures(outcomes)
    if of_weights is None:
        return {}
    weights = np.asarray([[_weight(outcome.question) for outcome in outcomes]])
    return {name: float(values[0]) for name, values in of_weights(weights).items()}


def _class_figures(outcomes: Sequence[Outcome]) -> Figures | None:
    """`class_figures` as a function of resamples; None if every call failed.

    A class missing from a resample has recall NaN and is not part of its macro-F1.
    """
    # a failed call has neither answer nor verdict
    answered_Q = np.asarray([outcome.answer is not None or outcome.correct is not None for outcome in outcomes], bool)
    outcomes = [outcomes[i] for i in np.flatnonzero(answered_Q)]
    if not outcomes:
        return None
    golds, answers = [outcome.question.gold or "" for outcome in outcomes], [_class_of(outcome) for outcome in outcomes]
    classes = sorted(set(golds))
    is_gold_QC = np.asarray([[gold == name for name in classes] for gold in golds], float)
    is_read_QC = np.asarray([[answer == name for name in classes] for answer in answers], float)
    unread_Q = np.asarray([answer is None for answer in answers], float)
    meaning = outcomes[0].question.choices if outcomes[0].question.kind == "label" else {}

    @np.errstate(divide="ignore", invalid="ignore")  # a resample may hold failed calls only
    def of_weights(weight_BQ: Floats) -> dict[str, Floats]:
        weight_BQ = weight_BQ[:, answered_Q]
        gold_BC, read_BC, hits_BC = (
            weight_BQ @ columns for columns in (is_gold_QC, is_read_QC, is_gold_QC * is_read_QC)
        )
        total_B, present_BC = weight_BQ.sum(axis=1), gold_BC > 0
        classes_B = present_BC.sum(axis=1)
        f1_BC = np.divide(2 * hits_BC, gold_BC + read_BC, where=present_BC, out=np.zeros_like(gold_BC))  # 2PR / (P + R)
        majority_B = gold_BC.max(axis=1) / total_B
        recall_BC = np.divide(hits_BC, gold_BC, where=present_BC, out=np.full_like(gold_BC, np.nan))
        return {
            "macro_f1": f1_BC.sum(axis=1) / classes_B,
            "majority_accuracy": majority_B,
            # always answering the majority class: recall 1, precision its share, F1 of the other classes 0
            "majority_macro_f1": 2 * majority_B / (1 + majority_B) / classes_B,
            "unparsed": weight_BQ @ unread_Q / total_B,
            **{f"recall_{meaning.get(gold, gold).lower()}": recall_BC[:, i] for i, gold in enumerate(classes)},
        }

    return of_weights


def _weight(question: Question) -> float:
    return float(question.meta.get("weight", 1.0))


def _class_of(outcome: Outcome) -> str | None:
    """The class of an answer: the gold for which grading would call it correct."""
    question = outcome.question
    if outcome.correct == 1 or not outcome.answer:
        return question.gold if outcome.correct == 1 else None
    others = (key for key in question.choices if key != question.gold)
    return next((key for key in others if grade(outcome.answer, replace(question, gold=key)).strict.value == 1), None)
