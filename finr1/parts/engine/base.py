"""What writes completions: the protocol of every engine, and the sampling settings.

An engine is asked for many requests at once and answers in the same order, `sampling.n` completions each. A failed
request is a completion with `finish_reason="error"`, never an exception that loses the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from finr1.core.types import Completion, Message, Question
from finr1.settings.sampling import Sampling

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


OnDone = Callable[[int, Sequence[Completion]], None]


@runtime_checkable
class Engine(Protocol):
    """Writes completions.

    A class may name in `operational` those of its settings that change how it is reached or how fast it works, but not
    what it is asked: a stage on disk stays valid when they change. One whose weights live in this process says
    `in_process = True`. A static `check_settings(node, key)` raises
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

    def logprobs_of(self, token_ids: Sequence[int]) -> list[float]:
        """Natural-log probability, at temperature 1, of each token but the first given those before it."""
        ...

    def sleep(self) -> bool:
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
    base_version: str  # of the weights put in last by `load_weights`; empty before, and when `sleep` has dropped them
    adapter_layers: frozenset[str]  # those of the layers that the adapter changes which the engine took

    def load_adapter(self, adapter: Adapter, version: str) -> None:
        """Sample and score with this adapter over the weights that are in, until weights or another one come."""
        ...
