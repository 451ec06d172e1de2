"""Stage `questions`: read every source, drop repeated and contaminated rows, choose, write `1_questions`.

Every row taken out for a fault stays in `removed.jsonl` with its reason and partner, rows that a source could not
read with their place in its files; rows merely not chosen (`questions.limit_per_source`) are counted. Rows whose
source hides the gold stay: they can be asked, never scored.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple
from unicodedata import normalize

from finr1.errors import ConfigError, DataError
from finr1.store import write_jsonl
from finr1.types import Question, stable_id

if TYPE_CHECKING:
    from finr1.context import Context


@dataclass
class QuestionsSettings:
    """What happens to the questions of all sources before anything is asked."""

    limit_per_source: int | None = None  # training questions a source, a seeded choice; null: all
    drop_duplicates: bool = True
    decontaminate: bool = (
        True  # drop training questions that a benchmark of this run also asks, or whose document it uses
    )

    def __post_init__(self) -> None:
        if self.limit_per_source is not None and self.limit_per_source < 1:
            raise ConfigError(
                "questions.limit_per_source", self.limit_per_source, "nothing would be asked", "use 1 or more"
            )


class Removal(NamedTuple):
    """Why a question was taken out, and the id of the question it clashed with."""

    question: Question
    reason: str
    partner: str


def run(ctx: Context) -> dict[str, Any]:
    """Write `questions.jsonl` and `removed.jsonl`; returns the counts. DataError when nothing is left."""
    from finr1.context import build_all

    cfg = ctx.cfg
    if not cfg.source:
        raise ConfigError("source", "[]", "there is nothing to ask", "name a source, such as source=[worked]")
    questions: list[Question] = []
    set_aside: list[dict[str, str]] = []
    with ctx.progress("sources", len(cfg.source)) as bar:
        for source in build_all(cfg.source).values():
            questions += [question for question in source.load() if question.split == "train"]
            for place, reason, why in getattr(source, "set_aside", ()):
                set_aside.append({"source": source.name, "reason": reason, "place": place, "why": why})
            bar.advance(text=f"{len(questions)} read")
    n_read = len(questions)
    # the very same row twice is never kept: everything after this goes by the question's id
    questions, removals = drop_duplicates(questions, wording if cfg.questions.drop_duplicates else attrgetter("id"))
    if cfg.questions.decontaminate and cfg.benchmark:
        held_out = [question for benchmark in build_all(cfg.benchmark).values() for question in benchmark.load()]
        questions, out = decontaminate(questions, held_out)
        removals += out
    n_clean = len(questions)
    questions = choose(questions, cfg.questions.limit_per_source, cfg.seed)
    if not questions:
        why = f"no question left of {n_read} read, {len(removals)} taken out"
        raise DataError(f"source=[{','.join(cfg.source)}]", why, "name other sources or benchmarks")
    write_jsonl(ctx.folder / "questions.jsonl", (question.to_json() for question in questions))
    rows = (
        {"id": r.question.id, "reason": r.reason, "partner": r.partner, "source": r.question.source} for r in removals
    )
    write_jsonl(ctx.folder / "removed.jsonl", (*set_aside, *rows))
    assert n_clean + len(removals) == n_read, "a question was lost"
    return {
        "read": n_read,
        "questions": len(questions),
        "not_chosen": n_clean - len(questions),
        "without_gold": sum(question.gold is None for question in questions),
        "set_aside": len(set_aside),
        "removed": dict(Counter([r.reason for r in removals] + [row["reason"] for row in set_aside])),
        **{
            f"by_{key}": dict(Counter(getattr(q, key) for q in questions))
            for key in ("source", "language", "kind", "module")
        },
        "by_domain": dict(Counter(str(q.meta.get("domain", "")) for q in questions)),
    }


def normalised(text: str) -> str:
    """Compatibility forms unified, case and white space folded: what counts as the same wording."""
    return " ".join(normalize("NFKC", text).casefold().split())


def wording(question: Question) -> str:
    """A key that is equal for equally worded questions with the same choices."""
    choices = sorted((key, normalised(text)) for key, text in question.choices.items())
    return stable_id(normalised(question.text), choices)


def drop_duplicates(
    questions: Sequence[Question], key_of: Callable[[Question], str] = wording
) -> tuple[list[Question], list[Removal]]:
    """Keep one question of each key: the first that shows its gold.

    Equally worded questions with different golds are all taken out, since no one can say which gold is right.
    """
    groups: Mapping[str, list[Question]] = _grouped((key_of(question), question) for question in questions)
    kept: dict[str, Question] = {}
    removals: list[Removal] = []
    for key, group in groups.items():
        golds = {id(question): normalised(question.gold) for question in group if question.gold is not None}
        first = next((question for question in group if id(question) in golds), group[0])
        if len(set(golds.values())) > 1:
            for question in group:
                other = next(q for q in group if id(q) in golds and golds[id(q)] != golds.get(id(question)))
                removals.append(Removal(question, "contradictory_gold", other.id))
        else:
            kept[key] = first
            removals += [Removal(question, "duplicate", first.id) for question in group if question is not first]
    chosen = {id(question) for question in kept.values()}
    return [question for question in questions if id(question) in chosen], removals


def decontaminate(questions: Sequence[Question], held_out: Sequence[Question]) -> tuple[list[Question], list[Removal]]:
    """Take out questions that a benchmark asks too, and those on a document that a benchmark uses."""
    asked = {normalised(question.text): question.id for question in reversed(held_out)}
    documents = {question.document_id: question.id for question in reversed(held_out)}
    kept: list[Question] = []
    removals: list[Removal] = []
    for question in questions:
        if (text := normalised(question.text)) in asked:
            removals.append(Removal(question, "in_benchmark", asked[text]))
        elif question.document_id in documents:
            removals.append(Removal(question, "benchmark_document", documents[question.document_id]))
        else:
            kept.append(question)
    return kept, removals


def choose(questions: Sequence[Question], limit: int | None, seed: int) -> list[Question]:
    """At most `limit` questions of each source, in their order; the choice depends on seed and questions alone."""
    if limit is None:
        return list(questions)
    chosen: set[int] = set()
    for group in _grouped((question.source, question) for question in questions).values():
        chosen.update(id(question) for question in sorted(group, key=lambda q: stable_id(seed, q.id))[:limit])
    return [question for question in questions if id(question) in chosen]


def _grouped(pairs: Iterable[tuple[str, Question]]) -> dict[str, list[Question]]:
    groups: dict[str, list[Question]] = defaultdict(list)
    for key, question in pairs:
        groups[key].append(question)
    return groups
