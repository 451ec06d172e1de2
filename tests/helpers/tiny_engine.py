"""A policy engine over the tiny model: samples token by token, loads weights by name. Texts are token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finr1.core.files import digest
from finr1.core.types import Completion
from finr1.parts.engine.base import Adapter, OnDone, Request
from finr1.settings.sampling import Sampling
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row
from tests.helpers.tiny_model import VOCABULARY, tiny


class TinyEngine:
    """Deterministic: a sample depends on the weights, the request and the sampling only.

    Args:
        short: questions (by text) whose completions are all the same single token: groups without spread.
        stale: report weights as loaded without loading them.
        lora_sync: `adapter` loads adapters separately from the base weights.
        lacks: layers (by suffix of their name) whose adapters are not loaded.
    """

    name = "tiny"

    def __init__(
        self, short: Sequence[str] = (), stale: bool = False, lora_sync: str = "merged", lacks: str = "nothing"
    ) -> None:
        self.model = tiny()
        self.weights_version = ""
        self.weight_names: frozenset[str] = frozenset()
        self.short, self.stale = short, stale
        self.lora_sync, self.lacks, self.base_version = lora_sync, lacks, ""
        self.adapter_layers: frozenset[str] = frozenset()
        self.base: dict[str, Tensor] = {}
        self.loaded: list[str] = []  # versions of the loaded weights
        self.asked: list[list[str]] = []  # the questions by call

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        """See Engine."""
        self.asked.append([request.question.text for request in requests])
        answers = [[self._complete(request, sampling, n) for n in range(sampling.n)] for request in requests]
        for index, completions in enumerate(answers):
            if on_done:
                on_done(index, completions)
        return answers

    def _complete(self, request: Request, sampling: Sampling, sample: int) -> Completion:
        text, temperature = request.question.text, sampling.temperature or 1e-3  # nearly greedy
        prompt = [1 + int(digest([text, i]), 16) % (VOCABULARY - 1) for i in range(5)]
        generator = torch.Generator().manual_seed(int(digest([text, sample]), 16) % 2**63)
        # Lengths of both parities in every group except short ones.
        length = 1 if text in self.short else 2 + (sample + prompt[0]) % (sampling.max_new_tokens - 1)
        ids: list[int] = []
        for _ in range(length):
            with torch.no_grad():
                logits = self._logits([*prompt, *ids]) / temperature
            ids.append(7 if text in self.short else int(torch.multinomial(logits.softmax(-1), 1, generator=generator)))
        row = make_row([RowGroup(prompt, [ids], [0])])
        with torch.no_grad():
            logprobs = completion_stats(self.model, row, temperature).logprobs_N.tolist()
        return Completion(" ".join(map(str, ids)), "stop", ids, logprobs, prompt)

    def _logits(self, ids: list[int]) -> Tensor:
        row = make_row([RowGroup(ids, [[0]], [0])])
        states = self.model.base_model(
            input_ids=row.ids_T[None], position_ids=row.positions_T[None], use_cache=False, layout=row.layout
        ).last_hidden_state[0]
        return self.model.lm_head(states[row.predict_N])[0]

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], version: str) -> None:
        """See PolicyEngine."""
        taken = {name: tensor.float().clone() for name, tensor in weights}
        if not self.stale:
            self.model.load_state_dict(taken)
        self.weights_version, self.base_version, self.weight_names = version, version, frozenset(taken)
        self.base, self.adapter_layers = taken, frozenset()
        self.loaded.append(version)

    def load_adapter(self, adapter: Adapter, version: str) -> None:
        """See AdapterEngine."""
        rank, alpha = adapter.config["r"], adapter.config["lora_alpha"]
        scale = alpha / (rank**0.5 if adapter.config["use_rslora"] else rank)
        layers = frozenset(name for name in adapter.layers if not name.endswith(self.lacks))
        for name in layers:
            first, second = (adapter.weights[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
            weight = self.base[f"{name}.weight"] + scale * second.float() @ first.float()
            self.model.get_submodule(name).weight.data.copy_(weight)
        self.weights_version, self.adapter_layers = version, layers

    def logprobs_of(self, token_ids: Sequence[int]) -> list[float]:
        """See PolicyEngine."""
        with torch.no_grad():
            row = make_row([RowGroup(list(token_ids[:1]), [list(token_ids[1:])], [0])])
            scores: list[float] = completion_stats(self.model, row).logprobs_N.tolist()
        return scores

    def load_folder(self, folder: Path) -> None:
        """See PolicyEngine."""
        raise NotImplementedError

    def start(self) -> None:
        """See PolicyEngine."""

    def sleep(self) -> bool:
        """See PolicyEngine."""
        return False

    def close(self) -> None:
        """See Engine."""


def weights(model: Any) -> dict[str, Tensor]:
    """Copy the weights."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
