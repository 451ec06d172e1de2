"""stage=chat: a stream told apart wherever its pieces break, one question or a conversation, and the seven presets."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from finr1.cli import compose
from finr1.cli.chat import Client, Piece, Screen, Splitter, run
from finr1.core.errors import ConfigError, Finr1Error
from finr1.core.prompt import load, scenarios
from finr1.settings.chat import ChatSettings
from finr1.settings.http import HttpSettings
from finr1.settings.root import RootConfig
from finr1.settings.serve import ServeSettings
from tests.helpers.fault_server import Reply, Seen, serve

WHOLE = "<think>\nIs 1 < 2? Yes.\n</think>\n<answer>\n\\boxed{3} <b>\n</answer>"


def joined(pieces: Sequence[Piece]) -> dict[str, str]:
    said: dict[str, str] = {}
    for part, text in pieces:
        said[part] = said.get(part, "") + text
    return {part: text.strip() for part, text in said.items() if text.strip()}


@pytest.mark.parametrize("size", range(1, 12))
def test_tags_may_break_anywhere(size: int) -> None:
    splitter = Splitter()
    pieces = [p for i in range(0, len(WHOLE), size) for p in splitter.feed(WHOLE[i : i + size])]
    pieces += splitter.end()
    assert joined(pieces) == {"thinking": "Is 1 < 2? Yes.", "answer": "\\boxed{3} <b>"}


def test_what_looks_like_a_tag_at_the_end_is_text() -> None:
    splitter = Splitter()
    assert list(splitter.feed("a <ans")) == [Piece("text", "a ")]  # perhaps a tag: held back
    assert list(splitter.end()) == [Piece("text", "<ans")]
    assert list(Splitter().feed("x<y>z")) == [Piece("text", "x"), Piece("text", "<"), Piece("text", "y>z")]


def events(*deltas: dict[str, Any]) -> bytes:
    choices = [*({"delta": delta} for delta in deltas), {"delta": {}, "finish_reason": "stop"}]
    lines = [f"data: {json.dumps({'choices': [choice]})}\n\n" for choice in choices]
    return (": hello\n\n" + "".join(lines) + "data: [DONE]\n\n").encode()


def told(seen: Seen) -> Reply:
    return Reply(body=events({"role": "assistant"}, *({"content": c} for c in WHOLE)))


def test_one_question_is_streamed_in_parts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "sk-9")
    with serve(told) as server:
        cfg = RootConfig(stage="chat")
        cfg.chat = ChatSettings(base_url=server.url, model="m", ask="1 + 2?", preset="calculation", api_key_env="KEY")
        run(cfg)
    assert capsys.readouterr().out == "[thinking]\nIs 1 < 2? Yes.\n\n\n[answer]\n\\boxed{3} <b>\n\n"
    (seen,) = server.seen
    assert seen.headers["authorization"] == "Bearer sk-9"
    assert seen.body["stream"] is True and (seen.body["temperature"], seen.body["top_p"]) == (0.7, 0.8)
    assert [m["role"] for m in seen.body["messages"]] == ["system", "user"]
    assert seen.body["messages"][0]["content"] == load("scenario_calculation.v1")


def test_a_conversation_remembers_answers_not_thoughts(monkeypatch: pytest.MonkeyPatch) -> None:
    typed: Iterator[str] = iter(["first", "", "/example", "/new", "last", "/quit", "never"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    with serve(told) as server:
        cfg = RootConfig(stage="chat")
        cfg.chat = ChatSettings(base_url=server.url, model="m", preset="esg")
        run(cfg)
    asked = [[m["content"] for m in seen.body["messages"][1:]] for seen in server.seen]
    answer = "\\boxed{3} <b>"
    assert asked == [["first"], ["first", answer, load("scenario_esg_example.v1")], ["last"]]


def test_reasoning_that_comes_apart_is_thinking() -> None:
    with serve(lambda seen: Reply(body=events({"reasoning_content": "Hm."}, {"content": "Three."}))) as server:
        pieces = list(Client(ChatSettings(base_url=server.url, model="m")).stream([]))
    assert joined(pieces) == {"thinking": "Hm.", "text": "Three."}
    out = io.StringIO()
    assert Screen(out).show(pieces) == "Three."


EMPTY = b'data: {"choices": []}\n\ndata: {}\n\n'
EMPTY += b'data: {"choices": [{}, {"delta": null}, {"delta": {"content": null}}]}\n\n'
ODD = [
    (EMPTY, ""),
    (b'data: {"choices": [{"delta": {"content": "a\\ud800b"}}]}\n\n', "[text]\na?b"),
    (b'data: {"choices": [{"delta": {"reasoning": "Hm."}, "finish_reason": null}]}\n\n', "[thinking]\nHm."),
]
INCOMPLETE = "[note]\nthe stream ended without a finish reason: the reply may be incomplete"


@pytest.mark.parametrize(("body", "shown"), ODD)
def test_odd_events_are_passed_over_and_an_end_without_a_reason_is_said(body: bytes, shown: str) -> None:
    with serve(lambda seen: Reply(body=body)) as server:  # without [DONE] too
        pieces = list(Client(ChatSettings(base_url=server.url, model="m")).stream([]))
    out = io.StringIO()
    Screen(out).show(pieces)
    assert out.getvalue().strip() == (f"{shown}\n\n{INCOMPLETE}" if shown else INCOMPLETE)


FAULTS = [
    Reply(body=b'data: {"choices": [{"delta": {"content": "so"}}]}\n\ndata: {"error": {"message": "overloaded"}}\n\n'),
    Reply(body=b'data: {"choices": [{"delta": {"content": "so"}}]}\n\ndata: {"choi\n\n'),
    Reply(body=events({"content": "so"}), cut_at=70),
    Reply(body=b"data: \xff\n\n"),
    Reply(500, b"boom"),
    Reply(reset=True),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_an_error_in_a_reply_is_one_line_and_the_chat_goes_on(
    fault: Reply, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed: Iterator[str] = iter(["first", "fails \udcff", "last", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    with serve(lambda seen: fault if seen.number == 1 else told(seen)) as server:
        cfg = RootConfig(stage="chat")
        cfg.chat = ChatSettings(base_url=server.url, model="m", preset="esg")
        run(cfg)
    out = capsys.readouterr().out
    assert len([line for line in out.splitlines() if line.startswith("error: chat")]) == 1
    asked = [[m["content"] for m in seen.body["messages"][1:]] for seen in server.seen]
    assert asked == [["first"], ["first", "\\boxed{3} <b>", "fails ?"], ["first", "\\boxed{3} <b>", "last"]]


@pytest.mark.parametrize(
    "url", ["http://localhost:99999/v1", "http://[::1", "http:///v1", "localhost:8000", "http://h:0/"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"chat\.base_url=…: not an address"):
        ChatSettings(base_url=url)
    with pytest.raises(ConfigError, match=r"engine\.base_url=.*: not an address;"):
        HttpSettings(model="m", base_url=url).check("engine")


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_a_port_that_cannot_exist_is_one_line(port: int) -> None:
    with pytest.raises(ConfigError, match=rf"^serve\.port={port}: must be within 1 to 65535; use 1 to 65535$"):
        ServeSettings(port=port)


def test_faults_are_one_line_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "sk-9")
    with serve(lambda seen: Reply(401, b'{"error": "no such key sk-9"}')) as server:
        client = Client(ChatSettings(base_url=server.url, model="m", api_key_env="KEY"))
        with pytest.raises(
            Finr1Error, match=r"HTTP 401: .*no such key ….*; name the variable that holds its key: chat.api_key_env"
        ) as caught:
            list(client.stream([]))
    assert "sk-9" not in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"chat\.base_url=http://127\.0\.0\.1:9/v1: no answer .*; start it: python"):
        Client(ChatSettings(base_url="http://127.0.0.1:9/v1"))
    with (
        serve(lambda seen: Reply(body=b'data: {"error": {"message": "cut"}}\n\n')) as server,
        pytest.raises(Finr1Error, match="the server says"),
    ):
        list(Client(ChatSettings(base_url=server.url, model="m")).stream([]))
    with pytest.raises(ConfigError, match=r"chat\.preset=poetry: no such scenario; use one of advisory, calculation"):
        ChatSettings(preset="poetry")
    with pytest.raises(ConfigError, match=r"chat\.api_key_env=NOT_THERE"):
        Client(ChatSettings(api_key_env="NOT_THERE"))


def test_the_seven_scenarios_have_an_example_and_the_form_that_is_graded() -> None:
    names = ["advisory", "calculation", "code", "compliance", "english_finance", "esg", "risk_control"]
    assert scenarios() == names
    form = load("system_fin_r1.v1").split("Respond in the following format: ")[1]
    for name in names:
        assert load(f"scenario_{name}.v1").endswith(form)
        assert len(load(f"scenario_{name}_example.v1")) > 30
        system = f"scenario_{name}.v1"
        assert compose.typed(compose.compose([f"prompt.system={system}", "stage=evaluate"])).prompt.system == system
