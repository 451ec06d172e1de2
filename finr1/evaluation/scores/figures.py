"""Score a model on questions: complete, grade, count. Used by the stage `evaluate` and by evaluation during training.

A row is one completion. Figures are shares over completions that were decided: an undecided one (None) is counted in
`undecided` and left out of the accuracy, never taken for right or wrong. Questions that stand for more than one (a
sample of a large benchmark) count so often; their documents are what is drawn (`Unit`).

Where a judge model scores (`judging`), each row has its verdict as `judged` beside those of the rules, and that is the
figure that leads (`headline`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from finr1.answer.choices import labels_named, letters_named, normalise, polarity
from finr1.answer.grade_number import candidates
from finr1.core.types import Question
from finr1.evaluation.scores import intervals as stats
from finr1.evaluation.scores.rows import ScoredCompletion, by_question, headline

SHARES = ("format", "accuracy_strict", "accuracy_scaled", "undecided", "truncated")
TESTED = ("accuracy_strict", "accuracy_scaled", "accuracy_judged", "format")


class Unit(NamedTuple):
    """How a question came to be asked: how many it stands for, the document it is on, the category it was drawn in."""

    weight: float
    document: str
    stratum: str


Units = Mapping[str, Unit]


def units_of(questions: Sequence[Question]) -> Units:
    """Question id -> its unit, from `document_id` and what a benchmark that samples leaves in `meta`."""
    return {
        q.id: Unit(float(q.meta.get("weight", 1.0)), q.document_id, str(q.meta.get("stratum", ""))) for q in questions
    }


def design_of(ids: Sequence[str], units: Units | None) -> stats.Design | None:
    """The design of these questions; None where each is a unit of its own and they all stand for as many."""
    if units is None:
        return None
    design = stats.Design(*zip(*(units[key] for key in ids), strict=True))
    return None if design.plain and len(set(design.stratum_Q)) <= 1 else design


def _sums(rows: Sequence[ScoredCompletion], figure: str) -> dict[str, tuple[float, int]]:
    """Question id -> (sum of the decided values, how many were decided); questions without one are left out."""
    sums: dict[str, tuple[float, int]] = {}
    for row in rows:
        value = row.value(figure)
        if value is not None:
            total, count = sums.get(row.question_id, (0.0, 0))
            sums[row.question_id] = (total + value, count + 1)
    return sums


def accuracy(
    rows: Sequence[ScoredCompletion], figure: str, confidence: float, units: Units | None = None
) -> dict[str, Any] | None:
    """A share with its interval over these rows, and of how many decided rows `n`; None where nobody decided."""
    sums = _sums(rows, figure)
    if not sums:
        return None
    design = design_of(list(sums), units)
    right_Q, n_Q = [s for s, _ in sums.values()], [n for _, n in sums.values()]
    value = stats.weighted_mean(right_Q, design) / stats.weighted_mean(n_Q, design)
    return {"value": value, "n": sum(n_Q), **stats.share(right_Q, n_Q, confidence, design)._asdict()}


def figures(
    rows: Sequence[ScoredCompletion], confidence: float, samples: int, seed: int, units: Units | None = None
) -> dict[str, Any]:
    """All figures of one model in one mode, each with its interval; a share nobody decided is None.

    `low`, `high` and `method` are those of the `headline`. Without `units` every question stands for itself.
    """
    out: dict[str, Any] = {
        "n": len(rows),
        "n_questions": len({row.question_id for row in rows}),
        "errors": sum(row.failed for row in rows),
    }
    intervals: dict[str, dict[str, Any] | None] = {}
    leads = headline(rows)
    for figure in (*SHARES, *((leads,) if leads not in SHARES else ())):
        found = accuracy(rows, figure, confidence, units)
        if figure.startswith("accuracy_"):
            out[f"n_decided_{figure.removeprefix('accuracy_')}"] = 0 if found is None else found["n"]
        out[figure], intervals[figure] = None, None
        if found is not None:
            out[figure] = found["value"]
            intervals[figure] = {key: found[key] for key in ("low", "high", "method")}
    lengths: dict[str, list[int]] = {}
    for row in rows:
        if not row.failed:
            lengths.setdefault(row.question_id, []).append(row.n_tokens)
    means = [sum(tokens) / len(tokens) for tokens in lengths.values()]
    design = design_of(list(lengths), units) if means else None
    out["mean_tokens"] = stats.weighted_mean(means, design) if means else None
    resampled = (samples, seed, confidence, design)
    intervals["mean_tokens"] = stats.bootstrap(means, *resampled)._asdict() if means else None
    leading = intervals[leads] or {"low": None, "high": None, "method": "nothing decided"}
    return {**out, **leading, "confidence": confidence, "intervals": intervals}


def at_k(
    rows: Sequence[ScoredCompletion], questions: Mapping[str, Question], confidence: float, units: Units | None = None
) -> dict[str, Any]:
    """mean@n, pass@k and maj@n of the `headline`, each with its interval; k: powers of two up to n samples, and n.

    mean@n averages a question's samples; pass@k (`stats.pass_at_k`) is the chance that one of k is right; maj@n that
    the commonest answer is, where ties share. A question with fewer decided samples than k is left out: `n_questions`.
    """
    sums, groups = _sums(rows, headline(rows)), by_question(rows)
    most = max((n for _, n in sums.values()), default=0)
    if most < 2:
        return {}
    values: dict[str, dict[str, float]] = {f"mean@{most}": {key: s / n for key, (s, n) in sums.items()}}
    for k in [*(2**i for i in range(most.bit_length()) if 2**i < most), most]:
        values[f"pass@{k}"] = {key: stats.pass_at_k(n, round(s), k) for key, (s, n) in sums.items() if n >= k}
    votes = {key: majority(group, questions[key]) for key, group in groups.items()}
    values[f"maj@{most}"] = {key: value for key, value in votes.items() if value is not None}
    out: dict[str, Any] = {}
    for name, value_of_question in values.items():
        if not value_of_question:
            continue
        value_Q, design = list(value_of_question.values()), design_of(list(value_of_question), units)
        worth = 1 if name.startswith("maj") else most  # independent samples in a question's value, at most
        interval = stats.share([value * worth for value in value_Q], [worth] * len(value_Q), confidence, design)
        value = stats.weighted_mean(value_Q, design)
        out[name] = {"value": value, "n_questions": len(value_Q), **interval._asdict()}
    return out


def majority(rows: Sequence[ScoredCompletion], question: Question) -> float | None:
    """The leading verdict on the commonest answer among the samples of one question.

    Tied answers share it equally, as a coin would choose. Samples without an answer do not vote; without any vote the
    outcome is 0. None where nobody decided on a winner.
    """
    verdicts: dict[str, list[float | None]] = {}
    for row in rows:
        if not row.failed and row.answer:
            verdicts.setdefault(_answer_key(row.answer, question), []).append(row.correct)
    if not verdicts:
        return None if all(row.failed for row in rows) else 0.0
    top = max(map(len, verdicts.values()))
    outcomes: list[float] = []
    for given in (group for group in verdicts.values() if len(group) == top):
        decided = [value for value in given if value is not None]
        if not decided:
            return None
        outcomes.append(sum(decided) / len(decided))
    return sum(outcomes) / len(outcomes)


def _answer_key(answer: str, question: Question) -> str:
    """Equal for answers that say the same: a number by its value, an option or label by what it names."""
    if question.kind == "number":
        _, numbers = candidates(answer)
        if len(numbers) == 1:
            return f"{numbers[0].value:.6g}"
    elif question.kind == "choice" and question.choices:
        named, _ = letters_named(answer, "".join(question.choices), question.choices)
        if named:
            return ",".join(sorted(named))
    elif question.kind == "label" and (labels := labels_named(answer, question.choices)[0]):
        return ",".join(sorted(labels))
    elif question.kind == "yes_no" and (polar := polarity(answer)):
        return polar
    return normalise(answer) or answer.strip()


def compare(
    rows_a: Sequence[ScoredCompletion],
    rows_b: Sequence[ScoredCompletion],
    sampled: bool,
    confidence: float,
    samples: int,
    seed: int,
    units: Units | None = None,
) -> dict[str, Any] | None:
    """Model b against a over the questions that both decided: exact McNemar, or paired means when `sampled`.

    Where questions share a document, or stand for unlike numbers, McNemar's test does not hold: paired means by whole
    documents then decide. One completion a question has both tests, as `mcnemar` and `bootstrap`. The fields are those
    of the `headline`; the other figures' tests stand under their names. None if there is no question that both decided.
    """
    leads = headline(rows_a)
    tests: dict[str, dict[str, Any] | None] = {}
    for figure in (figure for figure in TESTED if figure in (leads, *SHARES)):
        a, b = _sums(rows_a, figure), _sums(rows_b, figure)
        both = [question for question in a if question in b]
        a_Q, b_Q = ([side[q][0] / side[q][1] for q in both] for side in (a, b))
        if not both:
            tests[figure] = None
            continue
        design = design_of(both, units)
        means = stats.paired_means(a_Q, b_Q, samples, seed, confidence, design)._asdict()
        if sampled:
            tests[figure] = means
        else:
            exact = stats.mcnemar(a_Q, b_Q, confidence)._asdict()
            tests[figure] = {**(exact if design is None else means), "mcnemar": exact, "bootstrap": means}
    leading = tests.pop(leads)
    return None if leading is None else {**leading, **tests}


def correct_for_many(paired: Mapping[str, Mapping[str, dict[str, Any] | None]]) -> None:
    """Add `p_holm` to every test (pair of models -> mode -> test): Holm's p over all pairs, by mode and figure."""
    for mode in {mode for modes in paired.values() for mode in modes}:
        leading = [test for modes in paired.values() if (test := modes.get(mode)) is not None]
        families = [leading] + [[test[f] for test in leading if test.get(f)] for f in TESTED]
        for family in families:
            for test, p in zip(family, stats.holm([test["p"] for test in family]), strict=True):
                test["p_holm"] = p
