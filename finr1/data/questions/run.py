"""Stage `questions`: read every source, drop repeated and contaminated rows, choose, write `1_questions`.

Splits go by document across sources: what any source of the run holds out, no other may train on. `checked` among the
counts names the benchmarks that the rows were checked against; training refuses rows without it.

Every row taken out for a fault stays in `removed.jsonl` with its reason and partner, rows that a source could not
read with their place in its files; rows merely not chosen (`questions.limit_per_source`) are counted. Rows whose
source hides the gold stay: they can be asked, never scored.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple
from unicodedata import normalize

from finr1.core.errors import ConfigError, DataError
from finr1.core.jsonl import write_jsonl
from finr1.core.types import Question, stable_id

if TYPE_CHECKING:
    from finr1.parts.source.base import Source
    from finr1.run.context import Context


class Removal(NamedTuple):
    """Why a question was taken out, and the id of the question it clashed with."""

    question: Question
    reason: str
    partner: str


def run(ctx: Context) -> dict[str, Any]:
    """Write `questions.jsonl` and `removed.jsonl`; returns the counts. DataError when nothing is left."""
    from finr1.core.build import build_all
    from finr1.data.questions.overlap import Reader, near_duplicates, shared_grams

    cfg = ctx.cfg
    if not cfg.source:
        raise ConfigError("source", "[]", "there is nothing to ask", "name a source, such as source=[worked]")
    settings = cfg.questions
    sources = build_all(cfg.source)
    every, held_documents = _read(ctx, sources)
    set_aside = [
        {"source": source.name, "reason": reason, "place": place, "why": why}
        for source in sources.values()
        for place, reason, why in getattr(source, "set_aside", ())
    ]
    # the very same row twice is never kept: everything after this goes by the question's id
    questions, removals = drop_duplicates(every, wording if settings.drop_duplicates else attrgetter("id"))
    held_out: dict[str, Sequence[Question]] = {}
    if settings.decontaminate:
        held_out = {name: benchmark.load() for name, benchmark in build_all(cfg.benchmark).items()}
    asked = [question for rows in held_out.values() for question in rows]
    reader = Reader([*questions, *asked])
    if settings.drop_duplicates and settings.near_duplicates is not None:
        pairs = near_duplicates(questions, reader, settings.near_duplicates)
        questions, out = take_out(questions, "near_duplicate", {i: questions[j].id for i, j in pairs.items()})
        removals += out
    if settings.decontaminate:
        questions, out = decontaminate(questions, asked, held_documents)
        removals += out
        sizes = (settings.overlap_words, settings.overlap_characters, settings.overlap_common)
        pairs = shared_grams(questions, asked, reader, *sizes)
        questions, out = take_out(questions, "benchmark_overlap", {i: asked[j].id for i, j in pairs.items()})
        removals += out
    n_clean = len(questions)
    questions = choose(questions, cfg.questions.limit_per_source, cfg.seed)
    if not questions:
        why = f"no question left of {len(every)} read, {len(removals)} taken out"
        raise DataError(f"source=[{','.join(cfg.source)}]", why, "name other sources or benchmarks")
    write_jsonl(ctx.folder / "questions.jsonl", (question.to_json() for question in questions))
    rows = (
        {"id": r.question.id, "reason": r.reason, "partner": r.partner, "source": r.question.source} for r in removals
    )
    write_jsonl(ctx.folder / "removed.jsonl", (*set_aside, *rows))
    assert n_clean + len(removals) == len(every), "a question was lost"
    return {
        "read": len(every),
        "questions": len(questions),
        "not_chosen": n_clean - len(questions),
        "without_gold": sum(question.gold is None for question in questions),
        "set_aside": len(set_aside),
        "removed": dict(Counter([r.reason for r in removals] + [row["reason"] for row in set_aside])),
        "distribution": distribution(every, questions),
        "licences": {source.name: getattr(source, "licence", None) for source in sources.values()},
        "checked": {name: len(rows) for name, rows in held_out.items()} if settings.decontaminate else None,
        **{
            f"by_{key}": dict(Counter(getattr(q, key) for q in questions))
            for key in ("source", "language", "kind", "module")
        },
        "by_domain": dict(Counter(str(q.meta.get("domain", "")) for q in questions)),
    }


def distribution(read: Sequence[Question], kept: Sequence[Question]) -> list[dict[str, Any]]:
    """Rows read and kept by source, module and language: the first columns of the data set's card."""
    keys = ("source", "module", "language")
    n_read, n_kept = (Counter(tuple(getattr(q, key) for key in keys) for q in rows) for rows in (read, kept))
    return [{**dict(zip(keys, cell, strict=True)), "read": n, "kept": n_kept[cell]} for cell, n in n_read.items()]


def _read(ctx: Context, sources: Mapping[str, Source]) -> tuple[list[Question], dict[str, str]]:
    """All training questions, and each document that a source holds out with the id of a question on it."""
    train: list[Question] = []
    held: dict[str, str] = {}
    with ctx.progress("sources", len(sources)) as bar:
        for source in sources.values():
            for question in source.load():
                if question.split == "train":
                    train.append(question)
                else:
                    held.setdefault(question.document_id, question.id)
            bar.advance(text=f"{len(train)} read")
    return train, held


def take_out(
    questions: Sequence[Question], reason: str, partners: Mapping[int, str]
) -> tuple[list[Question], list[Removal]]:
    """Divide the questions: those at the indices of `partners` (id of the other one) are removed."""
    removals = [Removal(questions[i], reason, partner) for i, partner in sorted(partners.items())]
    return [question for i, question in enumerate(questions) if i not in partners], removals


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

    Equally worded questions with different golds are all taken out, since no one can say which gold is right; but free
    text may be right in many words.
    """
    groups: Mapping[str, list[Question]] = _grouped((key_of(question), question) for question in questions)
    kept: dict[str, Question] = {}
    removals: list[Removal] = []
    for key, group in groups.items():
        golds = {id(question): normalised(question.gold) for question in group if question.gold is not None}
        first = next((question for question in group if id(question) in golds), group[0])
        if len(set(golds.values())) > 1 and first.kind not in ("text", "code"):
            for question in group:
                other = next(q for q in group if id(q) in golds and golds[id(q)] != golds.get(id(question)))
                removals.append(Removal(question, "contradictory_gold", other.id))
        else:
            kept[key] = first
            removals += [Removal(question, "duplicate", first.id) for question in group if question is not first]
    chosen = {id(question) for question in kept.values()}
    return [question for question in questions if id(question) in chosen], removals


def decontaminate(
    questions: Sequence[Question], held_out: Sequence[Question], held_documents: Mapping[str, str] | None = None
) -> tuple[list[Question], list[Removal]]:
    """Take out questions that a benchmark asks too, and those on a document that a benchmark or a source holds out."""
    asked = {normalised(question.text): question.id for question in reversed(held_out)}
    documents = {question.document_id: question.id for question in reversed(held_out)}
    kept: list[Question] = []
    removals: list[Removal] = []
    for question in questions:
        if (text := normalised(question.text)) in asked:
            removals.append(Removal(question, "in_benchmark", asked[text]))
        elif question.document_id in documents:
            removals.append(Removal(question, "benchmark_document", documents[question.document_id]))
        elif held_documents and question.document_id in held_documents:
            removals.append(Removal(question, "held_out_document", held_documents[question.document_id]))
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
