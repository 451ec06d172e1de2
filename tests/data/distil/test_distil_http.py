"""The distil stage with engine=http: kills, spend ceilings, concurrent runs; no trace is lost or paid for twice."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from finr1.cli.compose import compose, plain
from finr1.core.errors import ConfigError, Finr1Error
from finr1.core.jsonl import JsonlWriter, read_jsonl
from finr1.core.types import Question
from finr1.data.distil.run import messages_of, run
from finr1.run import progress
from finr1.run.fingerprints import deciding
from finr1.run.progress import Bar, console
from finr1.settings.distil import DistilSettings
from finr1.settings.sampling import Sampling
from tests.helpers import runner
from tests.helpers.fault_server import WIRE_FAULTS, Behave, Reply, Seen, Server, chat, each, good, serve, solved
from tests.helpers.stages import question, stage_context, write_rows

HTTP = "finr1.parts.engine.http.engine.HttpEngine"
TRACES = Path("2_traces") / "traces.jsonl"


def settings(server: Server, n: int = 1, chunk: int = 4, **engine: Any) -> dict[str, Any]:
    node = {"_target_": HTTP, "model": "m", "base_url": server.url, "backoff_s": 0.01, "concurrency": 8, **engine}
    sampling = Sampling(n=n, temperature=0.6, max_new_tokens=64)
    return {
        "engine": {"teacher": node},
        "distil": DistilSettings(sampling=sampling, chunk=chunk, stop_after_failed_calls=8),
    }


def questions(run_dir: Path, n: int) -> list[Question]:
    made = [question(f"question {i}", str(i)) for i in range(n)]
    write_rows(run_dir / "1_questions" / "questions.jsonl", made)
    return made


def rows(run_dir: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(run_dir / TRACES))


def distil(run_dir: Path, values: dict[str, Any]) -> dict[str, Any]:
    with stage_context(run_dir, "distil", **values) as ctx:
        return run(ctx)


def slow_for_some(seen: Seen) -> Reply:
    """Answers that arrive in another order than the requests."""
    return Reply(body=solved(seen), delay_s=random.random() / 50)


def test_rows_are_in_the_order_of_the_questions_whatever_came_first(tmp_path: Path) -> None:
    made = questions(tmp_path, 60)
    with serve(slow_for_some) as server:
        counts = distil(tmp_path, settings(server, n=2))
    found = rows(tmp_path)
    assert [(r["question_id"], r["sample"]) for r in found] == [(q.id, s) for q in made for s in (0, 1)]
    assert len(server.seen) == 60 and {seen.body["n"] for seen in server.seen} == {2}
    assert max(seen.in_flight for seen in server.seen) == 8, "chunks of 4 do not hold a streaming engine back"
    paid = sum(len(seen.text) for seen in server.seen)
    assert counts == {
        "traces": 120, "failed": 0, "truncated": 0, "tokens": 4800, "questions": 60,
        "paid_prompt_tokens": paid, "paid_completion_tokens": 4800,
    }  # fmt: skip
    assert found[0]["teacher"] == "m" and found[0]["reasoning"].startswith("It is ") and found[0]["sampling"]["n"] == 2


def test_the_boxed_instruction_is_in_the_questions_language_and_added_once() -> None:
    def asked(text: str, boxed: bool = True, **more: Any) -> str:
        return messages_of(question(text, **more), None, boxed)[-1]["content"]

    assert asked("1 + 1?") == "1 + 1?\nPlease use \\boxed{} to wrap the final answer"
    assert asked("几?", language="zh") == "几?\n请一步步推理，并把最终答案放到 \\boxed{}。"
    assert asked("1 + 1? Use \\boxed{}.") == "1 + 1? Use \\boxed{}." and asked("1 + 1?", boxed=False) == "1 + 1?"
    with_system = messages_of(question("1 + 1?"), "system_fin_r1.v1", True)
    assert [m["role"] for m in with_system] == ["system", "user"] and "wrap the final" in with_system[1]["content"]


def test_resume_requests_only_missing_samples(tmp_path: Path) -> None:
    made = questions(tmp_path, 10)
    with serve(good) as server:
        distil(tmp_path, settings(server, n=3))
        whole = rows(tmp_path)
        (tmp_path / TRACES).unlink()
        with JsonlWriter(tmp_path / TRACES) as writer:
            writer.write(*[row for row in whole if row["question_id"] != made[4].id][:-2])
        before = len(server.seen)
        distil(tmp_path, settings(server, n=3))
        asked = [(seen.text.split("\n")[0], seen.body.get("n", 1)) for seen in server.seen[before:]]
    assert asked == [("question 4", 3), ("question 9", 2)]
    kept = [{k: v for k, v in row.items() if k != "meta"} for row in rows(tmp_path)]
    assert kept == [{k: v for k, v in row.items() if k != "meta"} for row in whole]


def test_failed_and_truncated_rows_are_kept_with_their_reason(tmp_path: Path) -> None:
    def behave(seen: Seen) -> Reply:
        if "question 3" in seen.text:
            return Reply(500, b"boom")
        return Reply(
            body=chat("<think>and so on", finish_reason="length") if "question 5" in seen.text else solved(seen)
        )

    made = questions(tmp_path, 8)
    with serve(behave) as server:
        counts = distil(tmp_path, settings(server, retries=1))
        distil(tmp_path, settings(server, retries=1))
    assert (counts["traces"], counts["failed"], counts["truncated"]) == (8, 1, 1)
    found = {row["question_id"]: row for row in rows(tmp_path)}
    assert found[made[3].id]["error"] == "HTTP 500: boom (2 attempts)"
    assert (found[made[5].id]["finish_reason"], found[made[5].id]["answer"]) == ("length", "")
    assert len(server.seen) == 9


def test_a_teacher_that_dies_stops_the_stage_and_a_resume_repeats_its_calls(tmp_path: Path) -> None:
    def dies(seen: Seen) -> Reply:
        return Reply(body=solved(seen)) if seen.number < 10 else Reply(503, b"gone")

    questions(tmp_path, 100)
    with (
        serve(dies) as server,
        pytest.raises(Finr1Error, match=r"engine.teacher=m: the last 8 calls all failed, .*gone"),
    ):
        distil(tmp_path, settings(server, retries=0))
    assert len(rows(tmp_path)) == 10 and len(server.seen) <= 10 + 8 + 8
    with serve(good) as server:
        assert distil(tmp_path, settings(server))["failed"] == 0
    assert len(server.seen) == 90


def test_a_ceiling_stops_cleanly_and_a_higher_one_resumes(tmp_path: Path) -> None:
    questions(tmp_path, 30)
    reply = each(Reply(body=chat("\\boxed{1}", usage=(30, 50))))
    with serve(reply) as server:
        for ceiling in (1000, 1600):
            with pytest.raises(ConfigError, match=f"engine.max_spend_tokens={ceiling}: .* completions so far are kept"):
                distil(tmp_path, settings(server, max_spend_tokens=ceiling))
            assert len(rows(tmp_path)) == len(server.seen) and ceiling - 240 < 80 * len(server.seen) <= ceiling
        counts = distil(tmp_path, settings(server, max_spend_tokens=10_000))
    assert len(server.seen) == 30 and (counts["paid_prompt_tokens"], counts["paid_completion_tokens"]) == (900, 1500)


def test_operational_settings_do_not_invalidate_the_stage() -> None:
    def key(*more: str) -> Any:
        values = plain(compose(["engine@engine.teacher=http", "engine.teacher.model=m", *more]))
        return deciding(values, "engine.teacher")

    same = {"base_url": "http://other/v1", "concurrency": 2, "max_spend_tokens": 5, "price_in": 3, "timeout_s": 9}
    before = key()
    assert key(*(f"engine.teacher.{name}={value}" for name, value in same.items())) == before
    for override in ("engine.teacher.model=other", "engine.teacher.lead_in=vllm", "+engine.teacher.extra_body.seed=1"):
        assert key(override) != before
    assert "base_url" not in before and before["_target_"] == HTTP


def test_progress_shows_rate_cost_and_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    clock = iter(range(0, 10**6, 40))  # each reading of the clock is 40 s after the last
    monkeypatch.setattr(console, "print", lines.append)
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    bar = Bar("distil: questions", total=100, done=90)
    bar.advance(text="7 tokens")
    assert lines == ["  distil: questions 91/100 7 tokens, 6.0 min left"]  # 40 s for the first of ten: nine to go
    monkeypatch.undo()
    questions(tmp_path, 3)
    with serve(good) as server, stage_context(tmp_path, "distil", **settings(server, price_out=1e4)) as ctx:
        texts: list[str | None] = []
        monkeypatch.setattr(Bar, "advance", lambda self, n=1, text=None: texts.append(text))
        run(ctx)
    assert [str(text).partition(", cost ")[2] for text in texts] == ["0.40", "0.80", "1.20"]
    assert str(texts[-1]).startswith("120 tokens, ")


def overrides(server: Server, name: str) -> list[str]:
    return [
        f"name={name}",
        "engine@engine.teacher=http",
        "engine.teacher.model=m",
        f"engine.teacher.base_url={server.url}",
        "engine.teacher.backoff_s=0.01",
        "engine.teacher.retries=14",
        "engine.teacher.timeout_s=1",
        "engine.teacher.concurrency=6",
        "distil.sampling.n=2",
        "source.worked.n_train=60",
        "source.worked.n_test=2",
        "benchmark.worked.limit=2",
    ]


def ready(folder: Path, server: Server, *names: str) -> None:
    """Finish the questions stage of these runs."""
    for name in names:
        done = runner.run(folder, "stage=questions", *overrides(server, name))
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_second_run_on_the_same_folder_is_refused_and_no_file_has_the_key(tmp_path: Path) -> None:
    second_is_over = threading.Event()

    def behave(seen: Seen) -> Reply:
        second_is_over.wait(300)
        return Reply(body=solved(seen))

    with serve(behave) as server:
        ready(tmp_path, server, "a")
        words = ["stage=distil", "engine.teacher.api_key_env=TEACHER_KEY", *overrides(server, "a")]
        words.append("engine.teacher.timeout_s=300")  # the first run waits as long as the second takes to start
        environment = runner.environment(TEACHER_KEY="sk-very-secret")
        with subprocess.Popen(
            runner.command(*words), cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        ) as first:
            while not server.seen and first.poll() is None:
                time.sleep(0.02)
            second = runner.run(tmp_path, *words, TEACHER_KEY="sk-very-secret")
            second_is_over.set()
            _, err = first.communicate(timeout=300)
    assert first.returncode == 0, err
    assert second.returncode == 2 and second.stderr.startswith("error: name=a: another process (pid ")
    assert len(server.seen) == 60 and server.seen[0].headers["authorization"] == "Bearer sk-very-secret"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (tmp_path / "runs" / "a" / TRACES) in files
    assert not [path for path in files if b"sk-very-secret" in path.read_bytes()]


def sometimes_bad(seen: Seen) -> Reply:
    """Three of ten requests fail; the others are slow."""
    if random.random() < 0.3:
        return random.choice(WIRE_FAULTS)
    return Reply(body=solved(seen), delay_s=0.02 + random.random() / 20)


@pytest.mark.slow
@pytest.mark.parametrize(("behave", "kills"), [(slow_for_some, 10), (sometimes_bad, 20)])
def test_sigkill_at_random_points_changes_no_row_and_repeats_no_request(
    tmp_path: Path, behave: Behave, kills: int
) -> None:
    """Kills from before the first request to after the last answer."""
    rng = random.Random(f"{behave.__name__}")
    random.seed(0)
    with serve(behave) as server:
        ready(tmp_path, server, "whole", "killed")
        done = runner.run(tmp_path, "stage=distil", *overrides(server, "whole"))
        assert done.returncode == 0, done.stderr
        path = tmp_path / "runs" / "killed" / TRACES
        words = runner.command("stage=distil", *overrides(server, "killed"))
        asked_with: list[tuple[set[str], int]] = []  # rows on disk after each kill, and requests received by then
        for _ in range(kills):
            begun, goal = len(server.seen), rng.randint(0, 140 // kills)
            process = subprocess.Popen(words, cwd=tmp_path, env=runner.environment(), stderr=subprocess.DEVNULL)
            while process.poll() is None and len(server.seen) < begun + goal:
                time.sleep(0.002)
            time.sleep(rng.random() / 30)
            process.kill()
            assert process.wait(300) in (-signal.SIGKILL, 0)
            time.sleep(0.15)  # requests already sent still arrive
            prompts = prompts_of(tmp_path / "runs" / "killed")
            on_disk = list(read_jsonl(path)) if path.exists() else []
            asked_with.append(({prompts[row["question_id"]] for row in on_disk}, len(server.seen)))
        done = runner.run(tmp_path, "stage=distil", *overrides(server, "killed"))
        assert done.returncode == 0, done.stderr
    assert any(0 < len(have) < 60 for have, _ in asked_with)
    for have, count in asked_with:
        again = [seen.text for seen in server.seen[count:] if any(seen.text.startswith(text) for text in have)]
        assert not again
    assert comparable(path) == comparable(tmp_path / "runs" / "whole" / TRACES)
    if behave is slow_for_some:  # without faults no lost answer is charged: equal to the last byte
        assert path.read_bytes() == (tmp_path / "runs" / "whole" / TRACES).read_bytes()


def prompts_of(run_dir: Path) -> dict[str, str]:
    """The user message of each question."""
    found = read_jsonl(run_dir / "1_questions" / "questions.jsonl")
    return {row["id"]: row["prompt"][-1]["content"] for row in found}


def comparable(path: Path) -> list[dict[str, Any]]:
    """The rows in order, without the cost of faults."""
    found = list(read_jsonl(path))
    assert len(found) == 120
    for row in found:
        row["meta"].pop("paid", None)
    return found
