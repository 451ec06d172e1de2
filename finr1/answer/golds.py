"""Golds alone: the kind of question that one belongs to, and whether two say the same."""

from __future__ import annotations

from collections.abc import Mapping

from finr1.answer.choices import letters_named
from finr1.answer.clean import clean
from finr1.answer.grade import grade
from finr1.answer.grade_number import is_number
from finr1.answer.number import is_only_numbers
from finr1.answer.yes_no import IS_YES_OR_NO
from finr1.core.types import Kind, Question


def same_gold(first: Question, second: Question) -> bool:
    """Whether two questions do not contradict each other: each gold is right for the other (`12.5%` and `0.125`).

    Golds that are missing, free text or code cannot be compared, and contradict none.
    """
    if first.gold is None or second.gold is None or not {first.kind, second.kind}.isdisjoint(("text", "code")):
        return True
    return all(grade(q.gold, other).strict.value == 1.0 for q, other in ((first, second), (second, first)))


def kind_of(gold: str, choices: Mapping[str, str]) -> Kind:
    """The kind of a question by its gold and its options.

    >>> [kind_of(gold, {}) for gold in ("True", "12.5%", "$3.4 million", "2019-12-31", "rates rose 5%")]
    ['yes_no', 'number', 'number', 'text', 'text']
    >>> kind_of("bonds", {"A": "stocks", "B": "bonds"}), kind_of("7", {"A": "5", "B": "6"})
    ('choice', 'number')
    """
    if choices and letters_named(gold, "".join(choices), choices)[0]:
        return "choice"
    if IS_YES_OR_NO.fullmatch(clean(gold)):
        return "yes_no"
    return "number" if is_number(gold) and (is_only_numbers(gold) or gold.strip() in ("0", "1")) else "text"
