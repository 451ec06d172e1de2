"""The scripted engine: answers in order, and scripted failures."""

from __future__ import annotations

from typing import Any

import pytest

from finr1.answer.tags import parse
from finr1.core.errors import ConfigError
from finr1.core.types import Completion, Message, Question
from finr1.parts.engine.base import Engine, PolicyEngine, Request
from finr1.parts.engine.scripted import ScriptedEngine
from finr1.settings.sampling import Sampling


def _requests(n: int) -> list[Request]:
    made: list[Request] = []
    for i in range(n):
        prompt = [Message(role="user", content=f"q{i}")]
        made.append(Request(prompt, Question("made", str(i), "en", "reasoning business", "number", prompt, str(i))))
    return made


def say_hello(request: Request, sample: int) -> str | Completion | None:
    """Answers two of three questions."""
    if request.question.gold == "0":
        return f"hello {sample}"
    return Completion("cut", "length") if request.question.gold == "1" else None


def _texts(engine: ScriptedEngine, requests: list[Request], n: int = 1) -> list[list[str]]:
    return [[c.text for c in completions] for completions in engine.generate(requests, Sampling(n=n))]


def test_the_default_template_is_well_formed_and_contains_the_gold() -> None:
    engine = ScriptedEngine()
    assert isinstance(engine, Engine) and not isinstance(engine, PolicyEngine)
    for i, (text,) in enumerate(_texts(engine, _requests(3))):
        parsed = parse(text)
        assert parsed.well_formed and parsed.answer == f"\n\\boxed{{{i}}}\n"


def test_answers_by_id_by_position_and_by_function() -> None:
    requests = _requests(3)
    by_id = ScriptedEngine(
        answers={requests[1].question.id: ["a", "b"], requests[2].question.id: "c"}, template="{sample}"
    )
    assert _texts(by_id, requests, n=3) == [["0", "1", "2"], ["a", "b", "a"], ["c", "c", "c"]]
    assert _texts(ScriptedEngine(answers=["x", "y"]), requests) == [["x"], ["y"], ["x"]]
    by_function = ScriptedEngine(respond=f"{__name__}.say_hello", template="rest")
    answers = by_function.generate(requests, Sampling(n=2))
    assert [c.text for c in answers[0]] == ["hello 0", "hello 1"]
    assert answers[1][0].finish_reason == "length" and answers[2][0].text == "rest"


def test_failures_and_on_done() -> None:
    requests = _requests(4)
    engine = ScriptedEngine(fail_every=3, fail_ids=[requests[0].question.id])
    seen: list[int] = []
    answers = engine.generate(requests, Sampling(n=2), lambda index, completions: seen.append(index))
    assert [[c.finish_reason for c in one] for one in answers] == [
        ["error"] * 2,
        ["stop"] * 2,
        ["error"] * 2,
        ["stop"] * 2,
    ]
    assert answers[0][0].error == "scripted failure" and seen == [0, 1, 2, 3]
    assert [request.question.gold for request in engine.asked] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("path", ["no_such_module.f", "finr1.core.types.no_such_name", "plain"])
def test_a_wrong_path_is_reported_in_one_line(path: Any) -> None:
    with pytest.raises(ConfigError, match=f"engine.respond={path}: cannot be imported"):
        ScriptedEngine(respond=path)
