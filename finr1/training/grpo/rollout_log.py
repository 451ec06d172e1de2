"""Log of the rollouts since the last checkpoint, so that a resumed run does not sample them again.

A checkpoint holds the state after a step; a resumed run repeats the steps after it. Their completions and verdicts are
in `rollouts/<step>.jsonl`, one row per sampling round, written before the update. So a resume repeats only the updates,
and a reward that would answer differently the second time (a judge behind a server) cannot change the run.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finr1.core.jsonl import JsonlWriter, read_jsonl
from finr1.core.types import Completion, Group, Question, Verdict

FOLDER = "rollouts"


class Round(NamedTuple):
    """One round of sampling and grading."""

    groups: Sequence[Group]
    failures: int  # verdicts lost because a reward hung, raised, or crashed
    seconds: Mapping[str, float]  # by metric name


class RolloutLog:
    """Rounds since the oldest kept checkpoint, one file per step; only one step is in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self._step = -1
        self._rows: list[dict[str, Any]] = []  # of that step, written by an earlier process

    def _path(self, step: int) -> Path:
        return self.folder / f"{step:08d}.jsonl"

    def take(self, step: int, round: int, version: str, questions: Sequence[Question]) -> Round | None:
        """The logged round of exactly these questions and weights; None if there is none."""
        if step != self._step:
            path = self._path(step)
            self._step, self._rows = step, list(read_jsonl(path)) if path.exists() else []
        key = _key(step, round, version, questions)
        row = next((row for row in self._rows if key == {name: row[name] for name in key}), None)
        if row is None:
            return None
        groups = [_group(question, group) for question, group in zip(questions, row["groups"], strict=True)]
        return Round(groups, row["failures"], row["seconds"])

    def put(self, step: int, round: int, version: str, graded: Round) -> None:
        row = {
            **_key(step, round, version, [group.question for group in graded.groups]),
            "failures": graded.failures,
            "seconds": dict(graded.seconds),
            "groups": [_row(group) for group in graded.groups],
        }
        with JsonlWriter(self._path(step)) as writer:
            writer.write(row)

    def forget_before(self, step: int) -> None:
        """Delete the rounds of steps that no resume will repeat."""
        for path in self.folder.glob("*.jsonl"):
            if path < self._path(step):
                path.unlink()

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _key(step: int, round: int, version: str, questions: Sequence[Question]) -> dict[str, Any]:
    """The part of a row that identifies its round."""
    return {"step": step, "round": round, "weights_version": version, "question_ids": [q.id for q in questions]}


def _row(group: Group) -> dict[str, Any]:
    # Plain floats survive JSON to the last bit; a NumPy scalar would become a string.
    completions = [{**vars(c), "logprobs": list(map(float, c.logprobs))} for c in group.completions]
    for completion in completions:
        del completion["prompt_token_ids"]
    verdicts = {
        name: [[None if v.value is None else float(v.value), v.answer, v.why] for v in of_reward]
        for name, of_reward in group.verdicts.items()
    }
    return {
        "prompt_token_ids": list(group.completions[0].prompt_token_ids),
        "completions": completions,
        "verdicts": verdicts,
    }


def _group(question: Question, row: dict[str, Any]) -> Group:
    prompt = row["prompt_token_ids"]
    completions = [Completion(**completion, prompt_token_ids=prompt) for completion in row["completions"]]
    return Group(question, completions, {name: [Verdict(*v) for v in vs] for name, vs in row["verdicts"].items()})
