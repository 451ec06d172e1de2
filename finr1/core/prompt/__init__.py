"""Versioned prompt texts (`<name>.v<n>.txt` beside this file), and the chat messages of a question."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from finr1.core.errors import ConfigError
from finr1.core.types import Message, Question

FOLDER = Path(__file__).parent


@cache
def load(name: str, key: str = "prompt") -> str:
    """Load a prompt text; ConfigError lists the known names."""
    path = FOLDER / f"{name}.txt"
    if not path.is_file():
        known = ", ".join(sorted(p.name.removesuffix(".txt") for p in FOLDER.glob("*.txt")))
        raise ConfigError(key, name, "no such prompt text", f"use one of {known}")
    return path.read_text(encoding="utf-8").rstrip("\n")


def fill(name: str, **values: str) -> str:
    """Load a prompt text and fill in its `{key}` placeholders."""
    return fill_text(load(name), **values)


def fill_text(template: str, **values: str) -> str:
    """Fill in the `{key}` placeholders of a text in one pass: braces inside the values stay as they are."""
    return fill_spans(template, values)[0]


def fill_spans(template: str, values: Mapping[str, str]) -> tuple[str, dict[str, list[list[int]]]]:
    """Fill in a text as `fill_text` does; also returns where each value stands, as [start, end]."""
    pieces: list[str] = []
    spans: dict[str, list[list[int]]] = {}
    length = 0
    for i, piece in enumerate(re.split(r"\{(\w+)\}", template)):
        filled = values.get(piece, "{" + piece + "}") if i % 2 else piece
        if i % 2 and piece in values:
            spans.setdefault(piece, []).append([length, length + len(filled)])
        pieces.append(filled)
        length += len(filled)
    return "".join(pieces), spans


ASIDE = ("choices", "document", "id")  # placeholders that neither ask nor hold what is asked about


class Parts(NamedTuple):
    """The texts of a prompt without its template: what is asked, and what it is asked about."""

    asked: list[str]
    context: list[str]


LINK = re.compile(r"https?://\S+")
_CLAUSE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？；])|\n")


def clauses(text: str) -> list[str]:
    """The sentences and lines of a text."""
    return [clause.strip() for clause in _CLAUSE.split(text) if clause.strip()]


def parts_of(question: Question) -> Parts:
    """The asked part and the context of a question.

    A source that knows them says so (`Question.asked`, `Question.context`); else they are the values in a template of
    ours.
    """
    *earlier, last = [message["content"] for message in question.prompt] or [""]
    if question.asked or question.context:
        asked, context = ([last[start:end] for start, end in spans] for spans in (question.asked, question.context))
    else:
        values = {name: value for name, value in unfill(last).items() if name not in ASIDE}
        asked = [values.pop("question")] if "question" in values else []
        context = list(values.values())
    return Parts(asked, [*earlier, *context])


def sentence_that_asks(sentences: Sequence[str]) -> int | None:
    """The index of the last sentence with a question mark."""
    return next((i for i in reversed(range(len(sentences))) if sentences[i].endswith(("?", "？"))), None)


@cache
def _wordings() -> list[tuple[list[str], list[str]]]:
    """The fixed parts and the placeholders of every text that has some, the longest text first."""
    texts = (re.split(r"\{(\w+)\}", load(path.name.removesuffix(".txt"))) for path in FOLDER.glob("*.txt"))
    split = [(text[::2], text[1::2]) for text in texts if len(text) > 1]
    return sorted(split, key=lambda text: (-sum(map(len, text[0])), text[0]))


def unfill(text: str) -> dict[str, str]:
    """Recover the values filled into a prompt text, the inverse of `fill`; `question`: the whole, if none matches."""
    for (first, *between, last), names in _wordings():
        if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
            continue
        rest, values = text[len(first) : len(text) - len(last)], []
        for part in between:
            value, separator, rest = rest.partition(part)
            if not separator:
                break
            values.append(value)
        else:
            return dict(zip(names, [*values, rest], strict=True))
    return {"question": text}


def scenarios() -> list[str]:
    """Names of Fin-R1's seven applications: `scenario_<name>.v1` is a system prompt, `…_example.v1` a question."""
    names = (path.name.removeprefix("scenario_").removesuffix(".v1.txt") for path in FOLDER.glob("scenario_*.v1.txt"))
    return sorted(name for name in names if not name.endswith("_example"))


def text_hash(name: str | None) -> str:
    """Hash a prompt text to 12 hex digits, for the lineage; empty for no prompt."""
    return hashlib.sha256(load(name).encode()).hexdigest()[:12] if name else ""


def chat(question: Question, system: str | None) -> list[Message]:
    """The messages sent to a model: the system prompt, if any, then the question's messages."""
    head = [Message(role="system", content=load(system))] if system else []
    return [*head, *question.prompt]
