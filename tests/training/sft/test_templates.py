"""Chat templates as eight families of models have them: what of a trace is trained on, and what is set aside.

Each template is its family's in short (no tools): its roles, its end of turn, and what it does to thinking.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finr1.answer.tags import parse, render
from finr1.core.errors import ConfigError, DataError
from finr1.core.jsonl import read_jsonl
from finr1.core.types import Message
from finr1.parts.model.tokens import begun, completion_ids, end_of_turn, prompt_ids
from finr1.settings.model import ModelSettings
from finr1.settings.sft import SftSettings
from finr1.training.sft.chats import encode
from finr1.training.sft.run import _rows
from tests.helpers import stages
from tests.helpers.byte_tokenizer import tokenizer

_LOOP, _GEN, _END = "{% for m in messages %}", "{% endfor %}{% if add_generation_prompt %}", "{% endif %}"
_QWEN3 = (
    _LOOP + "<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and '</think>' in m.content %}"
    "{% if loop.last %}<think>\n{{ m.content.split('</think>')[0].split('<think>')[-1].strip('\n') }}\n</think>\n\n"
    "{% endif %}{{ m.content.split('</think>')[-1].lstrip('\n') }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n" + _GEN + "<|im_start|>assistant\n"
)
_R1 = (
    "<bos>" + _LOOP + "{% if m.role == 'system' %}{{ m.content }}"
    "{% elif m.role == 'user' %}<|User|>{{ m.content }}"
    "{% else %}<|Assistant|>{{ m.content.split('</think>')[-1] }}</s>{% endif %}" + _GEN + "<|Assistant|><think>\n"
)
_LLAMA3 = (
    "<bos>" + _LOOP + "<|header|>{{ m.role }}<|end_header|>\n\n{{ m.content | trim }}<|eot_id|>" + _GEN
) + "<|header|>assistant<|end_header|>\n\n"
_MISTRAL = (
    "<bos>" + _LOOP + "{% if m.role == 'user' %}[INST] {% if loop.index0 == 1 and messages[0].role == 'system' %}"
    "{{ messages[0].content }}\n\n{% endif %}{{ m.content }}[/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content | trim }}</s>"
    "{% elif loop.index0 %}{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}{% if false %}"
)
_GEMMA = (
    "<bos>{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + _LOOP
    + "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    + _GEN
    + "<start_of_turn>model\n"
)
_GLM4 = "[gMASK]<sop>" + _LOOP + "<|{{ m.role }}|>\n{{ m.content }}" + _GEN + "<|assistant|>\n"
_PHI3 = _LOOP + "<|{{ m.role }}|>\n{{ m.content }}<|end|>\n" + _GEN + "<|assistant|>\n{% else %}<|endoftext|>"
TEMPLATES = {  # template, end of turn, the tokenizer's end of sequence, what the prompt has of the answer
    "qwen3": (_QWEN3 + _END, "<|im_end|>", "<|im_end|>", ""),
    "qwen3_thinking": (_QWEN3 + "<think>\n" + _END, "<|im_end|>", "<|im_end|>", "<think>\n"),
    "r1_distill": (_R1 + _END, "</s>", "</s>", "<think>\n"),
    "llama3": (_LLAMA3 + _END, "<|eot_id|>", "<|endoftext|>", ""),
    "mistral": (_MISTRAL + _END, "</s>", "</s>", ""),
    "gemma": (_GEMMA + _END, "<end_of_turn>", "<eos>", ""),
    "glm4": (_GLM4 + _END, "<|endoftext|>", "<|endoftext|>", ""),
    "phi3": (_PHI3 + _END, "<|end|>", "<|endoftext|>", ""),
}
SPECIAL = ("<bos>", "<|User|>", "<|Assistant|>", "<|header|>", "<|end_header|>", "<start_of_turn>", "[gMASK]", "<sop>")
ANSWER = render("二加二", "\\boxed{4}")


def made(name: str) -> Any:
    template, end, eos, _ = TEMPLATES[name]
    return tokenizer(template, [*SPECIAL, end, eos], eos)


def asked(name: str, *texts: str) -> list[Message]:
    """System message where there may be one, then user and assistant by turns."""
    head = [] if name == "gemma" else [Message(role="system", content="S.")]
    return [*head, *(Message(role=("user", "assistant")[i % 2], content=text) for i, text in enumerate(texts))]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_trace_is_trained_as_generation_prompt_answer_and_end_of_turn(name: str) -> None:
    one, (_, end, _, start) = made(name), TEMPLATES[name]
    messages = asked(name, "2 + 2?")
    text = encode(one, [*messages, Message(role="assistant", content=ANSWER)], "last")
    assert text.prompt == prompt_ids(one, messages)
    assert begun(one, text.prompt) == start
    assert start + one.decode(text.rest) == ANSWER + end
    assert all(text.mask) and text.rest.count(end_of_turn(one)) == 1
    assert parse(begun(one, text.prompt) + one.decode(text.rest[:-1])).well_formed  # as an engine returns it


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_answer_that_brings_its_end_of_turn_has_it_once(name: str) -> None:
    one, end = made(name), TEMPLATES[name][1]
    messages = asked(name, "2 + 2?")
    assert completion_ids(one, messages, ANSWER + end) == completion_ids(one, messages, ANSWER)
    with pytest.raises(ValueError, match="the answer contains the end-of-turn token"):
        completion_ids(one, messages, ANSWER + end + "x")


def test_an_answer_without_thinking_does_not_fit_a_template_that_begins_it() -> None:
    with pytest.raises(ValueError, match="the chat template begins with <think>, the answer does not"):
        completion_ids(made("r1_distill"), asked("r1_distill", "2 + 2?"), "4")
    whole = completion_ids(made("r1_distill"), asked("r1_distill", "2 + 2?"), "\n<think>so</think>4")
    assert made("r1_distill").decode(whole) == "so</think>4</s>"


def test_a_refused_system_message_names_prompt_system() -> None:
    messages = [Message(role="system", content="S."), Message(role="user", content="2 + 2?")]
    with pytest.raises(ConfigError) as error:
        prompt_ids(made("gemma"), messages)
    why = "the model's chat template takes no system message (System role not supported)"
    assert str(error.value) == f"prompt.system=…: {why}; use prompt.system=null, and chats without one"
    with pytest.raises(ValueError, match=r"the chat template refuses it \(roles must alternate\)"):
        prompt_ids(made("gemma"), [messages[1], messages[1]])


def test_one_odd_chat_is_set_aside_and_all_end_the_run(tmp_path: Path) -> None:
    good, odd = asked("gemma", "q", "a"), asked("gemma", "q", "a<end_of_turn>b")
    twice = [good[0], *good]
    for number, (chats, kept) in enumerate((([good, odd, twice, good], 2), ([odd], 0))):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
        settings = {
            "sft": SftSettings(rows=str(path)),
            "model": ModelSettings(max_model_len=400),
            "prompt": stages.RootConfig(stage="sft").prompt.__class__(system=None),
        }
        with stages.stage_context(tmp_path / str(number), "sft", **settings) as ctx:
            ctx.inputs = {"chats": path}
            if not kept:
                with pytest.raises(DataError, match="no usable row; the first: the answer contains the end-of-turn"):
                    _rows(ctx, made("gemma"))
                continue
            groups, counts = _rows(ctx, made("gemma"))
            assert len(groups) == kept and counts == {"dropped_too_long": 0, "left_out": 2}
            assert len(ctx.notes) == 1 and "2 rows of " in ctx.notes[0]
            assert len(list(read_jsonl(ctx.folder / "rows.jsonl"))) == kept
            assert sorted(row["why"] for row in read_jsonl(ctx.folder / "left_out.jsonl")) == [
                "the answer contains the end-of-turn token",
                "the chat template refuses it (roles must alternate)",
            ]
