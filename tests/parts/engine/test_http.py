"""The http engine against a local server that misbehaves: retries, pacing, cost, and recorded errors."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from finr1.core.errors import ConfigError
from finr1.core.types import Completion
from finr1.data.distil.run import split_text
from finr1.parts.engine.base import Engine, PolicyEngine, StreamEngine
from finr1.parts.engine.http.engine import HttpEngine
from finr1.parts.engine.http.replies import retry_after_s
from finr1.settings.sampling import Sampling
from tests.helpers.fault_server import Reply, Seen, chat, each, good, serve, solved
from tests.helpers.http_asking import ONE, ask, engine, requests

CLIENTS = ("openai", "requests")
OTHERS_SLOW = [pytest.param(name, marks=[] if name == "openai" else pytest.mark.slow) for name in CLIENTS]


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    """Each HTTP library."""
    return str(request.param)


def test_it_is_a_streaming_engine_and_answers_in_order(client: str) -> None:
    def behave(seen: Seen) -> Reply:
        return Reply(body=chat(seen.text.upper(), usage=(7, 3)), delay_s=0.6 if seen.text.endswith(" 0") else 0.06)

    done: list[int] = []
    with serve(behave) as server:
        http = engine(server, concurrency=4, client=client)
        assert isinstance(http, Engine) and isinstance(http, StreamEngine) and not isinstance(http, PolicyEngine)
        results = http.generate(requests(20), ONE, lambda index, completions: done.append(index))
    assert [c.text for (c,) in results] == [f"QUESTION {i}" for i in range(20)]
    assert sorted(done) == list(range(20)) and done[0] != 0
    assert max(seen.in_flight for seen in server.seen) == 4
    assert results[0][0].meta == {"model": "served", "n_tokens": 3, "paid": [7, 3]}
    assert http.ledger.account.paid == (140, 60)


def test_what_is_sent(monkeypatch: pytest.MonkeyPatch, client: str) -> None:
    monkeypatch.setenv("TEACHER_KEY", "secret-1")
    monkeypatch.setenv("OPENAI_API_KEY", "not-for-this-server")
    _, server = ask(good, api_key_env="TEACHER_KEY", client=client)
    message = {"role": "user", "content": "question 0"}
    assert server.seen[0].body == {"model": "m", "messages": [message], "temperature": 0.6, "max_tokens": 64}
    assert server.seen[0].headers["authorization"] == "Bearer secret-1"
    sampling = Sampling(n=3, top_p=0.9, top_k=5, max_new_tokens=8, regex="a+", repetition_penalty=1.05)
    extra = {"max_tokens": None, "max_completion_tokens": 8}
    _, server = ask(good, sampling=sampling, extra_body=extra, client=client)
    assert server.seen[0].body == {
        "model": "m", "messages": [message], "temperature": 1.0, "n": 3, "top_p": 0.9, "top_k": 5,
        "repetition_penalty": 1.05, "structured_outputs": {"regex": "a+"}, "max_completion_tokens": 8,
    }  # fmt: skip
    assert "authorization" not in server.seen[0].headers


@pytest.mark.parametrize(
    ("way", "message", "body"),
    [
        ("vllm", {}, {"continue_final_message": True, "add_generation_prompt": False}),
        ("deepseek", {"prefix": True}, {}),
    ],
)
def test_a_forced_lead_in(way: str, message: dict[str, Any], body: dict[str, Any]) -> None:
    results, server = ask(each(Reply(body=chat("a\n</think>\n\\boxed{1}"))), lead_in=way)
    sent = server.seen[0].body
    assert sent["messages"][-1] == {"role": "assistant", "content": "<think>\n", **message}
    assert {key: sent[key] for key in body} == body
    assert results[0][0].text == "<think>\na\n</think>\n\\boxed{1}"
    for text in ("<think>\nkept", "\n<think>kept"):
        assert ask(each(Reply(body=chat(text))), lead_in=way)[0][0][0].text == text
    cut, _ = ask(each(Reply(body=chat("never ends", finish_reason="length"))), lead_in=way)
    assert split_text(cut[0][0]) == ("never ends", "") and cut[0][0].finish_reason == "length"
    apart, _ = ask(each(Reply(body=chat("\\boxed{1}", reasoning_content="r"))), lead_in=way)
    assert split_text(apart[0][0]) == ("r", "\\boxed{1}")


@pytest.mark.parametrize(
    ("body", "expected", "finish"),
    [
        (chat("<think>r</think>\\boxed{1}"), ("r", "\\boxed{1}"), "stop"),
        (chat("\\boxed{1}", reasoning_content="r"), ("r", "\\boxed{1}"), "stop"),
        (chat("\\boxed{1}", reasoning="r"), ("r", "\\boxed{1}"), "stop"),
        (chat("\\boxed{1}", reasoning_content=None, reasoning=" "), ("", "\\boxed{1}"), "stop"),
        (chat([{"type": "text", "text": "<think>r</think>"}, {"type": "text", "text": "7"}]), ("r", "7"), "stop"),  # type: ignore[arg-type]
        (chat("<think>r goes on", finish_reason="length"), ("r goes on", ""), "length"),
        (chat("", reasoning_content="r goes on", finish_reason="length"), ("r goes on", ""), "length"),
        (chat("\\boxed{1}", finish_reason=None), ("", "\\boxed{1}"), "stop"),
    ],
)
def test_reasoning_in_its_own_field_or_in_the_text(
    body: dict[str, Any], expected: tuple[str, str], finish: str
) -> None:
    ((completion,),), _ = ask(each(Reply(body=body)))
    assert (split_text(completion), completion.finish_reason) == (expected, finish)


GOOD = Reply(body=chat("fine"))
FAULTS = {  # a bad reply, and the error recorded if it persists
    "500": (Reply(500, b'{"error": {"message": "boom"}}'), "HTTP 500: boom"),
    "503 of a proxy": (Reply(503, b"<html>busy</html>"), "HTTP 503: <html>busy</html>"),
    "429": (Reply(429, b'{"message": "slow down"}'), "HTTP 429: slow down"),
    "timeout": (Reply(body=chat("late"), delay_s=0.6), "timed out after 0.3 s"),
    "reset": (Reply(reset=True), "connection failed"),
    "cut": (Reply(body=chat("fine"), cut_at=40), "connection failed"),
    "truncated JSON": (Reply(body=b'{"choices": [{"mess'), "broken JSON"),
    "not UTF-8": (Reply(body=b'{"choices": "\xff\xfe"}'), "broken JSON"),
    "deep JSON": (Reply(body=b"[" * 100_000), "broken JSON"),
    "no JSON object": (Reply(body=b"[]"), "no choices in the answer"),
    "an error with 200": (Reply(body={"error": {"message": "upstream"}}), "no choices in the answer: upstream"),
    "no choice": (Reply(body=chat("x", n=0)), "no choices in the answer"),
    "no message": (Reply(body={"choices": [{"finish_reason": "stop"}]}), "a choice without a message"),
    "empty content": (Reply(body=chat("")), "empty content"),
    "null content": (Reply(body={"choices": [{"message": {"content": None}}]}), "empty content"),
    "blank content": (Reply(body=chat(" \n")), "empty content"),
    "odd finish": (Reply(body=chat("x", finish_reason="insufficient_system_resource")), "finish_reason insufficient"),
}


ON_THE_WIRE = ("500", "503 of a proxy", "429", "timeout", "reset", "cut", "not UTF-8")  # raised by the client itself


@pytest.mark.parametrize(
    ("name", "client"),
    [
        pytest.param(fault, client, marks=pytest.mark.slow if fault == "timeout" and client != "openai" else [])
        for fault in FAULTS
        for client in CLIENTS
        if client == "openai" or fault in ON_THE_WIRE
    ],
)
def test_a_fault_is_retried_and_recorded_if_it_persists(name: str, client: str) -> None:
    bad, words = FAULTS[name]
    results, server = ask(each(bad, bad, GOOD), timeout_s=0.3, client=client)
    assert [c.text for c in results[0]] == ["fine"] and len(server.seen) == 3
    results, server = ask(each(bad), retries=2, timeout_s=0.3, client=client)
    assert len(server.seen) == 3
    (failed,) = results[0]
    assert (failed.text, failed.finish_reason) == ("", "error")
    assert failed.error.startswith(words) and failed.error.endswith("(3 attempts)") and "\n" not in failed.error


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(400, b'{"error": {"message": "too long"}}'), "HTTP 400: too long"),
        (Reply(302, headers={"Location": "http://127.0.0.1:9/"}), "HTTP 302: "),
        (Reply(body=chat("x", finish_reason="content_filter")), "finish_reason content_filter"),
        (Reply(429, b"quota", headers={"Retry-After": "86400"}), "the server asks to wait 86400 s; HTTP 429: quota"),
    ],
)
def test_permanent_errors_are_not_retried(reply: Reply, words: str, client: str) -> None:
    results, server = ask(each(reply), client=client)
    assert (results[0][0].error, len(server.seen)) == (words.strip(), 1)


def test_an_unreachable_server_fails_each_call(client: str) -> None:
    with serve(good) as server:
        pass
    http = engine(server, retries=1, client=client)
    ((failed,),) = http.generate(requests(1), ONE)
    name = {"openai": "ConnectError", "requests": "ConnectionError"}[client]
    assert failed.error.startswith(f"connection failed ({name}") and http.ledger.account.paid == (0, 0)


LATE = Reply(body=chat(), delay_s=2)
LOST = [Reply(body=chat(), cut_at=40), Reply(reset=True), Reply(504), LATE, Reply(body=b"{cut")]


@pytest.mark.parametrize(("reply", "paid"), [*((r, True) for r in LOST), (Reply(500), False), (Reply(429), False)])
def test_an_answer_that_may_have_been_given_is_charged(reply: Reply, paid: bool, client: str) -> None:
    with serve(each(reply)) as server:
        http = engine(server, retries=0, client=client, timeout_s=0.4)
        http.generate(requests(1), ONE)
    # the prompt has 10 bytes: 10 // 3 + 8 tokens; of the completion half the 64 tokens at most
    assert http.ledger.account.paid == ((11, 32) if paid else (0, 0))


@pytest.mark.parametrize("finish", ["stop_sequence", "STOP", "eos", "tool_calls", "brand_new", 7, None])
def test_a_complete_answer_is_kept_whatever_ended_it(finish: Any) -> None:
    (((kept,),), server) = ask(each(Reply(body=chat("fine", finish_reason=finish))))
    assert (kept.text, kept.finish_reason, len(server.seen)) == ("fine", "stop", 1)
    known = finish in ("stop_sequence", "STOP", "eos", None)
    assert kept.meta.get("finish_reason") == (None if known else str(finish))
    (((cut,),), _) = ask(each(Reply(body=chat("fine", finish_reason="MAX_TOKENS"))))
    assert cut.finish_reason == "length"


def test_a_wrong_key_or_model_stops_it_at_once_and_the_key_is_never_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-secret")
    refused = Reply(401, b'{"error": {"message": "no such key sk-secret"}}')
    with pytest.raises(ConfigError, match=r"engine.api_key_env=TEACHER_KEY: the server says HTTP 401: no such key …;"):
        ask(each(refused), n=100, api_key_env="TEACHER_KEY")
    with pytest.raises(
        ConfigError, match=r"engine.base_url=.*/chat/completions: the server says HTTP 404: no m; correct"
    ):
        ask(each(Reply(404, b'{"message": "no m"}')), n=100)
    results, _ = ask(each(GOOD, refused), n=2, concurrency=1, api_key_env="TEACHER_KEY")  # temporary: it worked before
    assert [one[0].error for one in results] == ["", "HTTP 401: no such key …"]


@pytest.mark.parametrize("form", ["seconds", pytest.param("date", marks=pytest.mark.slow)])
def test_retry_after_of_a_rate_limit_delays_all_requests(form: str) -> None:
    def behave(seen: Seen) -> Reply:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)  # whole seconds: 1 to 2 from now
        after = "0.6" if form == "seconds" else date
        return Reply(429, headers={"Retry-After": after}) if seen.number == 3 else Reply(body=chat(), delay_s=0.02)

    results, server = ask(behave, n=40, concurrency=4)
    assert all(c.text == "ok" for (c,) in results) and len(server.seen) == 41
    refused_at = server.seen[3].at
    later = [seen.at - refused_at for seen in server.seen[4:] if seen.at - refused_at > 0.1]
    assert len(later) >= 30 and min(later) >= (0.6 if form == "seconds" else 0.95)


def test_retry_after_of_an_overloaded_server_delays_that_request_alone() -> None:
    def behave(seen: Seen) -> Reply:
        return Reply(503, headers={"Retry-After": "0.5"}) if seen.number == 0 else Reply(body=chat(seen.text))

    _, server = ask(behave, n=10, concurrency=2)
    assert server.seen[-1].text == server.seen[0].text and server.seen[-1].at - server.seen[0].at >= 0.5
    assert server.seen[-2].at - server.seen[0].at < 0.4


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *[("3", 3.0), (" 0.5 ", 0.5), ("-1", 0.0), ("Wed, 21 Oct 2015 07:28:09 GMT", 9.0)],
        *[("Wed, 21 Oct 2015 07:27:00 GMT", 0.0), ("Wed, 21 Oct 2015 09:28:09 +0200", 9.0)],
        *[(text, None) for text in ("", "soon", "nan", "inf", "1e999", "Wed, 21 Oct 99999 07:28:09 GMT")],
    ],
)
def test_retry_after_is_read(value: str, seconds: float | None) -> None:
    assert retry_after_s(value, now=lambda: datetime(2015, 10, 21, 7, 28, tzinfo=UTC)) == seconds


def test_backoff_doubles_with_jitter() -> None:
    _, server = ask(each(Reply(500)), retries=4, backoff_s=0.08)
    gaps = [b.at - a.at for a, b in zip(server.seen, server.seen[1:], strict=False)]
    for gap, full in zip(gaps, (0.08, 0.16, 0.32, 0.64), strict=True):
        assert full / 2 <= gap < full + 0.15
    _, server = ask(each(Reply(500)), n=16, concurrency=16, retries=1, backoff_s=0.4)
    first = {seen.text: seen.at for seen in server.seen[:16]}
    gaps = [seen.at - first[seen.text] for seen in server.seen[16:]]
    assert len(gaps) == 16 and min(gaps) >= 0.2 and max(gaps) - min(gaps) > 0.06  # 0.2 to 0.4, not all alike


@pytest.mark.parametrize("n_in_one", [True, False])
def test_missing_choices_are_requested_again(n_in_one: bool) -> None:
    def ignores_n(seen: Seen) -> Reply:
        return Reply(body=chat(f"sample {seen.number}", usage=(10, 7)))

    results, server = ask(ignores_n, sampling=Sampling(n=4), n_in_one_request=n_in_one)
    assert [c.text for c in results[0]] == [f"sample {i}" for i in range(4)]
    assert [seen.body.get("n", 1) for seen in server.seen] == ([4, 3, 2, 1] if n_in_one else [1, 1, 1, 1])
    assert results[0][0].meta["paid"] == [40, 28] and [c.meta["n_tokens"] for c in results[0]] == [7] * 4


def test_too_many_choices_and_some_that_are_empty() -> None:
    results, server = ask(each(Reply(body=chat("a", n=5))), sampling=Sampling(n=2))
    assert [c.text for c in results[0]] == ["a", "a"] and len(server.seen) == 1
    half = chat("a", n=2)
    half["choices"][0] = {"message": {"content": ""}, "finish_reason": "stop"}
    results, server = ask(each(Reply(body=half), Reply(body=chat("b"))), sampling=Sampling(n=2))
    assert [c.text for c in results[0]] == ["a", "b"] and server.seen[1].body.get("n", 1) == 1
    results, _ = ask(each(Reply(body=chat("a")), Reply(500)), sampling=Sampling(n=3), retries=1)
    assert [(c.text, c.error) for c in results[0]] == [("a", ""), *[("", "HTTP 500: (2 attempts)")] * 2]


def test_tokens_are_divided_between_choices_and_estimated_without_usage() -> None:
    body = chat("", n=3, usage=(10, 100))
    for choice, size in zip(body["choices"], (30, 60, 90), strict=True):
        choice["message"] = {"content": "x" * size}
    results, _ = ask(each(Reply(body=body)), sampling=Sampling(n=3))
    assert [c.meta["n_tokens"] for c in results[0]] == [16, 34, 50]  # 10, 20, 30 parts of 60; rounded down in sum
    results, _ = ask(each(Reply(body=chat("x" * 30, usage=None))))
    assert results[0][0].meta["n_tokens"] == 10 and results[0][0].meta["paid"] == [11, 10]  # (10 bytes // 3 + 8)
    bad = chat("x" * 30)
    bad["usage"] = {"prompt_tokens": None, "completion_tokens": -3}
    assert ask(each(Reply(body=bad)))[0][0][0].meta["n_tokens"] == 10


def test_lone_surrogates_are_replaced() -> None:
    results, _ = ask(each(Reply(body=b'{"choices": [{"message": {"content": "a\\ud800b \\u6c49"}}]}')))
    assert results[0][0].text == "a?b 汉"
    json.dumps(results[0][0].text, ensure_ascii=False).encode()


@pytest.mark.parametrize("client", OTHERS_SLOW)
def test_a_third_of_random_failures_loses_nothing(client: str) -> None:
    rng = random.Random(0)
    kinds = [bad for name, (bad, _) in FAULTS.items() if name not in ("timeout", "deep JSON")]

    def behave(seen: Seen) -> Reply:
        return rng.choice(kinds) if rng.random() < 0.3 else good(seen)

    results, server = ask(
        behave, n=400, sampling=Sampling(n=2, max_new_tokens=64), concurrency=32, retries=12, client=client
    )
    expected = [solved(Seen(0, 0.0, {"messages": [dict(r.messages[0])]}, {}, 1)) for r in requests(400)]
    texts = [body["choices"][0]["message"]["content"] for body in expected]
    assert [[c.text for c in one] for one in results] == [[text] * 2 for text in texts]
    assert Counter(seen.text for seen in server.answered).total() >= 400
    assert len(server.seen) > 480


def test_an_exception_of_on_done_stops_the_stream(client: str) -> None:
    def stop(index: int, completions: object) -> None:
        raise RuntimeError("enough")

    with serve(each(Reply(body=chat(), delay_s=0.05))) as server:
        with pytest.raises(RuntimeError, match="enough"):
            engine(server, concurrency=8, client=client).stream(requests(1000), ONE, stop)
        assert len(server.seen) <= 16


def test_inside_a_running_loop_as_in_a_notebook() -> None:
    async def cell() -> list[list[Completion]]:
        return ask(good, n=3)[0]

    assert len(asyncio.run(cell())) == 3


def test_a_proxy_of_the_environment_is_used_but_not_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    ((failed,),), server = ask(good, retries=0, client=client)
    assert failed.error.startswith("connection failed") and not server.seen
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert ask(good, client=client)[0][0][0].error == ""


def test_netrc_is_ignored(monkeypatch: pytest.MonkeyPatch, client: str, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("TEACHER_KEY", "secret-1")
    for settings, expected in (({"api_key_env": "TEACHER_KEY"}, "Bearer secret-1"), ({}, None)):
        _, server = ask(good, client=client, **settings)
        assert server.seen[0].headers.get("authorization") == expected


MISTAKES = [
    ({"model": None}, "engine.model=None: the server needs a model name"),
    ({"base_url": "localhost:8000"}, "engine.base_url=localhost:8000: not an address"),
    ({"base_url": "https://me:pass@host/v1"}, "engine.base_url=…: it must not contain a secret"),
    ({"api_key_env": "sk-abc"}, "engine.api_key_env=…: not the name of an environment variable; give its name"),
    ({"api_key_env": "NO_SUCH_KEY"}, "engine.api_key_env=NO_SUCH_KEY: no such environment variable"),
    ({"lead_in": "yes"}, "engine.lead_in=yes: no such lead-in; use null or one of vllm, deepseek"),
    ({"client": "curl"}, "engine.client=curl: no such client; use one of openai, requests"),
    ({"concurrency": 0}, "engine.concurrency=0: must be at least 1"),
    ({"timeout_s": 0}, "engine.timeout_s=0: must be above 0"),
    ({"max_spend_tokens": 0}, "engine.max_spend_tokens=0: no request could be sent; use null"),
    ({"max_spend_money": 5}, "engine.max_spend_money=5: it needs prices"),
]


@pytest.mark.parametrize(("settings", "words"), MISTAKES, ids=[str(m[0]) for m in MISTAKES])
def test_an_invalid_setting_is_reported_in_one_line(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HttpEngine(**{"model": "m", **settings})
    assert str(caught.value).startswith(words) and "sk-abc" not in str(caught.value) and "pass" not in str(caught.value)


def test_the_time_until_it_gives_up_is_bounded(client: str) -> None:
    began = time.monotonic()
    ask(each(Reply(body=chat(), delay_s=30.0)), n=8, timeout_s=0.2, retries=1, client=client)
    assert time.monotonic() - began < 3
