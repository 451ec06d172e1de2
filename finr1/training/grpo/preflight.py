"""Preflight before the first step: a well-formed completion with the gold answer must earn full reward.

Otherwise the same fault would grade every completion of the run, and the policy would learn it.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from finr1.answer.tags import TAGS, render
from finr1.core.errors import ConfigError
from finr1.core.prompt import chat
from finr1.core.types import Question
from finr1.parts.model.tokens import begun, prompt_ids
from finr1.parts.reward.base import Reward, RewardItem

KINDS = ("number", "choice", "yes_no", "label")  # free text and code have no single gold wording
_REASONING = {"en": "The answer follows from the question.", "zh": "由题意可得答案。"}


class Gold(NamedTuple):
    """A gold completion, as the policy would write it after the model's chat template."""

    text: str  # as the engine decodes it
    token_ids: Sequence[int]  # without the end-of-turn token


def render_gold(question: Question, tokenizer: PreTrainedTokenizerBase, system: str | None) -> Gold:
    """Render the gold completion after the templated prompt, without the tokens that the template has written."""
    start = begun(tokenizer, prompt_ids(tokenizer, chat(question, system)))
    whole = render(_REASONING[question.language], f"\\boxed{{{question.gold}}}")
    ids = tokenizer.encode(whole.removeprefix(start), add_special_tokens=False)
    return Gold(start + str(tokenizer.decode(ids, skip_special_tokens=True)), ids)


def preflight(
    questions: Sequence[Question],
    rewards: Mapping[str, Reward],
    tokenizer: PreTrainedTokenizerBase,
    system: str | None,
    max_new_tokens: int,
    n: int,
) -> int:
    """Check up to `n` questions of all kinds and sources; returns how many. ConfigError names the part at fault.

    A reward's `full` is what a perfect completion earns (default 1; None: it cannot be checked). Questions without a
    gold answer, with free text, or with code are skipped.
    """
    chosen = _spread([q for q in questions if q.kind in KINDS and q.gold and q.gold.strip()], n)
    golds = [render_gold(q, tokenizer, system) for q in chosen]
    for question, gold in zip(chosen, golds, strict=True):
        lost = next((tag for tag in TAGS if tag not in gold.text), None)
        if lost:
            why = f"its decoder drops {lost} from completions (a special token?), so no completion can be well-formed"
            raise ConfigError("model", tokenizer.name_or_path, why, "use a tokenizer that keeps the tags as text")
        if len(gold.token_ids) >= max_new_tokens:
            why = f"the gold answer of question {question.id} alone takes {len(gold.token_ids)} tokens"
            raise ConfigError("grpo.sampling.max_new_tokens", max_new_tokens, why, "raise it")
    items = [RewardItem(q, gold.text, False) for q, gold in zip(chosen, golds, strict=True)]
    for name, guarded in rewards.items():
        reward = getattr(guarded, "reward", guarded)  # the configured reward, inside its guard
        full: float | None = getattr(reward, "full", 1.0)
        for question, verdict in zip(chosen, guarded.grade(items), strict=True):
            if full is not None and verdict.value != full:
                value = "undecided" if verdict.value is None else f"{verdict.value:g} of {full:g}"
                why = f"a gold completion of question {question.id} ({question.source}) earns {value}: {verdict.why}"
                remedy = "fix the reward or the question, or set grpo.preflight_questions=0 if this is intended"
                raise ConfigError(f"reward.{name}", type(reward).__name__, why, remedy)
    return len(chosen)


def _spread(questions: Sequence[Question], n: int) -> list[Question]:
    """The first n questions, in turn from each source and kind."""
    piles: dict[tuple[str, str], list[Question]] = {}
    for question in questions:
        piles.setdefault((question.source, question.kind), []).append(question)
    return [question for turn in zip_longest(*piles.values()) for question in turn if question][:n]
