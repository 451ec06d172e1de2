r"""The format of a completion: `<think>…</think>`, then `<answer>…</answer>`, with `\boxed{}` inside the answer.

    >>> parsed = parse(render("60 / 240", r"It is \boxed{25\%}."))
    >>> parsed.well_formed, final_answer(parsed.answer)
    (True, '25\\%')
    >>> parse("<think>60 / 240</think> 25%").why
    'no <answer>'

All functions take time linear in the text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_BRACES = re.compile(r"\\boxed\s*\{|\\[{}]|[{}]")


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


def parse(text: str) -> Parsed:
    """Split a completion into reasoning and answer.

    An answer block inside the thinking, or with a think tag in it, does not count: `answer` is None. A `</think>`
    without `<think>` closes thinking that began with the text: chat templates may put `<think>` into the prompt.
    """
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


def final_answer(answer_text: str) -> str:
    r"""The content of the last closed `\boxed{}`, else the whole text; stripped."""
    box = last_box(answer_text)
    return answer_text.strip() if box is None else box


def last_box(text: str) -> str | None:
    r"""The content of the last `\boxed{}` that is closed, by where it opens; None without any."""
    first = text.find("\\boxed")
    if first < 0:
        return None
    if text.startswith("{", first + 6) and text.count("{") == text.count("}") == 1 and text.endswith("}"):
        return text[first + 7 : -1].strip() if text[-2] != "\\" else None  # fast path, by far the most frequent
    open_braces: list[int] = []  # start of a box's content; -1 for other braces
    start, end = -1, -1
    for match in _BRACES.finditer(text, first):
        token = match.group()
        if token == "}":
            content_start = open_braces.pop() if open_braces else -1
            if content_start > start:
                start, end = content_start, match.start()
        elif token == "{":
            open_braces.append(-1)
        elif token.startswith("\\boxed"):
            open_braces.append(match.end())
    return text[start:end].strip() if start >= 0 else None


def _only_block(text: str, name: str) -> tuple[str | None, int]:
    """The text inside the only block of this name and its start index; (None, -1) unless there is exactly one."""
    opening, closing = f"<{name}>", f"</{name}>"
    if text.count(opening) != 1 or text.count(closing) != 1:
        return None, -1
    start, end = text.index(opening) + len(opening), text.index(closing)
    return (text[start:end], start) if start <= end else (None, -1)
