r"""Query a judge model until its reply can be parsed; parse `\boxed{1}` and `\boxed{0}` strictly.

At temperature 0 the same prompt gets the same reply, so a retry continues the conversation: it quotes the end of the
reply and repeats the requested format. Each prompt of this chain follows from the previous one, so that a repeated run
finds all of them in the cache. A truncated reply has no score, as its conclusion is unknown. Failed calls are not
retried here: the engine retries them (`retries` of `conf/engine/http.yaml`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from finr1.answer.boxes import final_answer
from finr1.core.errors import ConfigError
from finr1.core.prompt import fill, load
from finr1.core.types import Message, Question
from finr1.parts.engine.base import Engine, Request
from finr1.settings.sampling import Sampling

ONE_BOX = r"\boxed{1} or \boxed{0}"
QUOTED = 1000  # characters of a reply, from its end, that a retry quotes
_BOX = re.compile(r"\\boxed\{([01])\}")
T = TypeVar("T")


class Ask(NamedTuple):
    """A prompt, its question, and the required format of the reply, which a retry repeats."""

    text: str
    question: Question
    reply_format: str = ONE_BOX


class Judge:
    """Base of the judges that query a model: the engine, the sampling, and the retries."""

    def __init__(self, name: str, retries: int, max_new_tokens: int, temperature: float = 0.0) -> None:
        self.name = name
        if retries < 0:
            raise ConfigError(f"judge.{name}.retries", retries, "must be at least 0", "use 0 or more")
        self.retries = retries
        self.sampling = Sampling(n=1, temperature=temperature, max_new_tokens=max_new_tokens)
        self._engine: Engine | None = None

    def ask_through(self, engine: Engine) -> None:
        """See `AsksModel`."""
        self._engine = engine

    def replies(self, asks: Sequence[Ask], parse: Callable[[str], T | None]) -> list[tuple[T | None, str]]:
        """Query all prompts at once; returns what `parse` returns for each reply, or (None, why) if none parsed."""
        if self._engine is None:
            raise ConfigError("engine.judge", None, f"{self.name} asks a model", "choose engine@engine.judge=http")
        chats = [[Message(role="user", content=ask.text)] for ask in asks]
        results: list[tuple[T | None, str]] = [(None, "")] * len(asks)
        pending = list(range(len(asks)))
        for attempt in range(1, self.retries + 2):
            requests = [Request(chats[i], asks[i].question) for i in pending]
            retry = []
            for i, (reply,) in zip(pending, self._engine.generate(requests, self.sampling), strict=True):
                if reply.finish_reason == "error":
                    results[i] = None, f"the judge's call failed: {reply.error}"
                    continue
                truncated = reply.finish_reason == "length"
                value = None if truncated else parse(reply.text.rpartition("</think>")[2])
                if value is not None:
                    results[i] = value, ""
                    continue
                what = "the judge's reply was truncated" if truncated else "no score in the judge's reply"
                results[i] = None, f"{what} ({attempt} {'reply' if attempt == 1 else 'replies'})"
                quoted = Message(role="assistant", content=reply.text[-QUOTED:] or "-")
                reminder = Message(role="user", content=fill("judge_retry.v1", form=asks[i].reply_format))
                chats[i] = [*chats[i], quoted, reminder]
                retry.append(i)
            pending = retry
            if not pending:
                break
        return results


def read_box(text: str) -> float | None:
    r"""Return 1.0 or 0.0 if the last box is exactly `\boxed{1}` or `\boxed{0}`; else None.

    An echo of the requested format (`\boxed{1} or \boxed{0}`) is not a score, nor are two boxes that disagree on one
    line.
    """
    text = text.replace(ONE_BOX, "")
    match = _BOX.match(text, max(text.rfind("\\boxed"), 0))
    return float(match[1]) if match and final_answer(text) == match[1] else None


def gold_of(question: Question, with_question: bool) -> str:
    """Return the gold for the prompt; without the question, with its option texts or its unit added."""
    gold = question.gold or ""
    if with_question:
        return gold
    options = "; ".join(f"{key}: {text}" for key, text in question.choices.items() if key in _keys(gold, question))
    unit = str(question.meta.get("unit", "")).strip()
    note = options or (f"in {unit}" if unit and unit not in gold else "")
    return f"{gold} ({note})" if note else gold


def _keys(gold: str, question: Question) -> set[str]:
    """Return the option keys in a gold such as `B`, `ABD` or `A,C`; a label is one key."""
    letters = re.sub(r"[\s,、;]", "", gold)
    if gold.strip() in question.choices:
        return {gold.strip()}
    return set(letters) if set(letters) <= {*question.choices} else set()


def places_of(template: str, key: str, needed: Mapping[str, str]) -> set[str]:
    """Return the placeholders of a template; ConfigError if one of the `needed` ones is missing."""
    places = set(re.findall(r"\{([a-z_]+)\}", load(template, key)))
    for name, what in needed.items():
        if name not in places:
            raise ConfigError(key, template, f"it has no placeholder {{{name}}} for {what}", "use a template of judges")
    return places
