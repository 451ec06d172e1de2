"""Stage `filter`: sort the traces into good, bad and undecided, and choose the questions for GRPO.

Fin-R1 (arXiv 2503.16252 v5, sec. 3 and App. B.3) keeps a trace when its answer is right and its reasoning holds all
seven criteria; objective questions without a kept trace go to GRPO. Here a trace that the judges leave open is neither
good nor bad, but undecided, unless what is known settles it.

Traces are read, judged and written in their order, a chunk at a time: memory does not grow with them. Verdicts are
appended to `verdicts.jsonl` as they come, so that a killed stage goes on where it was (and what a judge model has
answered is in its cache); the other files take their names at the end. Of the questions only ids and places are held.
"""

from __future__ import annotations

import gc
import os
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from finr1.answer import parse, render
from finr1.audit import is_audited
from finr1.errors import ConfigError, DataError, Finr1Error
from finr1.index import QuestionIndex, number_of, repeated
from finr1.judge.base import CRITERIA, AnswerJudge, JudgeItem, ReasoningJudge, ask_all, decided
from finr1.store import JsonlWriter, count_lines, raw_rows, replacing, to_line, write_json, write_jsonl
from finr1.types import Question, Trace, Verdict

if TYPE_CHECKING:
    from finr1.context import Context

Outcome = Literal["good", "bad", "undecided"]
OUTCOMES: tuple[Outcome, ...] = ("good", "bad", "undecided")
OBJECTIVE = ("number", "choice", "yes_no", "label")  # kinds whose answer a rule can check: what GRPO may be rewarded on

ANSWERS = ("answer", "answer_strict", "answer_scaled")  # columns of a verdict row that hold one on the answer

FAULTS_NOTE = (
    "The faults were planted at a set rate by the teacher engine, of kinds that the filter was written to catch: the "
    "figures say how well it catches these, not how well it would catch the mistakes of a language model."
)


@dataclass
class FilterSettings:
    """What makes a trace good."""

    scale_tolerant: bool = True  # 11.8 is right where the gold is 11.8% or 0.118
    reasoning: bool = True  # ask the reasoning judges too; false: the answer alone decides
    criteria_needed: int = 7  # of the seven; Fin-R1 keeps a trace only if all hold
    chunk: int = 1024  # traces handed to the judges at once
    audit_share: float = 0.0  # of the traces: every answer judge is asked, for the report's table of agreement
    audit_seed: int = 0  # which ones

    def __post_init__(self) -> None:
        if not 1 <= self.criteria_needed <= len(CRITERIA):
            why = f"there are {len(CRITERIA)} criteria"
            raise ConfigError("filter.criteria_needed", self.criteria_needed, why, f"use 1 to {len(CRITERIA)}")
        if not 0 <= self.audit_share <= 1:
            raise ConfigError("filter.audit_share", self.audit_share, "it is a share of the traces", "use 0 to 1")
        if self.chunk < 1:
            raise ConfigError("filter.chunk", self.chunk, "nothing would be judged", "use 1 or more")


def run(ctx: Context) -> dict[str, Any]:
    """Write the four row files and `audit.json`; returns the counts."""
    cfg = ctx.cfg
    if not cfg.judge.answer:
        raise ConfigError("judge.answer", "[]", "no judge of answers", "give judge@judge.answer=[exact]")
    if cfg.filter.reasoning and not cfg.judge.reasoning:
        remedy = "give judge@judge.reasoning=[reasoning_rules], or filter.reasoning=false"
        raise ConfigError("judge.reasoning", "[]", "no judge of the reasoning", remedy)
    reasoning = ctx.parts(cfg.judge.reasoning) if cfg.filter.reasoning else {}
    judges = Judges(ctx.parts(cfg.judge.answer), reasoning, cfg.filter)
    path = ctx.inputs["distil"] / "traces.jsonl"
    with QuestionIndex(ctx.inputs["questions"] / "questions.jsonl") as questions, _rare_collections():
        total = check_traces(path, questions)
        counts = _judge_all(ctx, judges, questions, path, total)
    ctx.tracker.log("filter", {"good": counts["good"] / total}, step=0)
    for outcome, meaning in (("good", "SFT has no row"), ("rl_questions", "GRPO has no question")):
        if not counts[outcome]:
            ctx.note(f"no {outcome} of {total} traces: {meaning}")
    return counts | ctx.count_judge()


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Python looks for cycles of garbage at every 700 new objects, an eighth of this stage's time; rows have none."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _judge_all(ctx: Context, judges: Judges, questions: QuestionIndex, path: Path, total: int) -> dict[str, Any]:
    """Walk over the traces: those with a verdict on disk, then the others by chunks; everything is written once."""
    verdicts = ctx.folder / "verdicts.jsonl"
    with ExitStack() as open_files:
        sorting = _Sorting(
            questions, {o: open_files.enter_context(replacing(ctx.folder / f"{o}.jsonl")) for o in OUTCOMES}
        )
        writer = open_files.enter_context(JsonlWriter(verdicts))
        n_before = count_lines(verdicts)
        bar = open_files.enter_context(ctx.progress("traces", total, n_before))
        traces = _traces(path)
        for known in islice(raw_rows(verdicts, ("trace_id", "outcome")), n_before):
            line, trace = next(traces, (b"", None))
            if trace is None or trace.id != known.values["trace_id"]:
                why = f"trace {known.values['trace_id']} does not stand where it stood in {path}"
                raise DataError(verdicts, why, f"delete {ctx.folder} and run stage=filter again")
            sorting.add(questions[trace.question_id], trace, known.values, line, known.line.decode())
        sound = verdicts.stat().st_size  # of the file, up to where the judge's calls began to fail one after the other
        try:
            while chunk := list(islice(traces, ctx.cfg.filter.chunk)):
                asked = [questions[trace.question_id] for _, trace in chunk]
                rows = judges.judge([(question, trace) for question, (_, trace) in zip(asked, chunk, strict=True)])
                lines = list(map(to_line, rows))
                writer.write_lines(lines)
                sound = sound if ctx.judge_fails else verdicts.stat().st_size
                for question, (line, trace), row, text in zip(asked, chunk, rows, lines, strict=True):
                    sorting.add(question, trace, row, line, text)
                bar.advance(len(chunk), ", ".join(f"{sorting.counts[outcome]} {outcome}" for outcome in OUTCOMES))
        except Finr1Error:  # a judge that is gone: what it left undecided is judged when the stage is started again
            os.truncate(verdicts, sound)
            raise
        counts: dict[str, Any] = {outcome: sorting.counts[outcome] for outcome in OUTCOMES}
        if sum(counts.values()) != total:
            raise AssertionError(f"{counts} of {total} traces: one was lost")
    unsolved = (q for q in questions.unsolved() if q.kind in OBJECTIVE and q.gold is not None)
    rl = sorted(question.id for question in unsolved)  # hashes: the first of them are no one label or source
    write_jsonl(ctx.folder / "rl.jsonl", ({"question_id": question_id} for question_id in rl))
    audit = sorting.audit.to_json()
    write_json(ctx.folder / "audit.json", audit)
    more = {"traces": total, "questions_with_good": questions.solved.count(1), "rl_questions": len(rl)}
    if faults := audit.get("faults"):
        more |= {"fault_precision": faults["precision"], "fault_recall": faults["recall"]}
    return {**counts, **more}


_TRACE_FIELDS = [field.name for field in fields(Trace)]


def _traces(path: Path) -> Iterator[tuple[bytes, Trace]]:
    """The traces, each with the line that says all of it."""
    for row in raw_rows(path, ["id", *Trace.needed()]):
        whole = list(row.values) == _TRACE_FIELDS
        trace = Trace(**row.values) if whole else Trace.from_json(row.values)
        whole = whole and row.values["id"] == trace.id
        yield row.line if whole else to_line(trace.to_json()).encode(), trace


def check_traces(path: Path, questions: QuestionIndex) -> int:
    """How many traces there are; DataError when none, when one is there twice, or when its question is unknown.

    Eight bytes a trace are held for it. A mistake is known before anything is judged, and paid for.
    """
    keys = array("Q")
    last = None  # traces of a question stand together
    for number, row in enumerate(raw_rows(path, ["id", *Trace.needed()]), 1):
        keys.append(number_of(row.values["id"] or Trace.from_json(row.values).id))
        question_id = row.values["question_id"]
        if question_id != last and question_id not in questions:
            raise DataError(path, f"line {number} has an unknown question {question_id}", "run its stage again")
        last = question_id
    if not keys:
        raise DataError(path, "no trace", "run stage=distil again")
    if (twice := repeated(keys)) is not None:
        name = next(row.values["id"] for row in raw_rows(path) if number_of(row.values["id"]) == twice)
        raise DataError(path, f"trace {name} is there more than once", "delete the repeated lines")
    return len(keys)


class Judges:
    """The two cascades and the rule that makes an outcome of their verdicts."""

    def __init__(
        self,
        answer: Mapping[str, AnswerJudge],
        reasoning: Mapping[str, ReasoningJudge],
        settings: FilterSettings,
    ) -> None:
        self.answer, self.reasoning, self.settings = answer, reasoning, settings

    def judge(self, pairs: Sequence[tuple[Question, Trace]]) -> list[dict[str, Any]]:
        """One row of `verdicts.jsonl` a trace. Only usable traces are judged, only right ones on reasoning."""
        unfit = [unusable(trace) for _, trace in pairs]
        items = [JudgeItem(question, trace.reasoning, trace.answer) for question, trace in pairs]
        fit = [i for i, why in enumerate(unfit) if not why]
        share, seed = self.settings.audit_share, self.settings.audit_seed
        audited = [n for n, i in enumerate(fit) if is_audited(pairs[i][1].id, share, seed)]
        by_judge = dict(zip(fit, ask_all(self.answer, [items[i] for i in fit], audited), strict=True))
        answers = {i: decided(verdicts) for i, verdicts in by_judge.items()}
        right = [i for i in fit if self.settings.reasoning and answers[i][0].value == 1]
        criteria = dict(zip(right, self._criteria([items[i] for i in right]), strict=True))
        rows = []
        for i, (question, trace) in enumerate(pairs):
            verdict, judge = answers.get(i, (Verdict(None, why="not judged"), ""))
            of_reasoning = criteria.get(i, {})
            outcome, why = ("bad", unfit[i]) if unfit[i] else self.outcome(verdict, of_reasoning)
            strict, scaled = self._grades(items[i], bool(unfit[i]))
            rows.append(
                {
                    "trace_id": trace.id,
                    "question_id": question.id,
                    "outcome": outcome,
                    "why": why,
                    "answer": {**_plain(verdict), "judge": judge},
                    "answer_strict": _plain(strict),
                    "answer_scaled": _plain(scaled),
                    "criteria": {
                        name: {"value": value, "why": why, "judge": by}
                        for name, ((value, _, why), by) in of_reasoning.items()
                    },
                }
            )
        for i in (fit[n] for n in audited):
            rows[i]["answers"] = {name: verdict._asdict() for name, verdict in by_judge[i].items()}
        return rows

    def outcome(self, answer: Verdict, criteria: Mapping[str, tuple[Verdict, str]]) -> tuple[Outcome, str]:
        """Good, bad or undecided, and the reason in a few words (a key of the audit)."""
        if answer.value is None:
            return "undecided", "answer undecided"
        if answer.value != 1:
            return "bad", "answer wrong"
        if not self.settings.reasoning:
            return "good", ""
        values = [verdict.value for verdict, _ in criteria.values()]
        held, open_ = values.count(1), values.count(None)
        if held >= self.settings.criteria_needed:
            return "good", ""
        if held + open_ < self.settings.criteria_needed:
            return "bad", "reasoning fails"
        return "undecided", "reasoning undecided"

    def _criteria(self, items: Sequence[JudgeItem]) -> list[dict[str, tuple[Verdict, str]]]:
        """Each item's seven verdicts with the judge that gave them.

        A later judge sees the items with a criterion open, unless what is known settles the outcome.
        """
        nobody = Verdict(None, why="no judge decided")
        found = [] if self.reasoning else [dict.fromkeys(CRITERIA, (nobody, "")) for _ in items]
        todo: Sequence[int] = range(len(items))
        for n, (name, judge) in enumerate(self.reasoning.items()):
            if n:
                todo = [i for i in todo if self.outcome(Verdict(1.0), found[i])[0] == "undecided"]
            if not todo:
                break
            given = judge.judge([items[i] for i in todo])
            rows = [{c: (v := row.get(c, nobody), "" if v.value is None else name) for c in CRITERIA} for row in given]
            if not n:
                found = rows
                continue
            for i, row in zip(todo, rows, strict=True):
                found[i] = {c: row[c] if before[0].value is None else before for c, before in found[i].items()}
        return found

    @staticmethod
    def _grades(item: JudgeItem, unfit: bool) -> tuple[Verdict, Verdict]:
        """The rule's strict and scale-tolerant verdict, whoever decided: shown side by side in every report."""
        if unfit or item.question.gold is None:
            none = Verdict(None, why="no gold" if item.question.gold is None else "not judged")
            return none, none
        return item.grades


def _plain(verdict: Verdict) -> dict[str, Any]:
    """A verdict by its fields."""
    value, answer, why = verdict
    return {"value": value, "answer": answer, "why": why}


def unusable(trace: Trace) -> str:
    """Why a trace can be no training row whatever it says; empty if it can."""
    if trace.finish_reason == "error":
        return "call failed"
    if trace.finish_reason == "length":
        return "truncated"
    if not trace.answer:
        return "no answer"
    if not trace.reasoning:
        return "no reasoning"
    if "<" not in trace.reasoning + trace.answer and trace.reasoning.strip() and trace.answer.strip():
        return ""  # nothing that could be a tag
    return "" if parse(render(trace.reasoning, trace.answer)).well_formed else "tags inside the text"


class _Sorting:
    """Puts each trace with its verdict into the file of its outcome, and counts."""

    def __init__(self, questions: QuestionIndex, files: Mapping[str, BinaryIO]) -> None:
        self.questions, self.files = questions, files
        self.counts: Counter[str] = Counter()
        self.audit = Audit()

    def add(self, question: Question, trace: Trace, verdict: Mapping[str, Any], line: bytes, text: str) -> None:
        """One trace and its verdict, as values and as the lines that say them: `{"trace": <line>, <text's values>}`."""
        outcome = verdict["outcome"]
        self.files[outcome].write(b'{"trace": ' + line.rstrip() + b", " + text[1:].encode())
        self.counts[outcome] += 1
        self.questions.mark(question.id, solved=outcome == "good")
        self.audit.add(question, trace, verdict)


class Audit:
    """What the filter did: outcomes by source, language and kind, reasons, criteria, judges, planted faults."""

    def __init__(self) -> None:
        self._traces: Counter[tuple[Any, ...]] = Counter()  # by all that is counted of one
        self._planted: Counter[tuple[str | None, Outcome]] = Counter()

    def add(self, question: Question, trace: Trace, row: Mapping[str, Any]) -> None:
        """Count one trace and its verdict row."""
        values = tuple([row[column]["value"] for column in ANSWERS])
        criteria = tuple([(name, verdict["value"]) for name, verdict in row["criteria"].items()])
        of_question = (question.source, question.language, question.kind)
        self._traces[of_question, row["outcome"], row["why"], row["answer"]["judge"], values, criteria] += 1
        if "fault" in trace.meta and trace.finish_reason == "stop":
            self._planted[trace.meta["fault"], row["outcome"]] += 1

    def to_json(self) -> dict[str, Any]:
        """As kept in `audit.json`."""
        by: dict[str, dict[str, Counter[str]]] = {k: defaultdict(Counter) for k in ("source", "language", "kind")}
        reasons, judges = Counter[str](), Counter[str]()
        answers: dict[str, Counter[str]] = defaultdict(Counter)
        criteria: dict[str, Counter[str]] = {name: Counter() for name in CRITERIA}
        for (of_question, outcome, why, judge, values, verdicts), n in self._traces.items():
            for table, name in zip(by.values(), of_question, strict=True):
                table[name][outcome] += n
            reasons.update({why: n} if why else {})
            judges.update({judge: n} if judge else {})
            for column, value in zip(ANSWERS, values, strict=True):
                answers[column][_word(value, "right", "wrong")] += n
            for name, value in verdicts:
                criteria[name][_word(value, "held", "failed")] += n
        audit: dict[str, Any] = {f"by_{name}": table for name, table in by.items()}
        audit |= {"reasons": reasons, "answers": answers, "criteria": criteria, "decided_by": judges}
        return {**audit, "faults": confusion(self._planted.elements())} if self._planted else audit


def confusion(planted: Iterable[tuple[str | None, Outcome]]) -> dict[str, Any]:
    """The filter as a detector of planted faults: bad is "caught". Undecided traces are counted apart.

    Precision: of the decided traces called bad, the share with a fault. Recall: of the decided traces with a fault, the
    share called bad. None where there is nothing to divide by.
    """
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for fault, outcome in planted:
        cell = {"bad": "caught", "good": "missed", "undecided": "undecided"}[outcome]
        table[fault or ""].update(["planted", cell])
    clean = table.pop("", Counter())
    caught, missed = (sum(row[key] for row in table.values()) for key in ("caught", "missed"))
    cells = ("planted", "caught", "missed", "undecided")
    return {
        "by_fault": {fault: {cell: table[fault][cell] for cell in cells} for fault in sorted(table)},
        "clean": {
            "traces": clean["planted"],
            "kept": clean["missed"],
            "called_bad": clean["caught"],
            "undecided": clean["undecided"],
        },
        "precision": caught / (caught + clean["caught"]) if caught + clean["caught"] else None,
        "recall": caught / (caught + missed) if caught + missed else None,
        "note": FAULTS_NOTE,
    }


def _word(value: float | None, yes: str, no: str) -> str:
    return "undecided" if value is None else yes if value == 1 else no
