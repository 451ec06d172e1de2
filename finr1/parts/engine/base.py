"""Protocols of the engines, which generate completions.

An engine completes a batch of requests and returns `sampling.n` completions per request, in the order of the requests.
A failed request is returned as a completion with `finish_reason="error"`; it never raises, which would lose the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from finr1.core.types import Completion, Message, Question
from finr1.parts.engine.ledger import Ledger
from finr1.settings.sampling import Sampling

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


class Request(NamedTuple):
    """One chat to complete, with its question (`engine=worked` needs the question's program).

    `logprobs`: whether the caller reads the completion's log-probs; an engine may omit them if no request needs them.
    """

    messages: Sequence[Message]
    question: Question
    logprobs: bool = True


OnDone = Callable[[int, Sequence[Completion]], None]


@runtime_checkable
class Engine(Protocol):
    """Generates completions.

    Optional class attributes: `operational` names the settings that affect only how the engine is reached or how fast
    it works, so that changing them keeps finished stages valid; `in_process = True` marks an engine whose weights are
    in this process; a static method `check_settings(node, key)` raises ConfigError for invalid settings, before any
    stage starts.
    """

    name: str

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        """Complete every request; `on_done(index, completions)` is called as each one finishes, in any order."""
        ...

    def close(self) -> None:
        """Release the engine's resources."""
        ...


@runtime_checkable
class StreamEngine(Engine, Protocol):
    """An engine that draws requests from an iterable, limits those in flight, and counts the cost.

    The first completion of a request holds its cost: `meta["paid"] = [prompt, completion]` tokens.
    """

    ledger: Ledger  # where its calls are charged: a stage sets its own, which has the cost of earlier attempts

    @property
    def money(self) -> float:
        """The cost in the ledger at this engine's prices."""
        ...

    def stream(self, requests: Iterable[Request], sampling: Sampling, on_done: OnDone) -> None:
        """Complete every request, drawn from the iterable when there is capacity; results go to `on_done` only.

        Raises ConfigError at the spend ceiling, after `on_done` was called for every answered request. An exception
        raised by `on_done` stops the stream.
        """
        ...


@runtime_checkable
class PolicyEngine(Engine, Protocol):
    """An engine whose weights can be replaced: GRPO samples from it, and evaluation reuses it."""

    weights_version: str
    weight_names: frozenset[str]  # checkpoint names of the weights loaded last; empty before the first load

    def start(self) -> None:
        """Build the engine before its first request. Collective: all ranks call it, or none."""
        ...

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], version: str) -> None:
        """Load weights (checkpoint names, unsharded tensors) and clear the prefix cache."""
        ...

    def logprobs_of(self, token_ids: Sequence[int]) -> list[float]:
        """Return the log-probability (natural, temperature 1) of each token after the first, given its prefix."""
        ...

    def sleep(self) -> bool:
        """Free GPU memory for the trainer. Returns True if weights must be loaded again before sampling."""
        ...

    def load_folder(self, folder: Path) -> None:
        """Load the weights of a saved model, unless they are already loaded."""
        ...


class Adapter(NamedTuple):
    """A LoRA adapter of linear layers, in peft's format."""

    config: Mapping[str, Any]  # adapter_config.json
    weights: Mapping[str, Tensor]  # base_model.model.<layer>.lora_A.weight [r, in] and lora_B.weight [out, r]

    @property
    def layers(self) -> frozenset[str]:
        """The adapted layers, by their names in transformers."""
        names = (name.removeprefix("base_model.model.") for name in self.weights)
        return frozenset(name.rpartition(".lora_")[0] for name in names)


@runtime_checkable
class AdapterEngine(PolicyEngine, Protocol):
    """A policy engine that can load an adapter separately from the base weights."""

    lora_sync: str  # merged: adapters are merged into the weights | adapter: they are loaded separately
    base_version: str  # version of the last `load_weights`; empty before it, and after `sleep` dropped the weights
    adapter_layers: frozenset[str]  # the adapted layers that the engine accepted

    def load_adapter(self, adapter: Adapter, version: str) -> None:
        """Apply this adapter to the loaded weights until other weights or another adapter are loaded."""
        ...
