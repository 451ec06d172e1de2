"""The filter stage: the rule that makes an outcome, books that balance, the confusion of planted faults."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finr1.core.errors import ConfigError, DataError
from finr1.core.files import read_json
from finr1.core.jsonl import JsonlWriter, read_jsonl
from finr1.core.types import CRITERIA, Question, Trace, Verdict
from finr1.data.filter.run import run
from finr1.data.filter.summary import confusion
from finr1.data.filter.verdicts import Judges, unusable
from finr1.parts.judge.base import JudgeItem
from finr1.parts.judge.exact import Exact
from finr1.settings.filter import FilterSettings
from finr1.settings.root import JudgeSettings
from tests.helpers.stages import question, stage_context, write_rows

EXACT = {"exact": {"_target_": "finr1.parts.judge.exact.Exact"}}
WORD_JUDGE = {"words": {"_target_": "tests.data.filter.test_filter.WordJudge"}}


class WordJudge:
    """A reasoning judge for these tests: a criterion fails where the reasoning says `no <criterion>`, and stays open at `? <criterion>`."""  # noqa: E501

    name = "words"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def judge(self, items: Sequence[JudgeItem]) -> list[dict[str, Verdict]]:
        self.seen += [item.reasoning for item in items]
        values = {True: 0.0, False: 1.0}
        return [
            {c: Verdict(None if f"? {c}" in i.reasoning else values[f"no {c}" in i.reasoning]) for c in CRITERIA}
            for i in items
        ]


def _trace(of: Question, answer: str, reasoning: str = "sound", sample: int = 0, **more: Any) -> Trace:
    return Trace(of.id, sample, "t", reasoning, answer, f"{reasoning} {answer}", **more)


def _run(run_dir: Path, questions: list[Question], traces: list[Trace], settings: FilterSettings) -> dict[str, Any]:
    for folder, name, rows in (("1_questions", "questions", questions), ("2_traces", "traces", traces)):
        (run_dir / folder / f"{name}.jsonl").unlink(missing_ok=True)
        write_rows(run_dir / folder / f"{name}.jsonl", rows)
    with stage_context(run_dir, "filter", judge=JudgeSettings(EXACT, WORD_JUDGE), filter=settings) as ctx:
        return run(ctx)


def _rows(run_dir: Path, name: str) -> list[dict[str, Any]]:
    return list(read_jsonl(run_dir / "3_filtered" / f"{name}.jsonl"))


@pytest.fixture
def questions() -> list[Question]:
    return [question(f"q{i}", "25%", meta={"unit": "%"}) for i in range(4)]


def test_outcomes_books_and_rl_questions(tmp_path: Path, questions: list[Question]) -> None:
    text = question("describe", "a long text", kind="text")
    hidden = question("hidden", None)
    traces = [
        _trace(questions[0], "\\boxed{25%}"),  # good
        _trace(questions[0], "\\boxed{26%}", sample=1),  # wrong
        _trace(questions[1], "\\boxed{25}", "no diversity"),  # right by figure, reasoning fails
        _trace(questions[1], "\\boxed{2500}", sample=1),  # right by scale alone
        _trace(questions[2], "", finish_reason="length"),
        _trace(questions[2], "", sample=1, finish_reason="error", error="down"),
        _trace(questions[3], "\\boxed{25%}", "? step_count"),  # a criterion stays open
        _trace(text, "other words"),  # no rule reads it
        _trace(hidden, "\\boxed{5}"),  # no gold
    ]
    counts = _run(tmp_path, [*questions, text, hidden], traces, FilterSettings())
    assert counts == {"good": 2, "bad": 4, "undecided": 3, "traces": 9, "questions_with_good": 2, "rl_questions": 2}
    good, bad, undecided = (_rows(tmp_path, name) for name in ("good", "bad", "undecided"))
    assert {row["trace"]["id"] for row in good + bad + undecided} == {t.id for t in traces}
    assert [row["why"] for row in bad] == ["answer wrong", "reasoning fails", "truncated", "call failed"]
    assert [row["why"] for row in undecided] == ["reasoning undecided", "answer undecided", "answer undecided"]
    scale_only = next(row for row in good if row["question_id"] == questions[1].id)
    assert (scale_only["answer_strict"]["value"], scale_only["answer_scaled"]["value"]) == (0.0, 1.0)
    assert good[0]["answer"] == {"value": 1.0, "answer": "25%", "why": good[0]["answer"]["why"], "judge": "exact"}
    assert bad[1]["criteria"]["diversity"]["value"] == 0.0 and bad[1]["criteria"]["term_overlap"]["value"] == 1.0
    # questions 2 (all calls lost) and 3 (undecided) have no good trace; text has no rule, hidden no gold
    assert [row["question_id"] for row in _rows(tmp_path, "rl")] == sorted([questions[2].id, questions[3].id])
    audit = read_json(tmp_path / "3_filtered" / "filter_summary.json")
    assert audit["by_source"] == {"made": {"good": 2, "bad": 4, "undecided": 3}}
    assert audit["criteria"]["diversity"] == {"failed": 1, "held": 3}
    assert audit["criteria"]["step_count"] == {"undecided": 1, "held": 3}
    assert "faults" not in audit


def test_answers_alone_decide_where_reasoning_is_off(tmp_path: Path, questions: list[Question]) -> None:
    traces = [_trace(q, "\\boxed{25%}", "no diversity") for q in questions]
    assert _run(tmp_path, questions, traces, FilterSettings(reasoning=False))["good"] == 4
    assert _rows(tmp_path, "good")[0]["criteria"] == {}


@pytest.mark.parametrize(
    ("failed", "open_", "needed", "outcome"),
    [
        (0, 0, 7, "good"),
        (1, 0, 7, "bad"),
        (0, 1, 7, "undecided"),
        (1, 6, 7, "bad"),  # one has failed: the open ones cannot save it
        (2, 0, 5, "good"),
        (1, 1, 5, "good"),  # five hold already
        (1, 2, 5, "undecided"),
        (3, 0, 5, "bad"),
    ],
)
def test_open_criteria_leave_it_undecided_only_while_they_could_turn_it(
    failed: int, open_: int, needed: int, outcome: str
) -> None:
    values = [0.0] * failed + [None] * open_ + [1.0] * (7 - failed - open_)
    criteria = {name: (Verdict(value), "j") for name, value in zip(CRITERIA, values, strict=True)}
    judges = Judges({}, {}, FilterSettings(criteria_needed=needed))
    assert judges.outcome(Verdict(1.0), criteria)[0] == outcome
    assert judges.outcome(Verdict(0.0), criteria)[0] == "bad"
    assert judges.outcome(Verdict(None), criteria)[0] == "undecided"


@pytest.mark.parametrize(("reading", "outcome"), [("strict", "undecided"), ("content", "good")])
def test_a_content_reading_takes_what_the_answer_part_states(reading: str, outcome: str) -> None:
    asked = question("margin?", "12.5%")
    answer = "The margin was **12.5%**\nin a year with a revenue of 480 and an income of 60."
    trace = Trace(asked.id, 0, "t", "60 / 480", answer, answer)
    settings = FilterSettings(reading=reading, reasoning=False)
    assert Judges({"exact": Exact()}, {}, settings).judge([(asked, trace)])[0]["outcome"] == outcome


def test_reasoning_judges_see_right_answers_only_and_the_second_decides_what_the_first_left_open() -> None:
    first, second = WordJudge(), WordJudge()
    of = question("q", "5")
    items = [(of, _trace(of, "5", "? diversity")), (of, _trace(of, "6", "x", 1)), (of, _trace(of, "5", "fine", 2))]
    second.judge = lambda items: [{c: Verdict(0.0) for c in CRITERIA} for _ in items]  # type: ignore[method-assign]
    rows = Judges({"exact": Exact()}, {"first": first, "second": second}, FilterSettings()).judge(items)
    assert first.seen == ["? diversity", "fine"]
    assert [row["outcome"] for row in rows] == ["bad", "bad", "good"]
    assert rows[0]["criteria"]["diversity"] == {"value": 0.0, "why": "", "judge": "second"}
    assert rows[0]["criteria"]["step_count"]["judge"] == "first"


def test_a_trace_that_could_not_be_written_as_a_training_row_is_bad() -> None:
    of = question("q", "5")
    fine = _trace(of, "\\boxed{5}")
    assert unusable(fine) == ""
    assert unusable(replace(fine, reasoning="a </think> b")) == "tags inside the text"
    assert unusable(replace(fine, answer="<answer>5</answer>")) == "tags inside the text"
    assert unusable(replace(fine, reasoning="")) == "no reasoning"
    assert unusable(replace(fine, answer="")) == "no answer"


def test_resume_judges_only_what_is_missing(tmp_path: Path, questions: list[Question]) -> None:
    traces = [_trace(q, "\\boxed{25%}", f"r{i}") for i, q in enumerate(questions)]
    folder = tmp_path / "3_filtered"
    _run(tmp_path, questions, traces, FilterSettings(chunk=1))
    whole = {path.name: path.read_text() for path in folder.iterdir()}
    verdicts = _rows(tmp_path, "verdicts")
    for path in folder.iterdir():
        path.unlink()
    tampered = {**verdicts[0], "outcome": "bad", "why": "kept from before"}
    with JsonlWriter(folder / "verdicts.jsonl") as writer:
        writer.write(tampered)
    with (folder / "verdicts.jsonl").open("a") as file:
        file.write('{"trace_id": "torn')
    assert _run(tmp_path, questions, traces, FilterSettings(chunk=1))["good"] == 3
    assert [row["why"] for row in _rows(tmp_path, "bad")] == ["kept from before"]
    for path in folder.iterdir():
        path.unlink()
    _run(tmp_path, questions, traces, FilterSettings(chunk=3))
    assert {path.name: path.read_text() for path in folder.iterdir()} == whole


def test_confusion_by_hand() -> None:
    planted: list[tuple[str | None, Any]] = [
        ("slipped_number", "bad"),
        ("slipped_number", "bad"),
        ("slipped_number", "good"),
        ("wrong_answer", "bad"),
        ("wrong_answer", "undecided"),
        (None, "good"),
        (None, "bad"),
        (None, "undecided"),
    ]
    table = confusion(planted)
    assert table["by_fault"]["slipped_number"] == {"planted": 3, "caught": 2, "missed": 1, "undecided": 0}
    assert table["by_fault"]["wrong_answer"] == {"planted": 2, "caught": 1, "missed": 0, "undecided": 1}
    assert table["clean"] == {"traces": 3, "kept": 1, "called_bad": 1, "undecided": 1}
    assert table["precision"] == pytest.approx(3 / 4)  # caught 3, called bad without a fault 1
    assert table["recall"] == pytest.approx(3 / 4)  # caught 3, missed 1; the undecided one is apart
    assert "planted" in table["note"]
    assert confusion([(None, "good")])["precision"] is None


def test_planted_faults_reach_audit_and_counts(tmp_path: Path, questions: list[Question]) -> None:
    faults = (None, "wrong_answer", "repeated_step", None)
    answers = ("25%", "26%", "25%", "25%")
    traces = [
        _trace(q, f"\\boxed{{{answer}}}", meta={"fault": fault})
        for q, fault, answer in zip(questions, faults, answers, strict=True)
    ]
    traces.append(_trace(questions[0], "", sample=1, finish_reason="length", meta={"fault": "wrong_answer"}))
    counts = _run(tmp_path, questions, traces, FilterSettings())
    audit = read_json(tmp_path / "3_filtered" / "filter_summary.json")
    assert audit["faults"]["by_fault"]["wrong_answer"]["planted"] == 1  # the truncated trace says nothing of the filter
    assert (counts["fault_precision"], counts["fault_recall"]) == (1.0, 0.5)


def test_errors_are_one_line(tmp_path: Path, questions: list[Question]) -> None:
    with stage_context(tmp_path / "a", "filter") as ctx, pytest.raises(ConfigError, match=r"judge.answer=\[\]"):
        run(ctx)
    judge = JudgeSettings(answer=EXACT)
    with (
        stage_context(tmp_path / "b", "filter", judge=judge) as ctx,
        pytest.raises(ConfigError, match=r"filter\.reasoning"),
    ):
        run(ctx)
    with pytest.raises(DataError, match="line 1 has an unknown question"):
        _run(tmp_path / "c", questions[:1], [_trace(questions[1], "5")], FilterSettings())
    with pytest.raises(DataError, match="more than once"):
        _run(tmp_path / "d", questions, [_trace(questions[1], "5")] * 2, FilterSettings())
    with pytest.raises(ConfigError, match=r"filter\.criteria_needed=8"):
        FilterSettings(criteria_needed=8)


def test_verdict_rows_are_json_and_hold_no_text_of_the_trace(tmp_path: Path, questions: list[Question]) -> None:
    _run(tmp_path, questions, [_trace(questions[0], "\\boxed{25%}", "a secret phrase")], FilterSettings())
    rows = _rows(tmp_path, "verdicts")
    assert "a secret phrase" not in json.dumps(rows)
    assert len(rows[0]["criteria"]) == 7


def test_a_verdict_that_belongs_to_no_trace_is_one_line(tmp_path: Path, questions: list[Question]) -> None:
    traces = [_trace(q, "\\boxed{25%}") for q in questions]
    _run(tmp_path, questions, traces, FilterSettings())
    with pytest.raises(DataError, match=r"is out of step with .*; delete .*3_filtered and run stage=filter"):
        _run(tmp_path, questions, traces[::-1], FilterSettings())


def test_traces_without_their_defaults_and_with_more_are_kept_whole(tmp_path: Path, questions: list[Question]) -> None:
    """A file that was written by hand: fewer fields than ours, or others besides."""
    short = {"question_id": questions[0].id, "sample": 0, "teacher": "t", "reasoning": "sound", "answer": "25%"}
    short |= {"text": "", "id": "by hand"}
    rows = [short, {**_trace(questions[1], "26%").to_json(), "more": "x"}]
    write_rows(tmp_path / "1_questions" / "questions.jsonl", questions)
    with JsonlWriter(tmp_path / "2_traces" / "traces.jsonl") as writer:
        writer.write(*rows)
    with stage_context(tmp_path, "filter", judge=JudgeSettings(EXACT, WORD_JUDGE)) as ctx:
        assert run(ctx)["traces"] == 2
    (good,), (bad,) = _rows(tmp_path, "good"), _rows(tmp_path, "bad")
    assert good["trace"] == Trace.from_json(short).to_json() and good["trace_id"] == "by hand"
    assert bad["trace"] == _trace(questions[1], "26%").to_json()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_traces(tmp_path: Path) -> None:
    """Eight bytes a trace are held to see that none is there twice; a trace is some 1,000 bytes here."""
    peaks = []
    for n in (2000, 6000):  # from some 2,000 on Python's own collector keeps up
        made = [question(f"q{i}", "25") for i in range(20)]
        traces = [_trace(made[i * 20 // n], "\\boxed{25}", "word " * 100, sample=i) for i in range(n)]
        folder = tmp_path / str(n)
        write_rows(folder / "1_questions" / "questions.jsonl", made)
        write_rows(folder / "2_traces" / "traces.jsonl", traces)
        settings = {"judge": JudgeSettings(EXACT), "filter": FilterSettings(reasoning=False, chunk=50)}
        with stage_context(folder, "filter", **settings) as ctx:
            tracemalloc.start()
            assert run(ctx)["good"] == n
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] - peaks[0] < 4000 * 50  # the files grow by some 10 MB
