"""The data types of a run: `Question`, `Completion`, `Trace`, `Verdict`, `Group`. All are immutable."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self, TypedDict

from finr1.core.files import digest

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
    """One chat message, in the format that chat templates take."""

    role: str
    content: str


class Verdict(NamedTuple):
    """The decision of a judge or a reward on one completion.

    `value` is None when undecided (unparseable, judge failed, timed out). None is counted and reported, never averaged
    and never turned into 0 or 1.
    """

    value: float | None
    answer: str | None = None
    why: str = ""


def stable_id(*parts: object) -> str:
    """Hash the parts to an id of 16 hex digits, the same on every machine."""
    return digest(parts)


class _Json:
    """Conversion of a dataclass to a plain dictionary and back, without loss."""

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return cls(**{key: value for key, value in row.items() if key in known})

    @classmethod
    def needed(cls, prefix: str = "") -> list[str]:
        """The keys that a row must have (fields without a default), each after this prefix; for `read_jsonl`."""
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        return [prefix + f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]


@dataclass(frozen=True)
class Question(_Json):
    """One question with its gold answer.

    `document_id` names the unit that train and test must not share (a report page, a generated table). `prompt` holds
    the user messages only: the system prompt belongs to the run. `gold` is None where the source hides it; such rows
    are never scored. `choices` maps letter to text for `kind="choice"`, and label to its meaning for `kind="label"`.
    `asked` and `context` are [start, end] in the last message: what is asked, and what it is asked about (a report
    page, a tweet); the rest is the template. Both are empty where the source does not know (see `prompt.parts_of`).
    `meta` carries what a source adds (for `worked`: `program` in FinQA's DSL, `facts`, `template`). Two keys say how a
    number is graded: `tolerance`, the precision of the gold (`exact`; `shown`, half of the last digit shown; a relative
    difference; left out: an integer is exact, another number as shown), and `unit`, that of a bare figure.
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
    asked: Sequence[Sequence[int]] = field(default_factory=list)
    context: Sequence[Sequence[int]] = field(default_factory=list)
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
    """One sampled answer of an engine.

    `token_ids` and `logprobs` (natural log, of the distribution that was sampled: temperature and top-p included) have
    one entry per generated token, the end-of-turn token included; both are empty for engines that return no tokens,
    `logprobs` also where they were not requested (`Request.logprobs`). `finish_reason` "length" means truncated;
    "error" means that the call failed for the reason in `error`.
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
