"""The model judge of answers: Fin-R1's answer score (arXiv 2503.16252 v5, App. B and C)."""

from __future__ import annotations

from collections.abc import Sequence

from finr1.answer.boxes import final_answer
from finr1.core.prompt import fill
from finr1.core.types import Verdict
from finr1.parts.judge.base import JudgeItem
from finr1.parts.judge.model_judge import Ask, Judge, gold_of, places_of, read_box

_NEEDED = {"gold_answer": "the gold", "answer": "the answer"}


class AnswerLlm(Judge):
    r"""Asks the engine of role `judge` whether an answer equals the gold; undecided if no reply has a strict score.

    Args:
        prompt: template with `{gold_answer}`, `{answer}` and optionally `{question}`.
            `judge_answer_of.v1` gives rules first and omits the question, the paper's most reliable prompt (App. C, 100
            answers x 5: Qwen2.5-72B errs in 0.4%, with the question in 8.0%). The paper shows it as an image only; the
            wording is ours. `judge_answer_published.v1` is the prompt in Fin-R1's README (at 0a1c357), verbatim, with
            the question.
        retries: further queries after a reply without a score (see `model_judge`).
        max_new_tokens: limit of a reply.
        temperature: above 0 only to measure how consistent the judge is over repeats.
    """

    def __init__(
        self,
        prompt: str = "judge_answer_of.v1",
        retries: int = 2,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
    ) -> None:
        super().__init__("answer_llm", retries, max_new_tokens, temperature)
        self.prompt = prompt
        self._with_question = "question" in places_of(prompt, "judge.answer.answer_llm.prompt", _NEEDED)

    def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]:
        """Return verdicts in order, without a query for items without a gold (undecided) or an answer (wrong)."""
        answers = [final_answer(item.answer) for item in items]
        asked = [i for i, item in enumerate(items) if (item.question.gold or "").strip() and answers[i]]
        scores = dict(zip(asked, self.replies([self._ask(items[i], answers[i]) for i in asked], read_box), strict=True))
        verdicts = []
        for i, (item, answer) in enumerate(zip(items, answers, strict=True)):
            if i in scores:
                value, why = scores[i]
                why = why or f"the judge model says {'right' if value else 'wrong'}"
                verdicts.append(Verdict(value, answer, why))
            elif (item.question.gold or "").strip():
                verdicts.append(Verdict(0.0, None, "no answer"))
            else:
                verdicts.append(Verdict(None, None, "the question has no gold"))
        return verdicts

    def _ask(self, item: JudgeItem, answer: str) -> Ask:
        gold = gold_of(item.question, self._with_question)
        return Ask(fill(self.prompt, question=item.question.text, gold_answer=gold, answer=answer), item.question)
