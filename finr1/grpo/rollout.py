"""Sampling, grading and batching of a GRPO step: from questions to rows with advantages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from finr1.answer import grade as grade_answer
from finr1.answer import parse
from finr1.data import rows as shared
from finr1.engine.base import PolicyEngine, Request, Sampling
from finr1.grpo.advantage import Advantages, combine, overlong_penalty
from finr1.grpo.loss import Count
from finr1.grpo.settings import GrpoSettings
from finr1.model.load import checkpoint_weights
from finr1.prompt import chat
from finr1.reward.base import Reward, RewardItem
from finr1.types import Group, Question, Verdict

if TYPE_CHECKING:
    from finr1.types import Completion


class Sampler:
    """The engine as GRPO uses it: groups out, weights in. Autocast of the training step is kept away from both."""

    def __init__(self, engine: PolicyEngine, sampling: Sampling, system: str | None, dtype: str) -> None:
        self.engine, self.sampling, self.system, self.dtype = engine, sampling, system, dtype

    def rest(self) -> bool:
        """Let the engine give its memory to the trainer; True if weights must be loaded before it samples again."""
        return self.engine.rest()

    def sample(self, questions: Sequence[Question]) -> list[Group]:
        """G completions of each question. A prompt that does not fit the model is an error here, not a silent skip."""
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            answers = self.engine.generate([Request(chat(q, self.system), q) for q in questions], self.sampling)
        for question, completions in zip(questions, answers, strict=True):
            if any(c.finish_reason == "error" for c in completions):
                raise RuntimeError(f"question {question.id}: {completions[0].error}")
        return [Group(q, completions) for q, completions in zip(questions, answers, strict=True)]

    def load_weights(self, model: Any, version: str) -> None:
        """Put the policy's weights into the engine."""
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            self.engine.load_weights(checkpoint_weights(model, self.dtype), version)


class Graded(NamedTuple):
    """Groups with their verdicts, and the combined reward [P, G], NaN where a reward could not decide."""

    groups: Sequence[Group]
    rewards_PG: Tensor
    format_PG: Tensor  # the form as `finr1.answer` sees it, whatever the rewards are
    accuracy_PG: Tensor  # strictly right, NaN undecided: the task's own metric, whatever the rewards are


def grade(groups: Sequence[Group], rewards: Mapping[str, Reward], settings: GrpoSettings) -> Graded:
    """Ask every reward about every completion; `settings` say how they combine and what the last tokens cost."""
    completions = [c for g in groups for c in g.completions]
    items = [RewardItem(g.question, c.text, c.finish_reason == "length") for g in groups for c in g.completions]
    verdicts = {name: reward.grade(items) for name, reward in rewards.items()}
    values_RC = torch.tensor([[_value(v) for v in verdicts[name]] for name in rewards], dtype=torch.float64)
    weights_R = torch.tensor([reward.weight for reward in rewards.values()], dtype=torch.float64)
    total_C = combine(values_RC, weights_R, settings.combine)
    if settings.overlong_buffer_tokens:
        lengths_C = torch.tensor([len(c.token_ids) for c in completions])
        limit = settings.sampling.max_new_tokens
        total_C += settings.overlong_weight * overlong_penalty(lengths_C, limit, settings.overlong_buffer_tokens)
    size = len(groups[0].completions)
    graded = [
        Group(g.question, g.completions, {name: found[i * size : (i + 1) * size] for name, found in verdicts.items()})
        for i, g in enumerate(groups)
    ]
    parsed = [parse(item.text) for item in items]
    form = torch.tensor([float(p.well_formed and not item.truncated) for p, item in zip(parsed, items, strict=True)])
    right = torch.tensor(
        [_value(grade_answer(p.answer, item.question).strict) for p, item in zip(parsed, items, strict=True)]
    )
    shape = (len(groups), size)
    return Graded(graded, total_C.float().view(shape), form.view(shape), right.view(shape))


def _value(verdict: Verdict) -> float:
    return float("nan") if verdict.value is None else verdict.value


class Batch(NamedTuple):
    """What the loss needs: packed groups, and per completion (by number) advantage, weight and engine log-probs."""

    rows: list[list[shared.Group]]
    advantages_C: Tensor
    lengths_C: Tensor  # tokens; 0 for completions outside the loss
    sampler_logprobs: list[Tensor]
    all_tokens: int  # of every completion of the step, whether its group has spread or not
    all_completions: int

    @property
    def n_tokens(self) -> int:
        """Completion tokens in the loss."""
        return int(self.lengths_C.sum())

    def normaliser(self, count: str) -> Count:
        """The normaliser: of what enters the loss, or of `all` completions (as TRL; truncated ones if not masked)."""
        if count == "all":
            return Count(self.all_tokens, self.all_completions, self.all_tokens)
        return Count(self.n_tokens, int((self.lengths_C > 0).sum()), self.n_tokens)


def collate(groups: Sequence[Group], adv: Advantages, row_tokens: int, mask_truncated: bool) -> Batch:
    """Prompt-shared rows of the completions that enter the loss, each prompt once a row."""
    size = len(groups[0].completions)
    completions: list[Completion] = [c for g in groups for c in g.completions]
    counted = [bool(c.token_ids) and not (mask_truncated and c.finish_reason == "length") for c in completions]
    enters = [e and k for e, k in zip(adv.enters_PG.flatten().tolist(), counted, strict=True)]
    pieces: list[shared.Group] = []
    for i, group in enumerate(groups):
        numbers = [n for n in range(i * size, (i + 1) * size) if enters[n]]
        if numbers:
            prompt = group.completions[0].prompt_token_ids
            pieces.append(shared.Group(prompt, [completions[n].token_ids for n in numbers], numbers))
    inside = {n for piece in pieces for n in piece.numbers}
    lengths = torch.tensor([len(c.token_ids) if n in inside else 0 for n, c in enumerate(completions)])
    return Batch(
        rows=shared.pack(pieces, row_tokens),
        advantages_C=adv.advantages_PG.flatten(),
        lengths_C=lengths,
        sampler_logprobs=[torch.tensor(list(c.logprobs), dtype=torch.float32) for c in completions],
        all_tokens=sum(len(c.token_ids) for c, k in zip(completions, counted, strict=True) if k),
        all_completions=sum(counted),
    )
