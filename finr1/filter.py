"""Stage `filter`: sort the traces into good, bad and undecided, and choose the questions for GRPO.

Fin-R1 (arXiv 2503.16252 v5, sec. 3 and App. B.3) keeps a trace when its answer is right and its reasoning holds all
seven criteria; objective questions without a kept trace go to GRPO. Here a trace that the judges leave open is neither
good nor bad, but undecided, unless what is known settles it.

Verdicts are appended to `verdicts.jsonl` as they come, so that a killed stage goes on where it was; the other files are
written whole at the end.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from finr1.answer import grade, parse, render
from finr1.audit import every_answer, is_audited
from finr1.errors import ConfigError, DataError
from finr1.judge.base import CRITERIA, AnswerJudge, JudgeItem, ReasoningJudge, cascade
from finr1.store import JsonlWriter, check_known, take_rows, write_json, write_jsonl
from finr1.types import Question, Trace, Verdict

if TYPE_CHECKING:
    from finr1.context import Context

Outcome = Literal["good", "bad", "undecided"]
OUTCOMES: tuple[Outcome, ...] = ("good", "bad", "undecided")
OBJECTIVE = ("number", "choice", "yes_no", "label")  # kinds whose answer a rule can check: what GRPO may be rewarded on

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
    chunk: int = 64  # traces handed to the judges at once
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
    from finr1.context import build_all

    cfg = ctx.cfg
    if not cfg.judge.answer:
        raise ConfigError("judge.answer", "[]", "no judge of answers", "give judge@judge.answer=[exact]")
    if cfg.filter.reasoning and not cfg.judge.reasoning:
        remedy = "give judge@judge.reasoning=[reasoning_rules], or filter.reasoning=false"
        raise ConfigError("judge.reasoning", "[]", "no judge of the reasoning", remedy)
    reasoning = build_all(cfg.judge.reasoning) if cfg.filter.reasoning else {}
    judges = Judges(build_all(cfg.judge.answer), reasoning, cfg.filter)
    questions = ctx.questions()
    traces = read_traces(ctx.inputs["distil"] / "traces.jsonl", questions)

    path = ctx.folder / "verdicts.jsonl"
    verdicts = {row["trace_id"]: row for row in take_rows(path, ("trace_id", "outcome"))} if path.exists() else {}
    todo = [trace for trace in traces if trace.id not in verdicts]
    tally = Counter(row["outcome"] for row in verdicts.values())
    with JsonlWriter(path) as writer, ctx.progress("traces", len(traces), len(traces) - len(todo)) as bar:
        for start in range(0, len(todo), cfg.filter.chunk):
            chunk = todo[start : start + cfg.filter.chunk]
            new = judges.judge([(questions[trace.question_id], trace) for trace in chunk])
            writer.write(*new)
            verdicts |= {row["trace_id"]: row for row in new}
            tally.update(row["outcome"] for row in new)
            bar.advance(len(chunk), f"{tally['good']} good, {tally['bad']} bad, {tally['undecided']} undecided")

    counts = _write(ctx, questions, traces, verdicts)
    ctx.tracker.log("filter", {"good": counts["good"] / len(traces)}, step=0)
    for outcome, meaning in (("good", "SFT has no row"), ("rl_questions", "GRPO has no question")):
        if not counts[outcome]:
            ctx.note(f"no {outcome} of {len(traces)} traces: {meaning}")
    return counts


def read_traces(path: Any, questions: Mapping[str, Question]) -> list[Trace]:
    """All traces; DataError when there are none, when one is there twice, or when its question is unknown."""
    traces = [Trace.from_json(row) for row in take_rows(path, ["id", *Trace.needed()])]
    if not traces:
        raise DataError(path, "no trace", "run stage=distil again")
    repeated = [trace_id for trace_id, n in Counter(trace.id for trace in traces).items() if n > 1]
    if repeated:
        raise DataError(path, f"trace {repeated[0]} is there more than once", "delete the repeated lines")
    check_known(path, (trace.question_id for trace in traces), questions)
    return traces


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
        answers = dict(zip(fit, cascade(self.answer, [items[i] for i in fit]), strict=True))
        right = [i for i in fit if self.settings.reasoning and answers[i][0].value == 1]
        criteria = dict(zip(right, self._criteria([items[i] for i in right]), strict=True))
        rows = []
        for i, (question, trace) in enumerate(pairs):
            verdict, judge = answers.get(i, (Verdict(None, why="not judged"), ""))
            of_reasoning = criteria.get(i, {})
            outcome, why = ("bad", unfit[i]) if unfit[i] else self.outcome(verdict, of_reasoning)
            strict, scaled = self._grades(question, trace, bool(unfit[i]))
            rows.append(
                {
                    "trace_id": trace.id,
                    "question_id": question.id,
                    "outcome": outcome,
                    "why": why,
                    "answer": {**verdict._asdict(), "judge": judge},
                    "answer_strict": strict._asdict(),
                    "answer_scaled": scaled._asdict(),
                    "criteria": {
                        name: {"value": v.value, "why": v.why, "judge": by} for name, (v, by) in of_reasoning.items()
                    },
                }
            )
        share, seed = self.settings.audit_share, self.settings.audit_seed
        audited = [i for i in fit if is_audited(pairs[i][1].id, share, seed)]
        every = every_answer(self.answer, [items[i] for i in audited], [answers[i] for i in audited])
        for i, verdicts in zip(audited, every, strict=True):
            rows[i]["answers"] = {name: verdict._asdict() for name, verdict in verdicts.items()}
        return rows

    def outcome(self, answer: Verdict, criteria: Mapping[str, tuple[Verdict, str]]) -> tuple[Outcome, str]:
        """Good, bad or undecided, and the reason in a few words (a key of the audit)."""
        if answer.value is None:
            return "undecided", "answer undecided"
        if answer.value != 1:
            return "bad", "answer wrong"
        if not self.settings.reasoning:
            return "good", ""
        held = sum(verdict.value == 1 for verdict, _ in criteria.values())
        open_ = sum(verdict.value is None for verdict, _ in criteria.values())
        if held >= self.settings.criteria_needed:
            return "good", ""
        if held + open_ < self.settings.criteria_needed:
            return "bad", "reasoning fails"
        return "undecided", "reasoning undecided"

    def _criteria(self, items: Sequence[JudgeItem]) -> list[dict[str, tuple[Verdict, str]]]:
        """Each item's seven verdicts with the judge that gave them; a later judge sees items with a criterion open."""
        nobody = (Verdict(None, why="no judge decided"), "")
        found: list[dict[str, tuple[Verdict, str]]] = [dict.fromkeys(CRITERIA, nobody) for _ in items]
        for name, judge in self.reasoning.items():
            todo = [i for i, row in enumerate(found) if any(verdict.value is None for verdict, _ in row.values())]
            if not todo:
                break
            for i, verdicts in zip(todo, judge.judge([items[i] for i in todo]), strict=True):
                for criterion in CRITERIA:
                    verdict = verdicts.get(criterion, nobody[0])
                    if found[i][criterion][0].value is None:
                        found[i][criterion] = (verdict, name if verdict.value is not None else "")
        return found

    @staticmethod
    def _grades(question: Question, trace: Trace, unfit: bool) -> tuple[Verdict, Verdict]:
        """The rule's strict and scale-tolerant verdict, whoever decided: shown side by side in every report."""
        if unfit or question.gold is None:
            none = Verdict(None, why="no gold" if question.gold is None else "not judged")
            return none, none
        both = grade(trace.answer, question)
        return both.strict, both.scaled


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
    return "" if parse(render(trace.reasoning, trace.answer)).well_formed else "tags inside the text"


def _write(
    ctx: Context, questions: Mapping[str, Question], traces: Sequence[Trace], verdicts: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """The row files and the audit, from the verdicts; returns the counts."""
    rows: dict[str, list[dict[str, Any]]] = {outcome: [] for outcome in OUTCOMES}
    for trace in traces:
        verdict = verdicts[trace.id]
        rows[verdict["outcome"]].append({"trace": trace.to_json(), **verdict})
    for outcome in OUTCOMES:
        write_jsonl(ctx.folder / f"{outcome}.jsonl", rows[outcome])
    counts: dict[str, Any] = {outcome: len(rows[outcome]) for outcome in OUTCOMES}
    assert sum(counts.values()) == len(traces), f"{counts} of {len(traces)} traces: one was lost"

    solved = {row["question_id"] for row in rows["good"]}
    asked = {trace.question_id for trace in traces}
    rl = [q for q in questions.values() if q.id in asked - solved and q.kind in OBJECTIVE and q.gold is not None]
    rl.sort(key=lambda question: question.id)  # a hash: the first n of them are no one label and no one source
    write_jsonl(ctx.folder / "rl.jsonl", ({"question_id": question.id} for question in rl))

    audit = make_audit(questions, [(trace, verdicts[trace.id]) for trace in traces])
    write_json(ctx.folder / "audit.json", audit)
    counts |= {"traces": len(traces), "questions_with_good": len(solved), "rl_questions": len(rl)}
    if faults := audit.get("faults"):
        counts |= {"fault_precision": faults["precision"], "fault_recall": faults["recall"]}
    return counts


def make_audit(questions: Mapping[str, Question], judged: Sequence[tuple[Trace, Mapping[str, Any]]]) -> dict[str, Any]:
    """What the filter did: outcomes by source, language and kind, reasons, criteria, judges, planted faults."""
    by: dict[str, dict[str, Counter[str]]] = {key: defaultdict(Counter) for key in ("source", "language", "kind")}
    criteria: dict[str, Counter[str]] = {name: Counter() for name in CRITERIA}
    reasons: Counter[str] = Counter()
    judges: Counter[str] = Counter()
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for trace, row in judged:
        for key, table in by.items():
            table[getattr(questions[trace.question_id], key)][row["outcome"]] += 1
        if row["why"]:
            reasons[row["why"]] += 1
        if row["answer"]["judge"]:
            judges[row["answer"]["judge"]] += 1
        for column in ("answer", "answer_strict", "answer_scaled"):
            answers[column][_word(row[column]["value"], "right", "wrong")] += 1
        for name, verdict in row["criteria"].items():
            criteria[name][_word(verdict["value"], "held", "failed")] += 1
    audit: dict[str, Any] = {f"by_{key}": table for key, table in by.items()}
    audit |= {"reasons": reasons, "answers": answers, "criteria": criteria, "decided_by": judges}
    planted = [
        (trace.meta["fault"], row["outcome"]) for trace, row in judged if "fault" in trace.meta and _finished(trace)
    ]
    return {**audit, "faults": confusion(planted)} if planted else audit


def confusion(planted: Sequence[tuple[str | None, Outcome]]) -> dict[str, Any]:
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


def _finished(trace: Trace) -> bool:
    return trace.finish_reason == "stop"


def _word(value: float | None, yes: str, no: str) -> str:
    return "undecided" if value is None else yes if value == 1 else no
