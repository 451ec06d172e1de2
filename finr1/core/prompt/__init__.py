"""Versioned prompt texts (`<name>.v<n>.txt` beside this file), and the chat messages of a question."""

import hashlib
import re
from functools import cache
from pathlib import Path

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
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)


@cache
def _wordings() -> list[list[str]]:
    """The fixed parts of every text with placeholders, the longest text first."""
    texts = (load(path.name.removesuffix(".txt")) for path in FOLDER.glob("*.txt"))
    parts = [re.split(r"\{\w+\}", text) for text in texts]
    return sorted((p for p in parts if len(p) > 1), key=lambda p: (-sum(map(len, p)), p))


def unfill(text: str) -> list[str]:
    """Recover the values filled into a prompt text, the inverse of `fill`; the whole text if no template matches."""
    for first, *between, last in _wordings():
        if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
            continue
        rest, values = text[len(first) : len(text) - len(last)], []
        for part in between:
            value, separator, rest = rest.partition(part)
            if not separator:
                break
            values.append(value)
        else:
            return [*values, rest]
    return [text]


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
