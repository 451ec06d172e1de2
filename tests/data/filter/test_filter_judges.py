"""The filter stage with judges that ask a model over HTTP: nothing is asked twice, a kill changes nothing."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from finr1.core.errors import ConfigError, Finr1Error
from finr1.core.files import read_json
from finr1.core.jsonl import read_jsonl
from finr1.core.types import Question, Trace
from finr1.data.filter.run import run
from finr1.parts.engine.cached import prompt_hash
from finr1.settings.filter import FilterSettings
from finr1.settings.root import JudgeSettings, PathsSettings
from tests.helpers import runner
from tests.helpers.fault_server import WIRE_FAULTS, Reply, Seen, Server, chat, each, serve
from tests.helpers.stages import question, stage_context, write_rows

HTTP = "finr1.parts.engine.http.engine.HttpEngine"
EXACT = {"_target_": "finr1.parts.judge.exact.Exact"}
ANSWER_LLM = {"_target_": "finr1.parts.judge.answer_llm.AnswerLlm"}
CASCADE = {"exact": EXACT, "answer_llm": ANSWER_LLM}


def traces_of(run_dir: Path, n: int, questions: list[Question] | None = None) -> list[Trace]:
    """Two traces each of `n` questions; the gold of every second one is words, which no rule reads."""
    made = questions or [
        question(f"question {i}", f"gold {i}", kind="text") if i % 2 else question(f"question {i}", "25")
        for i in range(n)
    ]
    traces = [
        Trace(q.id, s, "t", f"sound {s}", f"\\boxed{{{'25' if q.kind == 'number' else f'words {q.text} {s}'}}}", "")
        for q in made
        for s in (0, 1)
    ]
    write_rows(run_dir / "1_questions" / "questions.jsonl", made)
    write_rows(run_dir / "2_traces" / "traces.jsonl", traces)
    return traces


def settings(server: Server, cache: Path | None, judges: dict[str, Any] | None = None, **engine: Any) -> dict[str, Any]:
    node = {"_target_": HTTP, "model": "m", "base_url": server.url, "backoff_s": 0.01, "retries": 0, **engine}
    return {
        "engine": {"judge": node},
        "judge": JudgeSettings(answer=judges or CASCADE, stop_after_failed_calls=5),
        "paths": PathsSettings(judge_cache=str(cache) if cache else None),
        "filter": FilterSettings(reasoning=False, chunk=8),
    }


def filtered(run_dir: Path, values: dict[str, Any], **more: Any) -> dict[str, Any]:
    values["filter"] = FilterSettings(**{**vars(values["filter"]), **more})
    with stage_context(run_dir, "filter", **values) as ctx:
        return run(ctx)


def by_words(seen: Seen) -> Reply:
    """1, 0 or nonsense by the answer alone, after a moment."""
    size = sum(map(ord, seen.body["messages"][0]["content"])) % 7
    return Reply(body=chat("so so" if size == 0 else f"\\boxed{{{size % 2}}}"), delay_s=random.random() / 50)


def test_the_model_decides_what_rules_leave_open_and_is_not_asked_again(tmp_path: Path) -> None:
    traces_of(tmp_path / "a", 10)
    with serve(each(Reply(body=chat("\\boxed{1}", usage=(30, 4))))) as server:
        values = settings(server, tmp_path / "cache.sqlite")
        counts = filtered(tmp_path / "a", values)
        assert (counts["good"], counts["traces"], len(server.seen)) == (20, 20, 10)
        assert (counts["judge_asked"], counts["paid_prompt_tokens"], counts["paid_completion_tokens"]) == (10, 300, 40)
        rows = list(read_jsonl(tmp_path / "a" / "3_filtered" / "verdicts.jsonl"))
        assert Counter(row["answer"]["judge"] for row in rows) == {"exact": 10, "answer_llm": 10}
        assert read_json(tmp_path / "a" / "3_filtered" / "filter_summary.json")["decided_by"]["answer_llm"] == 10

        traces_of(tmp_path / "b", 10)  # another run, another rule: the model has said what it says of these
        values = settings(server, tmp_path / "cache.sqlite", {"answer_llm": ANSWER_LLM})
        assert filtered(tmp_path / "b", values, criteria_needed=5)["judge_asked"] == 1  # "25" against "25": new
        assert len(server.seen) == 11


def test_an_audited_share_is_judged_by_all(tmp_path: Path) -> None:
    traces_of(tmp_path, 400)
    with serve(each(Reply(body=chat("\\boxed{0}")))) as server:
        filtered(tmp_path, settings(server, None, concurrency=8), audit_share=0.25, chunk=200)
    rows = [row for row in read_jsonl(tmp_path / "3_filtered" / "verdicts.jsonl") if row["answer"]["judge"] == "exact"]
    both = [row["answers"] for row in rows if "answers" in row]
    assert len(rows) == 400 and 70 <= len(both) <= 130  # 100, with a standard deviation of 8.7
    assert all((said["exact"]["value"], said["answer_llm"]["value"]) == (1.0, 0.0) for said in both)
    assert {row["outcome"] for row in rows} == {"good"}, "the audit changed what the cascade decides"


def test_what_the_model_cannot_say_is_undecided(tmp_path: Path) -> None:
    traces_of(tmp_path, 4)
    replies = each(Reply(body=chat("hard to say")))
    with serve(replies) as server:
        counts = filtered(tmp_path, settings(server, None))
        assert (counts["good"], counts["bad"], counts["undecided"]) == (4, 0, 4) and len(server.seen) == 4 * 3
    row = next(read_jsonl(tmp_path / "3_filtered" / "undecided.jsonl"))
    assert row["answer"] == {
        "value": None, "answer": "words question 1 0", "why": "no score in the judge's reply (3 replies)", "judge": ""
    }  # fmt: skip


def test_a_judge_that_is_gone_stops_the_stage_and_what_it_said_is_not_asked_again(tmp_path: Path) -> None:
    traces_of(tmp_path, 60)
    cache = tmp_path / "cache.sqlite"

    def dies(seen: Seen) -> Reply:
        return Reply(503, b"gone") if seen.number >= 20 else Reply(body=chat("\\boxed{1}"))

    with serve(dies) as server, pytest.raises(Finr1Error, match=r"engine.judge=m: the last 5 calls all failed, .*gone"):
        filtered(tmp_path, settings(server, cache, concurrency=2))
    with serve(each(Reply(body=chat("\\boxed{1}")))) as server:
        assert filtered(tmp_path, settings(server, cache))["good"] == 120
        assert len(server.seen) == 60 - 20


def test_a_ceiling_holds_over_all_attempts(tmp_path: Path) -> None:
    traces_of(tmp_path, 60)
    cache = tmp_path / "cache.sqlite"
    with serve(each(Reply(body=chat("\\boxed{1}", usage=(500, 100))))) as server:
        for ceiling in (12_000, 24_000):  # a call costs 600 tokens, and may cost some 1,700
            with pytest.raises(ConfigError, match=f"engine.max_spend_tokens={ceiling}: .* completions so far are kept"):
                filtered(tmp_path, settings(server, cache, max_spend_tokens=ceiling))
            assert ceiling - 2400 < 600 * len(server.seen) <= ceiling
        counts = filtered(tmp_path, settings(server, cache, max_spend_tokens=100_000))
    assert len(server.seen) == 60 and counts["paid_prompt_tokens"] + counts["paid_completion_tokens"] == 36_000


def test_no_secret_and_no_text_of_the_prompt_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    traces_of(tmp_path, 4)
    with serve(each(Reply(body=chat("\\boxed{1}")))) as server:
        filtered(tmp_path, settings(server, tmp_path / "cache.sqlite", api_key_env="JUDGE_KEY"))
        assert server.seen[0].headers["authorization"] == "Bearer sk-very-secret"
    content = b"".join(path.read_bytes() for path in tmp_path.glob("cache.sqlite*"))
    assert b"SQLite format 3" in content and b"boxed" in content
    for word in (b"sk-very-secret", b"JUDGE_KEY", b"127.0.0.1", b"Correct Answer", b"words question"):
        assert word not in content


def overrides(server: Server, name: str, cache: Path) -> list[str]:
    return [
        f"name={name}",
        f"paths.judge_cache={cache}",
        "source.worked.n_train=60",
        "source.worked.n_test=2",
        "benchmark.worked.limit=2",
        "distil.sampling.n=3",
        "judge@judge.answer=[exact,answer_llm]",
        "judge@judge.reasoning=[reasoning_llm]",
        "judge.reasoning.reasoning_llm.form=single",
        "engine@engine.judge=http",
        "engine.judge.model=m",
        f"engine.judge.base_url={server.url}",
        "engine.judge.concurrency=6",
        "engine.judge.backoff_s=0.01",
        "engine.judge.retries=14",
        "engine.judge.timeout_s=1",
        "filter.chunk=40",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("faults", "kills"), [(False, 8), (True, 20)])
def test_sigkill_at_random_points_changes_no_verdict_and_asks_nothing_twice(
    tmp_path: Path, faults: bool, kills: int
) -> None:
    """From before the first request to after the last answer; with faults, three requests of ten fail."""
    rng = random.Random(faults)

    def behave(seen: Seen) -> Reply:
        if faults and random.random() < 0.3:
            return random.choice(WIRE_FAULTS)
        reply = by_words(seen)
        return Reply(body=reply.body, delay_s=0.03 + reply.delay_s)

    with serve(behave) as server:
        for name in ("whole", "killed"):
            for stage in ("questions", "distil"):
                done = runner.run(tmp_path, f"stage={stage}", *overrides(server, name, tmp_path / "c"))
                assert done.returncode == 0, done.stderr
        words = ["stage=filter", *overrides(server, "whole", tmp_path / "whole.sqlite")]
        done = runner.run(tmp_path, *words)
        assert done.returncode == 0, done.stderr
        cache = tmp_path / "killed.sqlite"
        command = runner.command("stage=filter", *overrides(server, "killed", cache))
        answered = len(server.answered)
        kept: list[tuple[set[str], int]] = []  # what the cache held after each kill, and how many requests had come
        for _ in range(kills):
            asked, goal = len(server.seen), rng.randint(0, 160 // kills)
            process = subprocess.Popen(command, cwd=tmp_path, env=runner.environment(), stderr=subprocess.DEVNULL)
            while process.poll() is None and len(server.seen) < asked + goal:
                time.sleep(0.002)
            time.sleep(rng.random() / 20)
            process.kill()
            assert process.wait(300) in (-signal.SIGKILL, 0)
            time.sleep(0.15)  # what it had sent still arrives
            kept.append((prompts_in(cache), len(server.seen)))
        done = runner.run(tmp_path, *command[3:])
        assert done.returncode == 0, done.stderr
    assert any(0 < len(prompts) < len(prompts_in(cache)) for prompts, _ in kept)
    for prompts, count in kept:
        again = [seen for seen in server.seen[count:] if prompt_hash(seen.body["messages"]) in prompts]
        assert not again
    assert len(server.answered) - answered >= len(prompts_in(cache))
    for name in ("verdicts", "good", "bad", "undecided", "rl"):
        paths = [tmp_path / "runs" / run_name / "3_filtered" / f"{name}.jsonl" for run_name in ("whole", "killed")]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def prompts_in(cache: Path) -> set[str]:
    """The hashes of the prompts that a cache has answers to."""
    if not cache.exists():
        return set()
    with sqlite3.connect(cache) as db:
        try:
            return {prompt for (prompt,) in db.execute("SELECT prompt FROM answers")}
        except sqlite3.OperationalError:  # killed before the table was there
            return set()
