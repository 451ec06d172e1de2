"""The model judge of reasoning: Fin-R1's seven criteria (arXiv 2503.16252 v5, App. B.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from finr1.core.errors import ConfigError
from finr1.core.prompt import fill
from finr1.core.types import CRITERIA, Verdict
from finr1.parts.judge.base import JudgeItem
from finr1.parts.judge.model_judge import ONE_BOX, Ask, Judge, gold_of, places_of, read_box

FORMS = {  # form -> default template
    "seven": "judge_reasoning_seven.v1",
    "each": "judge_reasoning_each.v1",
    "single": "judge_reasoning_published.v1",
}
_NEEDED = {"task_instruction": "the question", "reasoning": "the reasoning", "gold_answer": "the gold"}
_PLACES = {
    "seven": {"criteria": "the criteria", "reply": "the format of the reply"},
    "each": {"criterion": "one criterion"},
}
_SEVEN = "\n".join(f"{name}: \\boxed{{}}" for name in CRITERIA)
_LINE = re.compile(rf"^[ *\-\d.]*({'|'.join(CRITERIA)})[ *`]{{0,4}}: ?\\boxed\{{([01])\}}[ *.]*$", re.MULTILINE)


class ReasoningLlm(Judge):
    r"""Asks the engine of role `judge` about the reasoning; criteria without a strict score are undecided.

    The wording of `seven` and `each` is ours, as the paper shows its English prompts (Figs. 10 to 16) as images only.

    Args:
        form: `seven`: one call, with a line `<criterion>: \boxed{1|0}` per criterion, all seven or none;
            `each`: one call per criterion;
            `single`: the prompt in Fin-R1's README (at 0a1c357), verbatim: one score, used for all seven.
        prompt: another template for the form.
        retries: as in `answer_llm`.
        max_new_tokens: limit of a reply.
    """

    def __init__(
        self, form: str = "seven", prompt: str | None = None, retries: int = 2, max_new_tokens: int = 2048
    ) -> None:
        super().__init__("reasoning_llm", retries, max_new_tokens)
        key = "judge.reasoning.reasoning_llm"
        if form not in FORMS:
            raise ConfigError(f"{key}.form", form, "no such form", f"use one of {', '.join(FORMS)}")
        self.form, self.prompt = form, prompt or FORMS[form]
        places_of(self.prompt, f"{key}.prompt", {**_NEEDED, **_PLACES.get(form, {})})

    def judge(self, items: Sequence[JudgeItem]) -> list[dict[str, Verdict]]:
        """Return seven verdicts per item, in order."""
        if self.form == "seven":
            replies = self.replies([self._ask(item, reply_format=_SEVEN) for item in items], read_seven)
            return [{name: _verdict((scores or {}).get(name), why) for name in CRITERIA} for scores, why in replies]
        if self.form == "single":
            single = self.replies([self._ask(item) for item in items], read_box)
            return [dict.fromkeys(CRITERIA, _verdict(score, why)) for score, why in single]
        asks = [self._ask(item, name) for item in items for name in CRITERIA]
        each = iter(self.replies(asks, read_box))
        return [{name: _verdict(*next(each)) for name in CRITERIA} for _ in items]

    def _ask(self, item: JudgeItem, criterion: str = "", reply_format: str = ONE_BOX) -> Ask:
        domain = str(item.question.meta.get("domain") or item.question.module)
        criteria = fill("judge_criteria.v1", task_domain=domain).splitlines()
        text = fill(
            self.prompt,
            task_instruction=item.question.text,
            reasoning=item.reasoning,
            gold_answer=gold_of(item.question, with_question=True),
            task_domain=domain,
            criteria="\n".join(criteria),
            criterion=next((line for line in criteria if line.startswith(f"{criterion}:")), ""),
            reply=_SEVEN,
        )
        return Ask(text, item.question, reply_format)


def read_seven(text: str) -> dict[str, float] | None:
    """Return the score of each criterion; None unless each has exactly one line and there is no other box."""
    scores = _LINE.findall(text)
    if sorted(name for name, _ in scores) != sorted(CRITERIA) or text.count("\\boxed") != len(scores):
        return None
    return {name: float(value) for name, value in scores}


def _verdict(value: float | None, why: str) -> Verdict:
    return Verdict(value, None, why or f"the judge model says it {'holds' if value else 'fails'}")
