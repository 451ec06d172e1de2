"""Rollouts that no checkpoint covers yet: what was sampled and graded before a kill is not asked for again.

A checkpoint stands at the end of a step; a resumed run repeats the steps after it. Their completions and verdicts are
in `rollouts/<step>.jsonl`, one row per sampling round, on disk before the update begins. So a resume costs the updates
alone, and a reward that would answer differently a second time (a judge behind a server) changes nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from finr1.core.jsonl import JsonlWriter, read_jsonl
from finr1.core.types import Completion, Group, Question, Verdict

FOLDER = "rollouts"
_ROUND = ("step", "round", "weights_version", "question_ids")


class Round(NamedTuple):
    """One round of sampling, graded."""

    groups: Sequence[Group]
    failures: int  # verdicts that were lost
    seconds: Mapping[str, float]  # what sampling and grading took, by the names of their metrics


class RolloutLog:
    """The graded rounds since the oldest checkpoint that is kept, a file a step: only one step's are read at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self._step = -1
        self._rows: dict[tuple[Any, ...], dict[str, Any]] = {}  # of that step, as an earlier process left them

    def _path(self, step: int) -> Path:
        return self.folder / f"{step:08d}.jsonl"

    @staticmethod
    def _key(step: int, round: int, weights_version: str, question_ids: Sequence[str]) -> tuple[Any, ...]:
        return step, round, weights_version, tuple(question_ids)

    def take(self, step: int, round: int, version: str, asked: Sequence[Question]) -> Round | None:
        """The round of exactly these questions under these weights; None if it is not there."""
        if step != self._step:
            path = self._path(step)
            rows = read_jsonl(path) if path.exists() else ()
            self._step, self._rows = step, {self._key(**{key: row[key] for key in _ROUND}): row for row in rows}
        row = self._rows.pop(self._key(step, round, version, [q.id for q in asked]), None)
        if row is None:
            return None
        groups = [_group(question, group) for question, group in zip(asked, row["groups"], strict=True)]
        return Round(groups, row["failures"], row["seconds"])

    def put(self, step: int, round: int, version: str, done: Round) -> None:
        """Note a graded round."""
        groups = done.groups
        row = {
            "step": step,
            "round": round,
            "weights_version": version,
            "question_ids": [group.question.id for group in groups],
            "failures": done.failures,
            "seconds": dict(done.seconds),
            "groups": [_row(group) for group in groups],
        }
        with JsonlWriter(self._path(step)) as writer:
            writer.write(row)

    def forget_before(self, step: int) -> None:
        """Drop the rounds that no resume will walk again."""
        for path in self.folder.glob("*.jsonl"):
            if path < self._path(step):
                path.unlink()

    def clear(self) -> None:
        """Drop all: the stage is done."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _row(group: Group) -> dict[str, Any]:
    # Plain floats: JSON gives each back to the last bit, where a NumPy scalar would become a string.
    completions = [{**asdict(c), "logprobs": list(map(float, c.logprobs))} for c in group.completions]
    for completion in completions:
        del completion["prompt_token_ids"]
    verdicts = {
        name: [[None if v.value is None else float(v.value), v.answer, v.why] for v in found]
        for name, found in group.verdicts.items()
    }
    return {
        "prompt_token_ids": list(group.completions[0].prompt_token_ids),
        "completions": completions,
        "verdicts": verdicts,
    }


def _group(question: Question, row: dict[str, Any]) -> Group:
    prompt = row["prompt_token_ids"]
    completions = [Completion(**completion, prompt_token_ids=prompt) for completion in row["completions"]]
    return Group(question, completions, {name: [Verdict(*v) for v in found] for name, found in row["verdicts"].items()})
