"""Figures of a model on a benchmark, and comparisons of two models, from scored completions.

Accuracy is over decided completions; undecided ones (None) are counted in `undecided` and count neither as right nor as
wrong. In a sample of a large benchmark each question has a weight (`Unit`). The `headline` figure is the judge model's
accuracy where one scores, else strict accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from finr1.answer.candidates import candidates
from finr1.answer.choices import letters_named, normalise
from finr1.answer.labels import labels_named
from finr1.answer.yes_no import polarity
from finr1.core.types import Question
from finr1.evaluation.scores import intervals as stats
from finr1.evaluation.scores.rows import ScoredCompletion, by_question, headline

SHARES = ("accuracy_strict", "accuracy_scaled", "format", "undecided", "abstained", "truncated")
TESTED = ("accuracy_strict", "accuracy_scaled", "accuracy_judged", "format")


class Unit(NamedTuple):
    """A question's weight, document and sampling category."""

    weight: float
    document: str
    stratum: str


Units = Mapping[str, Unit]


def units_of(questions: Sequence[Question]) -> Units:
    """Return question id -> unit; weight and stratum are set in `meta` by benchmarks that sample their questions."""
    return {
        q.id: Unit(float(q.meta.get("weight", 1.0)), q.document_id, str(q.meta.get("stratum", ""))) for q in questions
    }


def design_of(ids: Sequence[str], units: Units | None) -> stats.Design | None:
    """Return the survey design of these questions; None for independent questions of equal weight."""
    if units is None:
        return None
    design = stats.Design(*zip(*(units[key] for key in ids), strict=True))
    return None if design.plain and len(set(design.stratum_Q)) <= 1 else design


def _sums(rows: Sequence[ScoredCompletion], figure: str) -> dict[str, tuple[float, int]]:
    """Return question id -> (sum of decided values, number decided), without questions that have none."""
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
    """Return a share with its interval and the number `n` of decided rows; None without a decided row."""
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
    """Return all figures of one model in one mode with their intervals; a share without a decided row is None.

    `low`, `high` and `method` are those of the `headline`. Without `units` questions are independent, of equal weight.
    """
    out: dict[str, Any] = {
        "n": len(rows),
        "n_questions": len({row.question_id for row in rows}),
        "errors": sum(row.failed for row in rows),
    }
    intervals: dict[str, dict[str, Any] | None] = {}
    leads = headline(rows)
    for figure in (*SHARES, *((leads,) if leads not in SHARES else ())):
        share = accuracy(rows, figure, confidence, units)
        if figure.startswith("accuracy_"):
            out[f"n_decided_{figure.removeprefix('accuracy_')}"] = 0 if share is None else share["n"]
        out[figure], intervals[figure] = None, None
        if share is not None:
            out[figure] = share["value"]
            intervals[figure] = {key: share[key] for key in ("low", "high", "method")}
    lengths: dict[str, list[int]] = {}
    for row in rows:
        if not row.failed:
            lengths.setdefault(row.question_id, []).append(row.n_tokens)
    means = [sum(tokens) / len(tokens) for tokens in lengths.values()]
    design = design_of(list(lengths), units) if means else None
    out["mean_tokens"] = stats.weighted_mean(means, design) if means else None
    resampled = (samples, seed, confidence, design)
    intervals["mean_tokens"] = stats.bootstrap(means, *resampled)._asdict() if means else None
    leading = intervals[leads] or {"low": None, "high": None, "method": "no decided completions"}
    return {**out, **leading, "confidence": confidence, "intervals": intervals}


def at_k(
    rows: Sequence[ScoredCompletion], questions: Mapping[str, Question], confidence: float, units: Units | None = None
) -> dict[str, Any]:
    """Return mean@n, pass@k and maj@n of the `headline` with intervals, for k = 1, 2, 4, … below n samples, and n.

    maj@n is the accuracy of the majority answer, where tied answers share equally. Questions with fewer than k decided
    samples are left out; `n_questions` counts the others.
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
        worth = 1 if name.startswith("maj") else most  # independent samples per question, at most
        interval = stats.share([value * worth for value in value_Q], [worth] * len(value_Q), confidence, design)
        value = stats.weighted_mean(value_Q, design)
        out[name] = {"value": value, "n_questions": len(value_Q), **interval._asdict()}
    return out


def majority(rows: Sequence[ScoredCompletion], question: Question) -> float | None:
    """Return the verdict on the majority answer among the samples of one question.

    Tied answers share equally. Samples without an answer do not vote; without any vote the result is 0. None where a
    winning answer is undecided.
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
    """Return a key that is equal for equivalent answers: numbers by value, options and labels by what they name."""
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
    """Compare model b with model a on the questions decided for both: exact McNemar, or paired means when `sampled`.

    Where questions share documents or have unequal weights, McNemar's test does not hold and paired means over whole
    documents replace it. With one completion per question both tests are returned, as `mcnemar` and `bootstrap`. The
    top-level fields are those of the `headline`; other figures' tests are under their names. None without a common
    decided question.
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
    """Add `p_holm` to every test (pair -> mode -> test): Holm's p over all pairs within a mode and figure."""
    for mode in {mode for modes in paired.values() for mode in modes}:
        leading = [test for modes in paired.values() if (test := modes.get(mode)) is not None]
        families = [leading] + [[test[f] for test in leading if test.get(f)] for f in TESTED]
        for family in families:
            for test, p in zip(family, stats.holm([test["p"] for test in family]), strict=True):
                test["p_holm"] = p
