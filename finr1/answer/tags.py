r"""The form of a completion: `<think>…</think>` then `<answer>…</answer>`, and `\boxed{}` inside the answer.

Every function reads its text once, so a hostile completion costs no more than an honest one of the same length.
"""

from __future__ import annotations

import re
from typing import NamedTuple

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_BRACES = re.compile(r"\\boxed\s*\{|\\[{}]|[{}]")


class Parsed(NamedTuple):
    """A completion taken apart.

    `think` and `answer` are the text inside the only block of that name, None where there is not exactly one.
    `well_formed` is Fin-R1's format reward (arXiv 2503.16252 v5, §4.2): exactly one think block, then exactly one
    answer block, white space alone outside; neither may be empty. `why` names the first thing that is wrong.
    """

    think: str | None
    answer: str | None
    well_formed: bool
    why: str


def render(reasoning: str, answer: str) -> str:
    """The completion text that every stage writes and reads."""
    return f"<think>\n{reasoning}\n</think>\n<answer>\n{answer}\n</answer>"


def parse(text: str) -> Parsed:
    """Take a completion apart.

    An answer block that lies inside the thinking, or that holds think tags, is no answer: `answer` is None. A
    `</think>` without its `<think>` (which a chat template may have written) closes thinking that began at the start.
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
    r"""The content of the last closed `\boxed{}` of an answer text, else the whole text, without outer white space."""
    box = last_box(answer_text)
    return answer_text.strip() if box is None else box


def last_box(text: str) -> str | None:
    r"""The content of the `\boxed{}` that opens last among those that close; None where there is none."""
    first = text.find("\\boxed")
    if first < 0:
        return None
    if text.startswith("{", first + 6) and text.count("{") == text.count("}") == 1 and text.endswith("}"):
        return text[first + 7 : -1].strip() if text[-2] != "\\" else None  # by far the most frequent
    open_braces: list[int] = []  # where the content of a box starts; -1 for other braces
    start, end = -1, -1
    for match in _BRACES.finditer(text, first):
        token = match.group()
        if token == "}":
            began = open_braces.pop() if open_braces else -1
            if began > start:
                start, end = began, match.start()
        elif token == "{":
            open_braces.append(-1)
        elif token.startswith("\\boxed"):
            open_braces.append(match.end())
    return text[start:end].strip() if start >= 0 else None


def _only_block(text: str, name: str) -> tuple[str | None, int]:
    """The text inside the only block of this name, and where it starts; (None, -1) unless there is exactly one."""
    opening, closing = f"<{name}>", f"</{name}>"
    if text.count(opening) != 1 or text.count(closing) != 1:
        return None, -1
    start, end = text.index(opening) + len(opening), text.index(closing)
    return (text[start:end], start) if start <= end else (None, -1)
