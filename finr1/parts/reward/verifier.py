"""Fin-R1's accuracy reward: a model judges whether the answer equals the gold (arXiv 2503.16252 v5, §4.2)."""

from collections.abc import Mapping, Sequence

from finr1.core.errors import ConfigError
from finr1.core.types import Verdict
from finr1.parts.engine.base import Engine
from finr1.parts.judge.base import AnswerJudge, AsksModel, JudgeItem, cascade
from finr1.parts.reward.base import RewardItem


class Verifier:
    """The verdict of a cascade of answer judges on the text of the answer; 0 without one.

    What counts as the answer is `grpo.reading`: by default the only answer block after the thinking.

    All completions of a step are judged at once. A judge that fails leaves its completion undecided, never 0.

    Args:
        judges: the run's answer judges (`judge.answer`), at least one of which asks a model. As Fin-R1, which asks
            Qwen2.5-Max about every answer: `judge@judge.answer=[answer_llm]`; with `[exact,answer_llm]` the model is
            asked only where the rule is undecided.
    """

    def __init__(self, judges: Mapping[str, AnswerJudge], weight: float = 1.0) -> None:
        if not any(isinstance(judge, AsksModel) for judge in judges.values()):
            why = f"none of [{','.join(judges)}] asks a model"
            raise ConfigError("reward.verifier.judges", "{…}", why, "choose judge@judge.answer=[exact,answer_llm]")
        self.judges, self.weight = dict(judges), weight

    def ask_through(self, engine: Engine) -> None:
        for judge in self.judges.values():
            if isinstance(judge, AsksModel):
                judge.ask_through(engine)

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        answers = [item.answer for item in items]
        answered = [i for i, answer in enumerate(answers) if answer.strip()]
        judged = cascade(self.judges, [JudgeItem(items[i].question, "", answers[i]) for i in answered])
        verdicts = [Verdict(0.0, None, "no answer block")] * len(items)
        for i, (verdict, _) in zip(answered, judged, strict=True):
            verdicts[i] = verdict
        return verdicts
