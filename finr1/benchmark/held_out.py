"""A benchmark made of the held-out rows of a question source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from finr1.answer import grade
from finr1.benchmark.base import Outcome
from finr1.errors import ConfigError, DataError
from finr1.source.base import Source
from finr1.types import Question, Split, stable_id


class HeldOut:
    """The scorable rows (those with gold) of one split of `source`.

    Args:
        source: where the questions come from.
        split: train or test.
        limit: at most this many rows; the choice depends on `seed` and the rows alone, so every run is scored on it.
        seed: of that choice.
        label_figures: add figures for closed sets of answers (labels, choices).
        name: of the benchmark; empty: the source's.
    """

    def __init__(
        self,
        source: Source,
        split: Split = "test",
        limit: int | None = None,
        seed: int = 0,
        label_figures: bool = False,
        name: str = "",
    ) -> None:
        name = name or source.name
        if limit is not None and limit < 1:
            raise ConfigError(f"benchmark.{name}.limit", limit, "nothing would be scored", "use 1 or more, or null")
        if split not in ("train", "test"):
            raise ConfigError(f"benchmark.{name}.split", split, "no such split", "use test or train")
        self.name, self.source, self.split, self.limit, self.seed = name, source, split, limit, seed
        self.label_figures = label_figures

    def load(self) -> Sequence[Question]:
        """The chosen questions in the source's order; DataError when the source has none to score."""
        rows = (question for question in self.source.load() if question.split == self.split)
        questions = list({question.id: question for question in rows if question.gold is not None}.values())
        if not questions:
            raise DataError(f"benchmark.{self.name}", f"no {self.split} question with gold", "check the source's files")
        if self.limit is not None and len(questions) > self.limit:
            chosen = sorted(range(len(questions)), key=lambda i: stable_id(self.seed, questions[i].id))[: self.limit]
            questions = [questions[i] for i in sorted(chosen)]
        return questions

    def figures(self, outcomes: Sequence[Outcome]) -> Mapping[str, float]:
        """`class_figures` where they are wanted, else nothing."""
        return class_figures(outcomes) if self.label_figures and outcomes else {}


def class_figures(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Macro-F1 over the classes that occur as gold, with each class's recall and the majority baseline.

    An answer that names no class counts as a class of its own, always wrong: it lowers recall, and nobody's precision.
    `unparsed` is the share of such answers.
    """
    golds = [outcome.question.gold or "" for outcome in outcomes]
    read = [_class_of(outcome) for outcome in outcomes]
    gold_n, read_n = Counter(golds), Counter(read)
    hits = Counter(gold for gold, answer in zip(golds, read, strict=True) if gold == answer)
    f1 = {gold: 2 * hits[gold] / (gold_n[gold] + read_n[gold]) for gold in gold_n}  # = 2PR / (P + R)
    majority = gold_n.most_common(1)[0][1]
    majority_share = majority / len(outcomes)
    figures = {
        "macro_f1": sum(f1.values()) / len(f1),
        "majority_accuracy": majority_share,
        # always giving the commonest gold: its recall is 1, its precision its share, the other classes' F1 is 0
        "majority_macro_f1": 2 * majority_share / (1 + majority_share) / len(f1),
        "unparsed": read_n[None] / len(outcomes),
    }
    meaning = outcomes[0].question.choices if outcomes[0].question.kind == "label" else {}
    for gold in sorted(gold_n):
        figures[f"recall_{meaning.get(gold, gold).lower()}"] = hits[gold] / gold_n[gold]
    return figures


def _class_of(outcome: Outcome) -> str | None:
    """The class that an answer names, as grading would read it: the one that would make it right as gold."""
    question = outcome.question
    if outcome.correct == 1 or not outcome.answer:
        return question.gold if outcome.correct == 1 else None
    others = (key for key in question.choices if key != question.gold)
    return next((key for key in others if grade(outcome.answer, replace(question, gold=key)).strict.value == 1), None)
