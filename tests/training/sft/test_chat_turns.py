"""Turns of a chat that say whether they are trained on, thinking sent apart, and chats that a template refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finr1.core.errors import ConfigError
from finr1.core.types import Message
from finr1.parts.model.tokens import prompt_ids
from finr1.training.sft.chats import Chat, encode, read_chats
from tests.helpers.byte_tokenizer import tokenizer
from tests.helpers.made import jsonl

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE


def made(template: str = TEMPLATE) -> Any:
    return tokenizer(template, ["<|im_start|>", "<|im_end|>"])


def _chat(path: Path, *answers: dict[str, Any]) -> Chat:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "?"}]
    messages = [{**turn, **(answer if turn["role"] == "assistant" else {})} for answer in answers for turn in turns]
    (chat,), _ = read_chats(jsonl(path / "x.jsonl", [{"messages": messages}]), None, [])
    return chat


def _trained(chat: Chat, turns: str = "all") -> str:
    tokens = made()
    text = encode(tokens, chat.messages, turns, chat.untrained)
    return str(tokens.decode([i for i, on in zip(text.rest, text.mask, strict=True) if on]))


@pytest.mark.parametrize("off", [{"weight": 0}, {"weight": 0.0}, {"train": False}])
def test_a_turn_that_is_not_to_be_trained_on_carries_no_loss(tmp_path: Path, off: dict[str, Any]) -> None:
    chat = _chat(tmp_path, {"content": "one", **off}, {"content": "two", "weight": 1}, {"content": "three", **off})
    assert len(chat.messages) == 4 and _trained(chat) == _trained(chat, "last") == "two<|im_end|>"
    both = _chat(tmp_path, {"content": "one"}, {"content": "two", "train": True})
    assert _trained(both) == "one<|im_end|>two<|im_end|>"


def test_a_chat_without_a_turn_to_train_on_and_another_weight_are_left_out(tmp_path: Path) -> None:
    turns = [[{"weight": 0}], [{"weight": 0.5}], [{}]]
    rows = [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", **more}]}
        for (more,) in turns
    ]
    chats, unusable = read_chats(jsonl(tmp_path / "x.jsonl", rows), None, [])
    assert len(chats) == 1
    assert [error.why for error in unusable] == [
        "no assistant turn to train on",
        "message 1 has weight=0.5, train=None: only 0 and 1 are known",
    ]


def test_reasoning_content_is_trained_on_as_thinking(tmp_path: Path) -> None:
    apart = _chat(tmp_path, {"content": "4", "reasoning_content": "2 + 2\n"})
    assert _trained(apart) == "<think>\n2 + 2\n</think>\n4<|im_end|>"
    twice = _chat(tmp_path, {"content": "<think>\nown\n</think>\n4", "reasoning_content": "own"})
    assert _trained(twice) == "<think>\nown\n</think>\n4<|im_end|>"


def test_a_template_without_a_system_message_is_one_line_that_names_the_setting() -> None:
    chat = [Message(role="system", content="Be brief."), Message(role="user", content="q")]
    with pytest.raises(ConfigError, match=r"prompt\.system=…: .*takes no system message \(no system role\)") as error:
        prompt_ids(made(REFUSES), chat)
    assert "\n" not in str(error.value) and prompt_ids(made(REFUSES), chat[1:])
