"""Score completions by a judge model (`evaluate.scorer`), after the rules have graded them.

The judges are those of `judge.answer` that ask a model, as a cascade: each sees what the previous ones left undecided.
A row keeps the rules' verdicts and gets `judges`, one verdict per repeat (empty where the model was not asked), and
`judged`, the verdict that counts. An abstention that the judge does not call right stays undecided. Judge answers are
cached in `paths.judge_cache` per repeat, so rescoring only asks about new answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finr1.core.errors import ConfigError
from finr1.core.types import Question, Verdict
from finr1.evaluation.scores import intervals as stats
from finr1.evaluation.scores.kappa import cohen_kappa, fleiss_kappa
from finr1.evaluation.scores.rows import JudgeVerdict, ScoredCompletion
from finr1.parts.judge.base import AnswerJudge, AsksModel, JudgeItem, ask_all, decided

if TYPE_CHECKING:
    from finr1.run.context import Context


class Judging:
    """The judge models of one evaluation. ConfigError if no judge of `judge.answer` asks a model."""

    def __init__(self, ctx: Context) -> None:
        settings, parts = ctx.cfg.evaluate, ctx.parts(ctx.cfg.judge.answer)
        asking = [name for name, part in parts.items() if isinstance(part, AsksModel)]
        self.judges: dict[str, AnswerJudge] = {name: parts[name] for name in asking}
        if not self.judges:
            why = f"no judge of judge.answer=[{','.join(parts)}] asks a model"
            raise ConfigError("evaluate.scorer", settings.scorer, why, "choose judge@judge.answer=[answer_llm]")
        self.ctx, self.repeats, self.rules_first = ctx, settings.judge_repeats, settings.scorer == "rules_then_llm"

    def judge(self, rows: Sequence[ScoredCompletion], questions: Mapping[str, Question]) -> list[ScoredCompletion]:
        """Return these rows with `judges` and the `judged` fields; a failed judge call decides nothing."""
        settled = {i: verdict for i, row in enumerate(rows) if (verdict := self._by_rules(row)) is not None}
        open_rows = [i for i in range(len(rows)) if i not in settled]
        items = [JudgeItem(questions[rows[i].question_id], "", rows[i].said) for i in open_rows]
        verdicts_of: dict[int, list[JudgeVerdict]] = {i: [] for i in open_rows}
        for repeat in range(self.repeats):
            self.ctx.judge.repeat = repeat
            for i, verdicts in zip(open_rows, ask_all(self.judges, items), strict=True):
                verdict, name = decided(verdicts)
                verdicts_of[i].append(JudgeVerdict(verdict.value, verdict.why, name))
        out = []
        for i, row in enumerate(rows):
            by, verdict = ("rules", settled[i]) if i in settled else ("llm", majority(verdicts_of[i]))
            if row.abstains and verdict.value == 0:
                verdict = Verdict(None, why=row.strict_why)
            judges = verdicts_of.get(i, [])
            out.append(replace(row, judges=judges, judged=verdict.value, judged_why=verdict.why, judged_by=by))
        return out

    def _by_rules(self, row: ScoredCompletion) -> Verdict | None:
        """The rules' verdict where it counts; None where the judge model must be asked."""
        if row.failed or not (row.answer or "").strip():
            return Verdict(row.strict, why=row.strict_why)  # no answer is wrong: there is nothing to judge
        if self.rules_first and row.scaled is not None:
            return Verdict(row.scaled, why=row.scaled_why)  # tolerant of scale, as the judge's prompt is
        return None


def majority(verdicts: Sequence[JudgeVerdict]) -> Verdict:
    """Return the majority of the decided verdicts; None at a tie, or if none is decided."""
    votes = Counter(verdict.value for verdict in verdicts if verdict.value is not None)
    if not votes:
        return Verdict(None, why=verdicts[-1].why)
    ranked = votes.most_common()
    if len(ranked) > 1 and ranked[0][1] == ranked[1][1]:
        return Verdict(None, why=f"tie: {ranked[0][1]} of the judge's verdicts against {ranked[1][1]}")
    value = ranked[0][0]
    if len(verdicts) == 1:
        return Verdict(value, why=verdicts[0].why)
    return Verdict(
        value, why=f"the judge says {'right' if value else 'wrong'} in {ranked[0][1]} of {len(verdicts)} repeats"
    )


def figures(rows: Sequence[ScoredCompletion], confidence: float) -> dict[str, Any]:
    """Return how the judge model agrees with itself and with the rules (`scaled`).

    `asked`: rows sent to the model; `undecided`: those without a final verdict; `undecided_verdicts`: single repeats
    without one. `repeats`: over rows with at least two decided verdicts, the share of unanimous ones with Wilson's
    interval, and Fleiss' kappa. `rules`: `kappa.cohen_kappa` over rows decided by both (a: rules, b: model).
    """
    asked = [row for row in rows if row.judges]
    given = [[v.value for v in row.judges if v.value is not None] for row in asked]
    several = [values for values in given if len(values) > 1]
    repeats: dict[str, Any] = {"n": len(several), "unanimous": None, "low": None, "high": None, "kappa": None}
    if several:
        same = sum(len(set(values)) == 1 for values in several)
        interval = stats.wilson(same, len(several), confidence)
        _, kappa = fleiss_kappa([int(sum(values)) for values in several], [len(values) for values in several])
        repeats |= {"unanimous": same / len(several), "low": interval.low, "high": interval.high, "kappa": kappa}
    pairs = Counter((row.scaled, row.judged) for row in asked)
    cells = {"both": pairs[1, 1], "only_rules": pairs[1, 0], "only_judge": pairs[0, 1], "neither": pairs[0, 0]}
    alone = sum(n for (rule, judged), n in pairs.items() if (rule is None) != (judged is None))
    return {
        "asked": len(asked),
        "undecided": sum(row.judged is None for row in asked),
        "undecided_verdicts": sum(v.value is None for row in asked for v in row.judges),
        "repeats": repeats,
        "rules": {
            "n": sum(cells.values()),
            **cells,
            "only_one_decided": alone,
            **cohen_kappa([*cells.values()], confidence)._asdict(),
        },
    }
