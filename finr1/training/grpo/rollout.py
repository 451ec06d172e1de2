"""Sampling, grading and batching of a GRPO step: from questions to rows with advantages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from finr1.answer.grade import grade as grade_answer
from finr1.answer.tags import parse
from finr1.core.prompt import chat
from finr1.core.types import Group, Question, Verdict
from finr1.parts.engine.base import AdapterEngine, PolicyEngine, Request
from finr1.parts.reward.base import Reward, RewardItem
from finr1.settings.grpo import GrpoSettings
from finr1.settings.sampling import Sampling
from finr1.training.grpo.advantage import Advantages, combine, overlong_penalty
from finr1.training.grpo.canary import check_layers
from finr1.training.grpo.loss import Count
from finr1.training.model.load import base_model
from finr1.training.model.weights import adapter_of, checkpoint_weights
from finr1.training.rows.rows import RowGroup, pack

if TYPE_CHECKING:
    from finr1.core.types import Completion


class Sampler:
    """The engine as GRPO uses it: groups out, weights in. Autocast of the training step is kept away from both."""

    def __init__(self, engine: PolicyEngine, sampling: Sampling, system: str | None, dtype: str) -> None:
        self.engine, self.sampling, self.system, self.dtype = engine, sampling, system, dtype
        self._base: str | None = None  # the engine's version of the weights below the adapter

    def sleep(self) -> bool:
        """Let the engine give its memory to the trainer; True if weights must be loaded before it samples again."""
        return self.engine.sleep()

    def sample(self, questions: Sequence[Question]) -> list[Group]:
        """G completions of each question. A prompt that does not fit the model is an error here, not a silent skip."""
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            answers = self.engine.generate([Request(chat(q, self.system), q) for q in questions], self.sampling)
        for question, completions in zip(questions, answers, strict=True):
            if any(c.finish_reason == "error" for c in completions):
                raise RuntimeError(f"question {question.id}: {completions[0].error}")
        return [Group(q, completions) for q, completions in zip(questions, answers, strict=True)]

    def load_weights(self, model: Any, version: str) -> None:
        """Put the policy's weights into the engine; an engine with `lora_sync=adapter` gets a model's adapter apart."""
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            engine = self.engine
            if isinstance(engine, AdapterEngine) and engine.lora_sync == "adapter" and base_model(model) is not model:
                self._load_adapter(engine, model, version)
            else:
                engine.load_weights(checkpoint_weights(model, self.dtype), version)

    def _load_adapter(self, engine: AdapterEngine, model: Any, version: str) -> None:
        """The weights below the adapter only where the engine lacks them: at first, and when it has slept."""
        adapter = adapter_of(model, self.dtype)
        if not engine.base_version or engine.base_version != self._base:
            self._base = f"below {version}"
            engine.load_weights(checkpoint_weights(model, self.dtype, merged=False), self._base)
        engine.load_adapter(adapter, version)
        check_layers(adapter.layers, engine.adapter_layers)


class Graded(NamedTuple):
    """Groups with their verdicts, and the combined reward [P, G], NaN where a reward could not decide."""

    groups: Sequence[Group]
    rewards_PG: Tensor
    format_PG: Tensor  # the form as `finr1.answer` sees it, whatever the rewards are
    accuracy_PG: Tensor  # strictly right, NaN undecided: the task's own metric, whatever the rewards are


def grade_groups(groups: Sequence[Group], rewards: Mapping[str, Reward]) -> list[Group]:
    """The groups with every reward's verdicts on every completion."""
    if not groups:
        return []
    items = [RewardItem(g.question, c.text, c.finish_reason == "length") for g in groups for c in g.completions]
    verdicts = {name: reward.grade(items) for name, reward in rewards.items()}
    size = len(groups[0].completions)
    return [
        Group(g.question, g.completions, {name: found[i * size : (i + 1) * size] for name, found in verdicts.items()})
        for i, g in enumerate(groups)
    ]


def combine_rewards(groups: Sequence[Group], rewards: Mapping[str, Reward], settings: GrpoSettings) -> Graded:
    """One reward a completion from the verdicts, and the task's own metrics."""
    completions = [c for g in groups for c in g.completions]
    values_RC = torch.tensor([[_value(v) for g in groups for v in g.verdicts[r]] for r in rewards], dtype=torch.float64)
    weights_R = torch.tensor([reward.weight for reward in rewards.values()], dtype=torch.float64)
    total_C = combine(values_RC, weights_R, settings.combine)
    if settings.overlong_buffer_tokens:
        lengths_C = torch.tensor([len(c.token_ids) for c in completions])
        limit = settings.sampling.max_new_tokens
        total_C += settings.overlong_weight * overlong_penalty(lengths_C, limit, settings.overlong_buffer_tokens)
    parsed = [parse(c.text) for c in completions]
    form = torch.tensor(
        [float(p.well_formed and c.finish_reason != "length") for p, c in zip(parsed, completions, strict=True)]
    )
    asked = [g.question for g in groups for _ in g.completions]
    right = torch.tensor([_value(grade_answer(p.answer, q).strict) for p, q in zip(parsed, asked, strict=True)])
    shape = (len(groups), len(groups[0].completions))
    return Graded(groups, total_C.float().view(shape), form.view(shape), right.view(shape))


def _value(verdict: Verdict) -> float:
    return float("nan") if verdict.value is None else verdict.value


def join(graded: Graded | None, more: Graded) -> Graded:
    """Both rounds' groups, in the order they were asked."""
    if graded is None:
        return more
    tensors = (torch.cat([one, other]) for one, other in zip(graded[1:], more[1:], strict=True))
    return Graded([*graded.groups, *more.groups], *tensors)


def refill(spread_P: Tensor, wanted: int, spare: Sequence[Question]) -> Sequence[Question]:
    """Dynamic sampling (DAPO, arXiv 2503.14476 §3.2): what to ask next; nothing once `wanted` groups have spread.

    `spread_P` is of all groups asked so far, `spare` the step's further questions in their order. As many are asked as
    would do at the share of groups with spread seen so far, at most `wanted`: the same for the same step, always.
    """
    found, asked = int(spread_P.sum()), len(spread_P)
    n = 0 if found >= wanted else wanted if found == 0 else min(wanted, -(-(wanted - found) * asked // found))
    taken = asked - wanted
    return spare[taken : taken + n]


class Batch(NamedTuple):
    """What the loss needs: packed groups, and per completion (by number) advantage, weight and engine log-probs."""

    shares: list[list[list[RowGroup]]]  # the rows of each optimiser step
    advantages_C: Tensor
    lengths_C: Tensor  # tokens; 0 for completions outside the loss
    sampler_logprobs: list[Tensor]
    all_tokens: int  # of every completion of the step, whether its group has spread or not
    all_completions: int

    @property
    def n_tokens(self) -> int:
        """Completion tokens in the loss."""
        return int(self.lengths_C.sum())

    def normaliser(self, share: list[list[RowGroup]], count: str) -> Count:
        """Of one optimiser step: what enters the loss, or `all` completions (as TRL; truncated ones if not masked)."""
        n = len(self.shares)
        if count == "all":
            return Count(self.all_tokens / n, self.all_completions / n, self.all_tokens / n)
        own = sum(len(ids) for groups in share for group in groups for ids in group.completions)
        return Count(self.n_tokens / n, int((self.lengths_C > 0).sum()) / n, own)


def collate(groups: Sequence[Group], adv: Advantages, settings: GrpoSettings, seed: int = 0) -> Batch:
    """Prompt-shared rows of the completions that enter the loss, each prompt once a row.

    With several updates a rollout the groups are shuffled by `seed` and dealt out: each optimiser step gets its share
    (DAPO §4.1: 16 a rollout). Every completion is used once, so that training costs what one step would; walking the
    whole batch again for every update would cost a multiple. A group stays whole. No update is without a group.
    """
    size = len(groups[0].completions)
    completions: list[Completion] = [c for g in groups for c in g.completions]
    masked = settings.mask_truncated
    counted = [bool(c.token_ids) and not (masked and c.finish_reason == "length") for c in completions]
    enters = [e and k for e, k in zip(adv.enters_PG.flatten().tolist(), counted, strict=True)]
    pieces: list[RowGroup] = []
    for i, group in enumerate(groups):
        numbers = [n for n in range(i * size, (i + 1) * size) if enters[n]]
        if numbers:
            prompt = group.completions[0].prompt_token_ids
            pieces.append(RowGroup(prompt, [completions[n].token_ids for n in numbers], numbers))
    inside = {n for piece in pieces for n in piece.numbers}
    lengths = torch.tensor([len(c.token_ids) if n in inside else 0 for n, c in enumerate(completions)])
    n_updates = min(settings.updates_per_rollout, len(pieces))
    if n_updates > 1:
        order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(seed)).tolist()
        pieces = [pieces[i] for i in order]
    return Batch(
        shares=[pack(pieces[i::n_updates], settings.row_tokens) for i in range(n_updates)],
        advantages_C=adv.advantages_PG.flatten(),
        lengths_C=lengths,
        sampler_logprobs=[torch.tensor(list(c.logprobs), dtype=torch.float32) for c in completions],
        all_tokens=sum(len(c.token_ids) for c, k in zip(completions, counted, strict=True) if k),
        all_completions=sum(counted),
    )
