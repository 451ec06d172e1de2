"""The distil stage: no sample is generated twice or lost; reasoning and answer are split."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finr1.core.errors import DataError, Finr1Error
from finr1.core.jsonl import JsonlWriter, read_jsonl
from finr1.core.types import Completion, Question, Trace
from finr1.data.distil.run import Tally, messages_of, missing, run, split_text
from finr1.parts.engine.scripted import ScriptedEngine
from finr1.settings.distil import DistilSettings
from finr1.settings.prompt import PromptSettings
from finr1.settings.sampling import Sampling
from tests.helpers.runner import REPO
from tests.helpers.stages import question, stage_context, write_rows

SCRIPTED = "finr1.parts.engine.scripted.ScriptedEngine"


def _settings(chunk: int = 4, n: int = 2, stop: int = 8, **engine: Any) -> dict[str, Any]:
    return {
        "engine": {"teacher": {"_target_": SCRIPTED, **engine}},
        "distil": DistilSettings(sampling=Sampling(n=n), chunk=chunk, stop_after_failed_calls=stop),
    }


def _questions(run_dir: Path, n: int = 10) -> list[Question]:
    questions = [question(f"question {i}", str(i)) for i in range(n)]
    write_rows(run_dir / "1_questions" / "questions.jsonl", questions)
    return questions


def _traces(run_dir: Path) -> list[Trace]:
    return [Trace.from_json(row) for row in read_jsonl(run_dir / "2_traces" / "traces.jsonl")]


def test_every_question_gets_n_traces_with_provenance(tmp_path: Path) -> None:
    questions = _questions(tmp_path)
    settings = _settings(answers={questions[0].id: ["<think>a</think><answer>\\boxed{7}</answer>", "no tags"]})
    with stage_context(tmp_path, "distil", **settings) as ctx:
        counts = run(ctx)
    traces = _traces(tmp_path)
    assert counts == {"traces": 20, "failed": 0, "truncated": 0, "tokens": 0, "questions": 10}
    assert sorted((t.question_id, t.sample) for t in traces) == sorted((q.id, s) for q in questions for s in (0, 1))
    assert (traces[0].reasoning, traces[0].answer) == ("a", "\\boxed{7}")
    assert (traces[1].reasoning, traces[1].answer) == ("", "no tags")
    assert traces[2].answer == "\\boxed{1}"
    assert traces[0].prompt_hash == traces[1].prompt_hash != traces[2].prompt_hash
    assert traces[0].sampling["n"] == 2 and traces[0].teacher == "scripted"
    assert len({t.id for t in traces}) == 20


def test_the_teacher_sees_its_own_system_prompt(tmp_path: Path) -> None:
    _questions(tmp_path, 1)
    for system, roles in ((None, ["user"]), ("system_fin_r1.v1", ["system", "user"])):
        prompt = PromptSettings(teacher_system=system)
        with stage_context(tmp_path / str(system), "distil", prompt=prompt, **_settings(n=1)) as ctx:
            ctx.inputs = {"questions": tmp_path / "1_questions"}
            engine = ctx.engines.get("teacher")
            assert isinstance(engine, ScriptedEngine)
            run(ctx)
            assert [m["role"] for m in engine.asked[0].messages] == roles


def test_resume_generates_only_missing_samples(tmp_path: Path) -> None:
    questions = _questions(tmp_path)
    with stage_context(tmp_path, "distil", **_settings()) as ctx:
        run(ctx)
    path = tmp_path / "2_traces" / "traces.jsonl"
    rows = list(read_jsonl(path))
    path.unlink()
    with JsonlWriter(path) as writer:
        writer.write(*rows[:9])  # four complete questions, one sample of the fifth
    with stage_context(tmp_path, "distil", **_settings()) as ctx:
        engine = ctx.engines.get("teacher")
        assert isinstance(engine, ScriptedEngine)
        counts = run(ctx)
        asked = [request.question.id for request in engine.asked]
    assert sorted(asked) == sorted(q.id for q in questions[4:])
    assert counts["traces"] == 20
    assert list(read_jsonl(path))[:9] == rows[:9]
    assert {(t.question_id, t.sample) for t in _traces(tmp_path)} == {(q.id, s) for q in questions for s in (0, 1)}


KILLED = """
import sys
from pathlib import Path
from tests.helpers.stages import stage_context
from tests.data.distil.test_distil import _settings
from finr1.data.distil.run import run
with stage_context(Path(sys.argv[1]), "distil", **_settings(kill_after=7)) as ctx:
    run(ctx)
"""


def test_sigkill_loses_no_finished_question(tmp_path: Path) -> None:
    questions = _questions(tmp_path)
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(REPO)}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [t.question_id for t in _traces(tmp_path)] == [q.id for q in questions[:7] for _ in range(2)]
    with stage_context(tmp_path, "distil", **_settings()) as ctx:
        engine = ctx.engines.get("teacher")
        assert isinstance(engine, ScriptedEngine)
        assert run(ctx)["traces"] == 20
        assert [request.question.id for request in engine.asked] == [q.id for q in questions[7:]]


def test_failed_calls_are_rows(tmp_path: Path) -> None:
    questions = _questions(tmp_path)
    with stage_context(tmp_path, "distil", **_settings(fail_ids=[questions[3].id])) as ctx:
        counts = run(ctx)
    assert (counts["traces"], counts["failed"]) == (20, 2)
    failed = [t for t in _traces(tmp_path) if t.finish_reason == "error"]
    assert {t.question_id for t in failed} == {questions[3].id}
    assert {t.error for t in failed} == {"scripted failure"}


def test_a_dead_teacher_stops_the_stage_and_its_calls_are_repeated(tmp_path: Path) -> None:
    questions = _questions(tmp_path)
    with (
        stage_context(tmp_path, "distil", **_settings(fail_every=1)) as ctx,
        pytest.raises(Finr1Error, match="last 8 calls all failed, the first with `scripted failure`"),
    ):
        run(ctx)
    assert _traces(tmp_path) == []
    ids = [q.id for q in questions]
    with (
        stage_context(tmp_path, "distil", **_settings(chunk=2, stop=4, fail_ids=ids[2:])) as ctx,
        pytest.raises(Finr1Error, match="last 4 calls all failed"),
    ):
        run(ctx)
    assert [t.question_id for t in _traces(tmp_path)] == [ids[0]] * 2 + [ids[1]] * 2
    with stage_context(tmp_path, "distil", **_settings()) as ctx:
        counts = run(ctx)
    assert (counts["traces"], counts["failed"]) == (20, 0)


def test_stop_can_be_turned_off_but_not_for_a_run_without_any_answer(tmp_path: Path) -> None:
    ids = [q.id for q in _questions(tmp_path)]
    with stage_context(tmp_path, "distil", **_settings(chunk=1, stop=0, fail_ids=ids[1:])) as ctx:
        assert run(ctx)["failed"] == 18
    _questions(tmp_path / "b")
    with (
        stage_context(tmp_path / "b", "distil", **_settings(chunk=1, stop=0, fail_every=1)) as ctx,
        pytest.raises(Finr1Error, match="last 10 calls all failed"),
    ):
        run(ctx)


@pytest.mark.parametrize(
    ("text", "reasoning", "expected"),
    [
        ("<think>\nr\n</think>\n<answer>\n\\boxed{1}\n</answer>", None, ("r", "\\boxed{1}")),
        ("r\n</think>\n\nSo \\boxed{1}.", None, ("r", "So \\boxed{1}.")),
        ("<think>r</think>so<answer>1</answer>", None, ("r", "1")),
        ("<think>r never ends", None, ("r never ends", "")),
        ("just \\boxed{1}", None, ("", "just \\boxed{1}")),
        ("\\boxed{1}", " r ", ("r", "\\boxed{1}")),
        ("<answer>1</answer>", "r", ("r", "1")),
        ("<think>r</think>\\boxed{1}", "r", ("r", "\\boxed{1}")),  # the thinking is sent twice
        ("<answer>1</answer>", "is it <answer>2</answer>?", ("is it <answer>2</answer>?", "1")),
        ("<think>r</think><answer>1</answer><answer>2</answer>", None, ("r", "<answer>1</answer><answer>2</answer>")),
    ],
)
def test_split_text(text: str, reasoning: str | None, expected: tuple[str, str]) -> None:
    assert split_text(Completion(text, reasoning=reasoning)) == expected


def test_missing_samples() -> None:
    rows = [question("a"), question("b"), question("c")]
    have = {rows[0].id: {0, 1, 2}, rows[1].id: {1}}
    assert [(ask.question.id, ask.samples) for ask in missing(rows, have, 3)] == [
        (rows[1].id, (0, 2)),
        (rows[2].id, (0, 1, 2)),
    ]


def test_messages_are_built_once_and_the_rows_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finr1.data.distil import run as module

    questions = _questions(tmp_path)
    built: list[str] = []
    real = messages_of
    monkeypatch.setattr(module, "messages_of", lambda of, *more: built.append(of.id) or real(of, *more))
    with stage_context(tmp_path, "distil", **_settings()) as ctx:
        counts = run(ctx)
    assert built == [q.id for q in questions]
    added: list[str] = []
    real_add = Tally.add
    monkeypatch.setattr(Tally, "add", lambda self, row: (added.append(row["id"]), real_add(self, row))[1])
    with stage_context(tmp_path, "distil", **_settings()) as ctx:
        assert run(ctx) == counts
    assert len(built) == 10 and len(added) == 2 * 20, "what was there before, and while it is put in order"


def test_half_a_surrogate_pair_in_a_question_or_an_answer_ends_nothing(tmp_path: Path) -> None:
    whole = question("what is a\ud800b?")
    path = tmp_path / "1_questions" / "questions.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps(whole.to_json()) + "\n")  # with an escape
    answers = ["<think>a\udfff</think>\\boxed{\ud800}"]
    with stage_context(tmp_path, "distil", **_settings(n=1, answers=answers)) as ctx:
        assert run(ctx)["traces"] == 1
    (trace,) = _traces(tmp_path)
    assert (trace.question_id, trace.reasoning, trace.answer) == (whole.id, "a?", "\\boxed{?}")


def test_a_row_of_an_unknown_question_is_reported_in_one_line(tmp_path: Path) -> None:
    _questions(tmp_path)
    write_rows(tmp_path / "2_traces" / "traces.jsonl", [Trace("elsewhere", 0, "t", "r", "a", "x")])
    with (
        stage_context(tmp_path, "distil", **_settings()) as ctx,
        pytest.raises(DataError, match=r"traces\.jsonl: line 1 has an unknown question elsewhere; delete that line"),
    ):
        run(ctx)
