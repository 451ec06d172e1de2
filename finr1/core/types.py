"""What flows through a run: `Question`, `Trace`, `Verdict`, `Group`; and `Completion`, an engine's answer.

All are immutable and go to JSON and back without loss (`to_json`, `from_json`). This module imports only the standard
library, so that everything may import it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self, TypedDict

# The seven criteria of Fin-R1's reasoning score (arXiv 2503.16252 v5, App. B.3), in the paper's order.
CRITERIA = (
    "internal_consistency",
    "term_overlap",
    "step_count",
    "logical_consistency",
    "diversity",
    "domain_relevance",
    "instruction_following",
)

Language = Literal["en", "zh"]
Kind = Literal["number", "choice", "yes_no", "label", "text", "code"]
Split = Literal["train", "test"]
Module = Literal["financial code", "professional knowledge", "non-reasoning business", "reasoning business"]
FinishReason = Literal["stop", "length", "error"]


class Message(TypedDict):
    """One chat message, in the form every chat template takes."""

    role: str
    content: str


class Verdict(NamedTuple):
    """What a judge or a reward says of one completion.

    `value` is None when undecided (unparseable, judge failed, timed out): None is counted and shown, never averaged,
    never turned into 0 or 1.
    """

    value: float | None
    answer: str | None = None
    why: str = ""


def stable_id(*parts: object) -> str:
    """16 hex digits that depend only on the parts: the same on every machine and in every process."""
    return hashlib.sha256(_encode(parts).encode()).hexdigest()[:16]


_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, default=str).encode  # `dumps` would make one a call


class _Json:
    """To a plain dictionary and back, for the dataclasses below."""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return cls(**{key: value for key, value in row.items() if key in known})

    @classmethod
    def needed(cls, prefix: str = "") -> list[str]:
        """The keys that a row must have, for `store.take_rows`; each after this prefix."""
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        return [prefix + f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]


@dataclass(frozen=True)
class Question(_Json):
    """One question with its gold answer.

    `document_id` names what must not straddle a split (a report page, a generated table). `prompt` holds the user
    messages only: the system prompt belongs to the run. `gold` is None where the source hides it: such rows are never
    scored. `choices` maps letter to text for `kind="choice"`; for `kind="label"` it maps label to its meaning.
    `meta` carries what a source adds (for `worked`: `program` in FinQA's DSL, `facts`, `template`).
    """

    source: str
    document_id: str
    language: Language
    module: Module
    kind: Kind
    prompt: Sequence[Message]
    gold: str | None
    split: Split = "train"
    choices: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            identity = (self.source, self.document_id, list(self.prompt), self.gold, dict(self.choices))
            object.__setattr__(self, "id", stable_id(*identity))

    @property
    def text(self) -> str:
        """The user's text: all prompt messages, joined."""
        return "\n".join(message["content"] for message in self.prompt)


@dataclass(frozen=True)
class Completion:
    """What an engine gives for one sample.

    `token_ids` and `logprobs` (natural log, of the processed distribution that was sampled) have one entry a generated
    token, the end-of-turn token included; both are empty for engines that have no tokens, `logprobs` also where nobody
    reads them (`Request.logprobs`). `finish_reason` "length" means truncated; "error" means that the call failed and
    `error` says why.
    """

    text: str
    finish_reason: FinishReason = "stop"
    token_ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()
    prompt_token_ids: Sequence[int] = ()
    reasoning: str | None = None
    error: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trace(_Json):
    """One teacher answer to one question: a row of `2_traces`. A failed call is one too (`finish_reason="error"`)."""

    question_id: str
    sample: int
    teacher: str
    reasoning: str
    answer: str
    text: str
    finish_reason: FinishReason = "stop"
    n_tokens: int = 0
    sampling: Mapping[str, Any] = field(default_factory=dict)
    prompt_hash: str = ""
    error: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            identity = (self.question_id, self.teacher, self.sample, self.text, self.error)
            object.__setattr__(self, "id", stable_id(*identity))


@dataclass(frozen=True)
class Group:
    """One question with its G sampled completions and each reward's verdicts (`verdicts[reward][g]`)."""

    question: Question
    completions: Sequence[Completion]
    verdicts: Mapping[str, Sequence[Verdict]] = field(default_factory=dict)
