r"""Asking a judge model until its reply can be read, and reading `\boxed{1}` and `\boxed{0}` strictly.

The temperature is 0, so the same prompt would get the same reply: a retry goes on with the conversation instead. The
model sees the end of what it said and is told which form was asked for. Every prompt of this chain follows from the one
before, so that all of them are found in the cache again. A reply that was cut at the length limit is no reply: what it
would have concluded is not known. A failed call is not asked again here, for the engine has tried (`retries` of
`conf/engine/http.yaml`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from finr1.core.errors import ConfigError
from finr1.core.prompt import fill, load
from finr1.core.types import Message, Question
from finr1.parts.engine.base import Engine, Request
from finr1.settings.sampling import Sampling

ONE_BOX = r"\boxed{1} or \boxed{0}"
SHOWN_AGAIN = 1000  # characters of a reply, its last ones, that a retry quotes
_BOX = re.compile(r"\\boxed\{([01])\}")
_Read = TypeVar("_Read")


class Ask(NamedTuple):
    """A prompt, the question it is about, and the form that a reply must have (for the words of a retry)."""

    text: str
    question: Question
    form: str = ONE_BOX


class Judge:
    """What judges that ask a model share: the engine, once it is given, and how it is asked."""

    def __init__(self, name: str, retries: int, max_new_tokens: int, temperature: float = 0.0) -> None:
        self.name = name
        if retries < 0:
            raise ConfigError(f"judge.{name}.retries", retries, "a count cannot be negative", "use 0 or more")
        self.retries = retries
        self.sampling = Sampling(n=1, temperature=temperature, max_new_tokens=max_new_tokens)
        self._engine: Engine | None = None

    def ask_through(self, engine: Engine) -> None:
        """See `AsksModel`."""
        self._engine = engine

    def replies(self, asks: Sequence[Ask], read: Callable[[str], _Read | None]) -> list[tuple[_Read | None, str]]:
        """What `read` makes of each reply, all asked at once; (None, why) where no reply could be read."""
        if self._engine is None:
            raise ConfigError("engine.judge", None, f"{self.name} asks a model", "choose engine@engine.judge=http")
        chats = [[Message(role="user", content=ask.text)] for ask in asks]
        found: list[tuple[_Read | None, str]] = [(None, "")] * len(asks)
        todo = list(range(len(asks)))
        for attempt in range(1, self.retries + 2):
            requests = [Request(chats[i], asks[i].question) for i in todo]
            again = []
            for i, (reply,) in zip(todo, self._engine.generate(requests, self.sampling), strict=True):
                if reply.finish_reason == "error":
                    found[i] = None, f"the judge's call failed: {reply.error}"
                    continue
                cut = reply.finish_reason == "length"
                value = None if cut else read(reply.text.rpartition("</think>")[2])
                if value is not None:
                    found[i] = value, ""
                    continue
                what = "the judge's reply was cut" if cut else "no score could be read"
                found[i] = None, f"{what} ({attempt} {'reply' if attempt == 1 else 'replies'})"
                said = Message(role="assistant", content=reply.text[-SHOWN_AGAIN:] or "-")
                told = Message(role="user", content=fill("judge_retry.v1", form=asks[i].form))
                chats[i] = [*chats[i], said, told]
                again.append(i)
            todo = again
            if not todo:
                break
        return found


def read_box(text: str) -> float | None:
    r"""1.0 or 0.0 if the last box is exactly `\boxed{1}` or `\boxed{0}`; else None.

    An echo of the form that was asked for (`\boxed{1} or \boxed{0}`) is no score.
    """
    text = text.replace(ONE_BOX, "")
    match = _BOX.match(text, max(text.rfind("\\boxed"), 0))
    return float(match[1]) if match else None


def gold_of(question: Question, with_question: bool) -> str:
    """The gold as a judge is shown it; where it does not see the question, with what only the question would say."""
    gold = question.gold or ""
    if with_question:
        return gold
    meanings = "; ".join(f"{key}: {text}" for key, text in question.choices.items() if key in _keys(gold, question))
    unit = str(question.meta.get("unit", "")).strip()
    more = meanings or (f"in {unit}" if unit and unit not in gold else "")
    return f"{gold} ({more})" if more else gold


def _keys(gold: str, question: Question) -> set[str]:
    """The options that a gold names: `B`, `ABD`, `A,C`; a label whole."""
    plain = re.sub(r"[\s,、;]", "", gold)
    if gold.strip() in question.choices:
        return {gold.strip()}
    return set(plain) if set(plain) <= {*question.choices} else set()


def places_of(template: str, key: str, needed: Mapping[str, str]) -> set[str]:
    """The `{places}` of a template; ConfigError where one that it needs is not there."""
    places = set(re.findall(r"\{([a-z_]+)\}", load(template, key)))
    for name, what in needed.items():
        if name not in places:
            raise ConfigError(key, template, f"it has no place for {what} ({{{name}}})", "use a template of judges")
    return places
