"""The format of a completion: `<think>…</think>`, then `<answer>…</answer>`.

    >>> parse(render("60 / 240", "25%"))
    Parsed(think='\\n60 / 240\\n', answer='\\n25%\\n', well_formed=True, why='')
    >>> parse("<think>60 / 240</think> 25%").why
    'no <answer>'
    >>> split_thinking("<think>60 / 240</think> 25%")
    ('60 / 240', ' 25%')

All functions take time linear in the text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_TAG = re.compile("|".join(TAGS))


class Parsed(NamedTuple):
    """The parts of a completion.

    Attributes:
        think: text inside the only think block; None unless there is exactly one.
        answer: text inside the only answer block; None unless there is exactly one, after the thinking.
        well_formed: Fin-R1's format reward (arXiv 2503.16252 v5, §4.2): exactly one think block, then exactly one
            answer block, neither empty, and only white space outside.
        why: the first reason why it is not well-formed; empty if it is.
    """

    think: str | None
    answer: str | None
    well_formed: bool
    why: str


def render(reasoning: str, answer: str) -> str:
    """A well-formed completion with this reasoning and answer."""
    return f"<think>\n{reasoning}\n</think>\n<answer>\n{answer}\n</answer>"


def split_thinking(text: str, reasoning: str | None = None) -> tuple[str, str]:
    """Split a completion into its thinking and the reply after it, both empty where there is none.

    A `</think>` without `<think>` closes thinking that began with the text: chat templates may put `<think>` into the
    prompt. Unfinished thinking has no reply. `reasoning` is thinking that a server sent apart; where the text begins
    with thinking of its own, it was sent twice, and the text counts.
    """
    thinking, closed, reply = text.rpartition("</think>")
    if "<think>" in reply:
        thinking, reply = text, ""
    elif reasoning is not None and not closed:
        thinking = reasoning
    return thinking.strip().removeprefix("<think>").strip(), reply


def parse(text: str, reasoning: str | None = None) -> Parsed:
    """Split a completion into reasoning and answer.

    An answer block inside the thinking, or with a think tag in it, does not count: `answer` is None. `reasoning`: as
    in `split_thinking`; tags that it mentions are not the completion's.
    """
    if reasoning is not None and not any(tag in text for tag in TAGS[:2]):
        text = f"<think>\n{_TAG.sub('', reasoning).strip()}\n</think>\n{text}"
    think, think_at = _only_block(text, "think")
    answer, answer_at = _only_block(text, "answer")
    think_end = text.rfind("</think>")
    why = ""
    if answer is not None and (answer_at < think_end or "<think>" in answer):
        answer, why = None, "the answer block is not after the thinking"
    counts = [(tag, text.count(tag)) for tag in TAGS]
    why = next((f"{count or 'no'} {tag}" for tag, count in counts if count != 1), why)
    if not why:
        outside = text[: max(think_at - len("<think>"), 0)]
        outside += text[think_end + len("</think>") : answer_at - len("<answer>")]
        outside += text[text.rfind("</answer>") + len("</answer>") :]
        if think is None or answer is None:
            why = "blocks out of order"
        elif outside.strip():
            why = "text outside the blocks"
        elif not think.strip():
            why = "empty think block"
        elif not answer.strip():
            why = "empty answer block"
    return Parsed(think, answer, not why, why)


def _only_block(text: str, name: str) -> tuple[str | None, int]:
    """The text inside the only block of this name and its start index; (None, -1) unless there is exactly one."""
    opening, closing = f"<{name}>", f"</{name}>"
    if text.count(opening) != 1 or text.count(closing) != 1:
        return None, -1
    start, end = text.index(opening) + len(opening), text.index(closing)
    return (text[start:end], start) if start <= end else (None, -1)
