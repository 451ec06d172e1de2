"""What writes completions: the protocol of every engine, and the sampling settings.

An engine is asked for many requests at once and answers in the same order, `sampling.n` completions each. A failed
request is a completion with `finish_reason="error"`, never an exception that loses the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from finr1.errors import ConfigError
from finr1.types import Completion, Message, Question

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


class Request(NamedTuple):
    """One chat to complete. The question comes along so that `engine=worked` finds its program.

    `logprobs`: whether the completion's are read; an engine may leave them out where no request of a call wants them.
    """

    messages: Sequence[Message]
    question: Question
    logprobs: bool = True


@dataclass
class Sampling:
    """How completions are drawn."""

    n: int = 1  # completions a request
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = -1  # -1: off
    max_new_tokens: int = 160
    regex: str | None = None  # structured output: the completion must match this regular expression
    repetition_penalty: float = 1.0  # above 1: what prompt or completion holds already becomes less likely; 1: off

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError("sampling.n", self.n, "at least one completion is needed", "set it to 1 or more")
        if self.temperature < 0:
            raise ConfigError("sampling.temperature", self.temperature, "it cannot be negative", "use 0 for greedy")
        if not 0 < self.top_p <= 1:
            raise ConfigError("sampling.top_p", self.top_p, "it is a probability mass", "use a value in (0, 1]")
        if self.repetition_penalty <= 0:
            raise ConfigError("sampling.repetition_penalty", self.repetition_penalty, "it divides", "use 1 for none")
        if self.max_new_tokens < 1:
            raise ConfigError("sampling.max_new_tokens", self.max_new_tokens, "no token at all", "use 1 or more")
        if self.n > 1 and self.temperature == 0:
            raise ConfigError("sampling.n", self.n, "greedy samples are all alike", "set temperature above 0, or n=1")

    def drawn_by(self) -> tuple[object, ...]:
        """What decides the draws; a setting at its neutral value is left out, so that adding one changes no seed."""
        plain = (self.n, self.temperature, self.top_p, self.top_k, self.max_new_tokens, self.regex)
        return plain if self.repetition_penalty == 1 else (*plain, self.repetition_penalty)


OnDone = Callable[[int, Sequence[Completion]], None]


@runtime_checkable
class Engine(Protocol):
    """Writes completions.

    A class may name in `operational` those of its settings that change how it is reached or how fast it works, but not
    what it is asked: a stage on disk stays valid when they change. A static `check_settings(node, key)` raises
    ConfigError for settings that cannot work; it is asked before anything starts.
    """

    name: str

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        """Complete every request; `on_done(index, completions)` is called as each one finishes, in any order."""
        ...

    def close(self) -> None:
        """Give back what the engine holds."""
        ...


@dataclass
class Spend:
    """Tokens paid for, and the prices (a million tokens) that turn them into money."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    price_in: float = 0.0
    price_out: float = 0.0

    @property
    def tokens(self) -> int:
        """Both kinds."""
        return self.prompt_tokens + self.completion_tokens

    def money(self, prompt_tokens: int | None = None, completion_tokens: int | None = None) -> float:
        """What so many tokens cost; without arguments what was spent."""
        prompt = self.prompt_tokens if prompt_tokens is None else prompt_tokens
        completion = self.completion_tokens if completion_tokens is None else completion_tokens
        return (prompt * self.price_in + completion * self.price_out) / 1e6


@runtime_checkable
class StreamEngine(Engine, Protocol):
    """An engine that takes any number of requests at once, keeps as many in flight as it may, and counts the cost.

    The first completion of a request carries what the request cost, `meta["paid"] = [prompt, completion]` tokens.
    """

    @property
    def spent(self) -> Spend:
        """What was paid up to now; a stage that resumes adds what its rows say was paid before."""
        ...

    def stream(self, requests: Iterable[Request], sampling: Sampling, on_done: OnDone) -> None:
        """Complete every request, drawn from the iterable as there is room; nothing is kept after `on_done`.

        ConfigError when a spend ceiling ends it: `on_done` has then been called for all that was answered. An
        exception of `on_done` ends it at once.
        """
        ...


@runtime_checkable
class PolicyEngine(Engine, Protocol):
    """An engine whose weights can be replaced while it lives: what GRPO samples from and evaluation reuses."""

    weights_version: str
    weight_names: frozenset[str]  # checkpoint names of the weights that were put in last; none before

    def start(self) -> None:
        """Build what the engine needs before its first request: all ranks call it, or none."""
        ...

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], version: str) -> None:
        """Put these weights (checkpoint names, whole tensors) into the engine and forget cached prefixes."""
        ...

    def score(self, token_ids: Sequence[int]) -> list[float]:
        """Natural-log probability, at temperature 1, of each token but the first given those before it."""
        ...

    def rest(self) -> bool:
        """Give the accelerator's memory to the trainer; True if so: weights must then be loaded before sampling."""
        ...

    def load_folder(self, folder: Path) -> None:
        """Put the weights of a saved model into the engine; nothing happens if they are there already."""
        ...


class Adapter(NamedTuple):
    """A low-rank adapter of linear layers in peft's form."""

    config: Mapping[str, Any]  # adapter_config.json
    weights: Mapping[str, Tensor]  # base_model.model.<layer>.lora_A.weight [r, in] and lora_B.weight [out, r]

    @property
    def layers(self) -> frozenset[str]:
        """The layers that it changes, as transformers names them."""
        names = (name.removeprefix("base_model.model.") for name in self.weights)
        return frozenset(name.rpartition(".lora_")[0] for name in names)


@runtime_checkable
class AdapterEngine(PolicyEngine, Protocol):
    """A policy engine that can take an adapter apart from the weights below it."""

    lora_sync: str  # merged: adapters come as part of the weights | adapter: apart
    base_version: str  # of the weights put in last by `load_weights`; empty before, and when `rest` has dropped them
    adapter_layers: frozenset[str]  # those of the layers that the adapter changes which the engine took

    def load_adapter(self, adapter: Adapter, version: str) -> None:
        """Sample and score with this adapter over the weights that are in, until weights or another one come."""
        ...
