"""Stage `questions`: read every source, remove duplicates and benchmark overlap, apply the limit, write `1_questions`.

Splits go by document across sources: no source may train on a document that another one holds out. The count `checked`
names the benchmarks that the rows were checked against; training refuses rows without it.

`removed.jsonl` has every removed row with its reason and the question it clashed with, and every row that a source
could not parse with its place in the file. Rows beyond `questions.limit_per_source` are only counted. Rows whose source
withholds the gold are kept: they can be asked, never scored.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple
from unicodedata import normalize

from finr1.answer.golds import same_gold
from finr1.core.errors import ConfigError, DataError
from finr1.core.jsonl import write_jsonl
from finr1.core.prompt import LINK, parts_of
from finr1.core.types import Question, stable_id

if TYPE_CHECKING:
    from finr1.parts.source.base import Source
    from finr1.run.context import Context


class Removal(NamedTuple):
    """A removed question, the reason, and the id of the question that it clashed with."""

    question: Question
    reason: str
    partner: str

    def to_json(self) -> dict[str, str]:
        """A row of `removed.jsonl`."""
        question = self.question
        return {"id": question.id, "reason": self.reason, "partner": self.partner, "source": question.source}


def run(ctx: Context) -> dict[str, Any]:
    """Write `questions.jsonl` and `removed.jsonl`; returns the counts. DataError when nothing is left."""
    from finr1.core.build import build_all
    from finr1.data.questions.overlap import TokenReader, near_duplicates, shared_ngrams

    cfg, settings = ctx.cfg, ctx.cfg.questions
    if not cfg.source:
        raise ConfigError("source", "[]", "there are no questions", "name a source, such as source=[worked]")
    sources = build_all(cfg.source)
    read, held_out_documents = _read(ctx, sources)
    unparsed = [
        {"source": source.name, "reason": reason, "place": place, "why": why}
        for source in sources.values()
        for place, reason, why, _ in getattr(source, "set_aside", ())
    ]
    # an identical row is always a duplicate: later steps rely on unique question ids
    questions, removals = drop_duplicates(read, wording if settings.drop_duplicates else attrgetter("id"))
    benchmarks = build_all(cfg.benchmark) if settings.decontaminate else {}
    held_out = {name: benchmark.load() for name, benchmark in benchmarks.items()}
    benchmark_questions = [question for rows in held_out.values() for question in rows]
    reader = TokenReader([*questions, *benchmark_questions])
    if settings.drop_duplicates and settings.near_duplicates is not None:
        pairs = near_duplicates(questions, reader, settings.near_duplicates)
        questions, removed = remove(questions, "near_duplicate", {i: questions[j].id for i, j in pairs.items()})
        removals += removed
    if settings.decontaminate:
        questions, removed = decontaminate(questions, benchmark_questions, held_out_documents)
        removals += removed
        sizes = (settings.overlap_words, settings.overlap_characters, settings.overlap_common)
        pairs = shared_ngrams(questions, benchmark_questions, reader, *sizes)
        partners = {i: benchmark_questions[j].id for i, j in pairs.items()}
        questions, removed = remove(questions, "benchmark_overlap", partners)
        removals += removed
    if len(questions) + len(removals) != len(read):
        raise AssertionError(f"{len(questions)} kept and {len(removals)} removed of {len(read)}: one was lost")
    selected = choose(questions, settings.limit_per_source, cfg.seed)
    if not selected:
        why = f"no question left of {len(read)} read, {len(removals)} removed"
        raise DataError(f"source=[{','.join(cfg.source)}]", why, "name other sources or benchmarks")
    write_jsonl(ctx.folder / "questions.jsonl", (question.to_json() for question in selected))
    write_jsonl(ctx.folder / "removed.jsonl", (*unparsed, *(removal.to_json() for removal in removals)))
    return {
        "rows": {source.name: source.n_rows for source in sources.values() if hasattr(source, "n_rows")},
        "read": len(read),
        "questions": len(selected),
        "not_chosen": len(questions) - len(selected),
        "without_gold": sum(question.gold is None for question in selected),
        "set_aside": len(unparsed),
        "removed": dict(Counter([r.reason for r in removals] + [row["reason"] for row in unparsed])),
        "distribution": distribution(read, selected),
        "licences": {source.name: getattr(source, "licence", None) for source in sources.values()},
        "benchmark_rows_left_out": {name: dict(getattr(b, "left_out", {})) for name, b in benchmarks.items()},
        "checked": {name: len(rows) for name, rows in held_out.items()} if settings.decontaminate else None,
        **{
            f"by_{key}": dict(Counter(getattr(question, key) for question in selected))
            for key in ("source", "language", "kind", "module")
        },
        "by_domain": dict(Counter(str(question.meta.get("domain", "")) for question in selected)),
    }


def distribution(read: Sequence[Question], kept: Sequence[Question]) -> list[dict[str, Any]]:
    """Rows read and kept per source, module and language: the first columns of the dataset card's table."""
    keys = ("source", "module", "language")
    n_read, n_kept = (Counter(map(attrgetter(*keys), rows)) for rows in (read, kept))
    return [{**dict(zip(keys, cell, strict=True)), "read": n, "kept": n_kept[cell]} for cell, n in n_read.items()]


def _read(ctx: Context, sources: Mapping[str, Source]) -> tuple[list[Question], dict[str, str]]:
    """All training questions; and each held-out document with the id of a question on it."""
    train: list[Question] = []
    held_out_documents: dict[str, str] = {}
    with ctx.progress("sources", len(sources)) as bar:
        for source in sources.values():
            before = len(train)
            for question in source.load():
                if question.split == "train":
                    train.append(question)
                else:
                    held_out_documents.setdefault(question.document_id, question.id)
            bar.advance(text=f"{len(train)} read")
            if len(train) == before:
                ctx.note(f"source {source.name} gives no training question: all that it has are held out")
    return train, held_out_documents


def remove(
    questions: Sequence[Question], reason: str, partners: Mapping[int, str]
) -> tuple[list[Question], list[Removal]]:
    """Split off the questions at the indices of `partners`, which names the question that each clashed with."""
    removals = [Removal(questions[i], reason, partner) for i, partner in sorted(partners.items())]
    return [question for i, question in enumerate(questions) if i not in partners], removals


def normalised(text: str) -> str:
    """The text with Unicode compatibility forms, case and white space folded: equal for the same wording."""
    return " ".join(normalize("NFKC", text).casefold().split())


def wording(question: Question) -> str:
    """A key that is equal for questions of the same wording and choices."""
    choices = sorted((key, normalised(text)) for key, text in question.choices.items())
    return stable_id(normalised(question.text), choices)


def drop_duplicates(
    questions: Sequence[Question], key_of: Callable[[Question], str] = wording
) -> tuple[list[Question], list[Removal]]:
    """Keep one question per key: the first with a gold.

    If golds contradict each other, all questions of the key are removed, since any of them may be wrong; golds of free
    text or code may differ.
    """
    groups: Mapping[str, list[Question]] = _grouped((key_of(question), question) for question in questions)
    kept: dict[str, Question] = {}
    removals: list[Removal] = []
    for key, group in groups.items():
        first = next((question for question in group if question.gold is not None), group[0])
        other = next((question for question in group if not same_gold(question, first)), None)
        if other is not None:
            for question in group:
                against = other if same_gold(question, first) else first
                removals.append(Removal(question, "contradictory_gold", against.id))
        else:
            kept[key] = first
            removals += [Removal(question, "duplicate", first.id) for question in group if question is not first]
    chosen = {id(question) for question in kept.values()}
    return [question for question in questions if id(question) in chosen], removals


def content(question: Question) -> str:
    """A key that is equal for the same question, context and choices in any template; links aside."""
    choices = sorted(question.choices.values()) if question.kind == "choice" else []
    return _without_links("\n".join([part for texts in parts_of(question) for part in texts] + choices))


def _contents(question: Question) -> Iterator[str]:
    """The text of a question, its content, and its lines of some words, also without what a colon ends: `Tweet: …`."""
    yield normalised(question.text)
    yield content(question)
    for line in question.text.splitlines():
        for text in (_without_links(line), _without_links(line.partition(":")[2])):
            if len(text.split()) >= 3 or len(text) >= 8:
                yield text


def _without_links(text: str) -> str:
    return normalised(LINK.sub(" ", text))


def decontaminate(
    questions: Sequence[Question], held_out: Sequence[Question], source_documents: Mapping[str, str] | None = None
) -> tuple[list[Question], list[Removal]]:
    """Remove questions that a benchmark asks too, and those on a document that a benchmark or source holds out."""
    wordings = {content(question): question.id for question in reversed(held_out)}
    wordings |= {normalised(question.text): question.id for question in reversed(held_out)}
    wordings.pop("", None)
    documents = {question.document_id: question.id for question in reversed(held_out)}
    kept: list[Question] = []
    removals: list[Removal] = []
    for question in questions:
        if (text := next((text for text in _contents(question) if text in wordings), None)) is not None:
            removals.append(Removal(question, "in_benchmark", wordings[text]))
        elif question.document_id in documents:
            removals.append(Removal(question, "benchmark_document", documents[question.document_id]))
        elif source_documents and question.document_id in source_documents:
            removals.append(Removal(question, "held_out_document", source_documents[question.document_id]))
        else:
            kept.append(question)
    return kept, removals


def choose(questions: Sequence[Question], limit: int | None, seed: int) -> list[Question]:
    """At most `limit` random questions per source, in their order; depends on the seed and the questions alone."""
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
