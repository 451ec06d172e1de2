"""The inference engine as GRPO uses it: questions in, groups of completions out; weights in."""

from collections.abc import Sequence
from typing import Any

import torch

from finr1.core.prompt import chat
from finr1.core.types import Group, Question
from finr1.parts.engine.base import AdapterEngine, PolicyEngine, Request
from finr1.settings.sampling import Sampling
from finr1.training.grpo.canary import check_layers
from finr1.training.model.load import base_model
from finr1.training.model.weights import adapter_of, checkpoint_weights


class Sampler:
    """Samples groups of `sampling.n` and loads weights, cast to `dtype`; both outside the training step's autocast."""

    def __init__(self, engine: PolicyEngine, sampling: Sampling, system: str | None, dtype: str) -> None:
        self.engine, self.sampling, self.system, self.dtype = engine, sampling, system, dtype
        self._base: str | None = None  # the engine's version of the base weights, under the adapter

    def sample(self, questions: Sequence[Question]) -> list[Group]:
        """Sample G completions per question; RuntimeError where a prompt does not fit the model."""
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            answers = self.engine.generate([Request(chat(q, self.system), q) for q in questions], self.sampling)
        for question, completions in zip(questions, answers, strict=True):
            if any(c.finish_reason == "error" for c in completions):
                raise RuntimeError(f"question {question.id}: {completions[0].error}")
        return [Group(q, completions) for q, completions in zip(questions, answers, strict=True)]

    def load_weights(self, model: Any, version: str) -> None:
        """Load the policy's weights into the engine; with `lora_sync=adapter` only its adapter, where it has one."""
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            engine = self.engine
            if isinstance(engine, AdapterEngine) and engine.lora_sync == "adapter" and base_model(model) is not model:
                self._load_adapter(engine, model, version)
            else:
                engine.load_weights(checkpoint_weights(model, self.dtype), version)

    def _load_adapter(self, engine: AdapterEngine, model: Any, version: str) -> None:
        """Load the base weights only where the engine lacks them: the first time, and after it has slept."""
        adapter = adapter_of(model, self.dtype)
        if not engine.base_version or engine.base_version != self._base:
            self._base = f"below {version}"
            engine.load_weights(checkpoint_weights(model, self.dtype, merged=False), self._base)
        engine.load_adapter(adapter, version)
        check_layers(adapter.layers, engine.adapter_layers)
