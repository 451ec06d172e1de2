"""Agreement between rules and answer judges in the filter, by source, with sample disagreements.

Every row of the filter has the rules' verdict (`answer_scaled`, or `answer_strict`); it has a judge's where that judge
decided, or where the trace was audited (`answers`, see `filter.audit_share`).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from finr1.core.jsonl import read_jsonl
from finr1.core.types import stable_id
from finr1.evaluation.scores.kappa import cohen_kappa

RULES = "exact"  # module of the rules as a judge, `finr1.parts.judge.exact`

KINDS = ("rules right, judge wrong", "rules wrong, judge right")
CELLS = ("both", "only_rules", "only_judge", "neither")


class Pair(NamedTuple):
    """Verdicts of rules and one judge on one trace; None: undecided, or not asked."""

    judge: str
    row: Mapping[str, Any]
    rules: float | None
    judged: float | None
    why: str  # the judge's

    @property
    def kind(self) -> str:
        """The kind of disagreement; empty where they agree or one of them is None."""
        if self.rules is None or self.judged is None or self.rules == self.judged:
            return ""
        return KINDS[0] if self.rules == 1 else KINDS[1]


def other_judges(settings: Mapping[str, Any]) -> list[str]:
    """Return the answer judges of a filter's manifest, without the rules themselves."""
    nodes = (settings.get("judge") or {}).get("answer") or {}
    return [name for name, node in nodes.items() if f".{RULES}." not in str(node.get("_target_", ""))]


def pairs(folder: Path, settings: Mapping[str, Any]) -> Iterator[Pair]:
    """Yield every trace of `verdicts.jsonl` with each judge besides the rules."""
    tolerant = (settings.get("filter") or {}).get("scale_tolerant", True)
    column, judges = "answer_scaled" if tolerant else "answer_strict", other_judges(settings)
    for row in read_jsonl(folder / "verdicts.jsonl") if judges else ():
        for name in judges:
            verdict = row["answer"] if row["answer"]["judge"] == name else row.get("answers", {}).get(name)
            value, why = (verdict["value"], verdict.get("why", "")) if verdict else (None, "")
            yield Pair(name, row, row[column]["value"], value, why)


def agreement(folder: Path | None, questions: Path | None, settings: Mapping[str, Any], n: int = 2) -> Any:
    """Return tables and samples for the report; None without a filter.

    `tables` maps each judge to rows of figures, all sources first; `samples` holds up to `n` disagreements per judge,
    source and kind, chosen by hash; `note` explains an empty comparison.
    """
    if folder is None or questions is None or not (folder / "verdicts.jsonl").exists():
        return None
    judges = other_judges(settings)
    every = list((settings.get("judge") or {}).get("answer") or {})
    if not judges:
        note = f"Only one answer judge ({', '.join(every)}): nothing to compare."
        return {"judges": every, "tables": {}, "samples": [], "note": note}
    source_of = {row["id"]: row["source"] for row in read_jsonl(questions / "questions.jsonl")}
    counts: dict[str, dict[str, Counter[str]]] = {name: {} for name in judges}
    chosen: dict[tuple[str, str, str], list[tuple[str, Pair]]] = {}
    for pair in pairs(folder, settings):
        source = source_of.get(pair.row["question_id"], "unknown")
        cell = _cell(pair)
        for name in ("all sources", source):
            counts[pair.judge].setdefault(name, Counter())[cell] += 1
        if pair.kind:
            place = chosen.setdefault((pair.judge, source, pair.kind), [])
            place.append((stable_id("agreement", pair.row["trace_id"]), pair))
            place.sort(key=lambda item: item[0])
            del place[n:]
    tables = {name: [_figures(source, c) for source, c in table.items()] for name, table in counts.items()}
    unpaired = [name for name, rows in tables.items() if not any(row["n"] for row in rows)]
    note = ""
    if unpaired:
        note = (
            f"Rules and {', '.join(unpaired)} decided no trace in common: in a cascade a judge only sees what the "
            "previous one left undecided. filter.audit_share=0.1 asks every judge about a tenth of the traces."
        )
    samples = [(source, pair) for (_, source, _), pairs in chosen.items() for _, pair in pairs]
    return {"judges": every, "tables": tables, "samples": list(_shown(samples, questions)), "note": note}


def _cell(pair: Pair) -> str:
    if pair.rules is None or pair.judged is None:
        return "none" if pair.rules is None and pair.judged is None else "one"
    return CELLS[2 * (pair.rules != 1) + (pair.judged != 1)]


def _figures(source: str, counts: Counter[str]) -> dict[str, Any]:
    """Return one table row: n traces decided by both, agreement with interval, kappa, share right by each."""
    cells = [counts[name] for name in CELLS]
    row: dict[str, Any] = {"source": source, "n": sum(cells), **dict(zip(CELLS, cells, strict=True))}
    row["only_one_decided"] = counts["one"]
    kappa = cohen_kappa(cells)._asdict()
    marginals = {"rules": kappa.pop("ones_a"), "judge": kappa.pop("ones_b")}
    return {**row, **kappa, **marginals}


def _shown(samples: list[tuple[str, Pair]], questions: Path) -> Iterator[dict[str, Any]]:
    """Yield the samples with their questions."""
    wanted = {pair.row["question_id"] for _, pair in samples}
    known = {row["id"]: row for row in read_jsonl(questions / "questions.jsonl") if row["id"] in wanted}
    for source, pair in sorted(samples, key=lambda sample: (sample[1].judge, sample[1].kind, sample[0])):
        question = known[pair.row["question_id"]]
        yield {
            "judge": pair.judge,
            "kind": pair.kind,
            "source": source,
            "trace_id": pair.row["trace_id"],
            "question": short("\n".join(message["content"] for message in question["prompt"])),
            "gold": question["gold"],
            "answer": pair.row["answer_scaled"].get("answer") or pair.row["answer"].get("answer"),
            "rules_why": pair.row["answer_scaled"].get("why", ""),
            "judge_why": pair.why,
        }


def short(text: str, head: int = 200, tail: int = 300) -> str:
    """Abbreviate a long text to its beginning and end; the question is often last."""
    return text if len(text) <= head + tail + 20 else f"{text[:head]} […] {text[-tail:]}"
