"""The ledger of a stage's calls to one engine: how many were asked and failed, and what a server charges for them.

A call is in the file before it is sent, as an answer of unknown cost; a reply replaces that by its cost, a refusal
removes it. So the sum over the lines is right after a kill too, and a spend ceiling holds over restarts. An answer of
unknown cost (lost on the way, or in flight at a kill) counts as its prompt and the mean completion so far; before any
answer as `GUESS` of its longest completion. Under a ceiling it also reserves what it may have cost beyond that.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from finr1.core.jsonl import JsonlWriter, read_jsonl

MARGIN = 3.0  # standard errors that a ceiling reserves for answers of unknown cost
GUESS = 0.5  # expected completion before any is known, as a share of `max_new_tokens`


class Tokens(NamedTuple):
    """Tokens that a server charges for."""

    prompt: int = 0
    completion: int = 0


NOTHING = Tokens()


class Call(NamedTuple):
    """A request to a server: the answers it asks for, an estimate of its prompt, and its longest completion, in tokens
    (of all its answers together)."""

    answers: int
    prompt: int
    longest: int


@dataclass
class Account:
    """Calls and tokens so far. `estimated` and `lost_estimated` are prompt tokens as estimated before the answer."""

    asked: int = 0
    failed: int = 0
    calls: int = 0  # whose cost is known
    answers: int = 0  # of these calls
    prompt: int = 0
    completion: int = 0
    squares: int = 0  # Σ completion² / answers over calls
    estimated: int = 0
    lost: int = 0  # answers of unknown cost
    lost_estimated: int = 0
    lost_longest: int = 0

    def add(self, changes: Mapping[str, int]) -> None:
        """Change these counts."""
        for name, change in changes.items():
            setattr(self, name, getattr(self, name) + change)

    def expected(self, call: Call) -> Tokens:
        """What a call will cost: by the answers so far, else its estimated prompt and `GUESS` of the longest."""
        if not self.answers:
            return Tokens(call.prompt, round(GUESS * call.longest))
        prompt = call.prompt * self.prompt / self.estimated if self.estimated else call.prompt
        return Tokens(round(prompt), round(call.answers * self.completion / self.answers))

    @property
    def paid(self) -> Tokens:
        """All that is charged, answers of unknown cost included."""
        lost = self.expected(Call(self.lost, self.lost_estimated, self.lost_longest))
        return Tokens(self.prompt + lost.prompt, self.completion + lost.completion)

    @property
    def at_most(self) -> Tokens:
        """`paid`, with what answers of unknown cost may have cost beyond the estimate; at first their longest."""
        paid, longest = self.paid, self.completion + self.lost_longest
        if not (self.lost and self.answers):
            return Tokens(paid.prompt, max(paid.completion, longest))
        mean, per_call = self.completion / self.answers, self.answers / self.calls
        prior = (self.lost_longest / self.lost) ** 2 / 12  # variance of a uniform length, worth one call
        variance = per_call * (self.squares / self.answers - mean**2) + prior / self.calls
        margin = MARGIN * math.sqrt(max(variance, 0.0) * self.lost * (1 + self.lost / self.answers))
        return Tokens(paid.prompt, max(paid.completion, min(longest, paid.completion + round(margin))))

    @property
    def counts(self) -> dict[str, int]:
        """`paid`, as a stage counts it; empty if nothing is charged."""
        prompt, completion = self.paid
        return {"paid_prompt_tokens": prompt, "paid_completion_tokens": completion} if prompt or completion else {}


class Ledger:
    """An account kept in a file, a line for each change; in memory without a path. Thread-safe; processes share a file.

    `account` lacks the calls in flight and what other processes add: a new ledger reads them.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path, self.account, self._lock = path, Account(), Lock()
        if path and path.exists():
            with JsonlWriter(path):
                pass  # removes a torn line
            for row in read_jsonl(path):
                self.account.add(row)

    def asked(self, failed: bool) -> None:
        """Count a call with its outcome."""
        self._change({"asked": 1, "failed": int(failed)})

    def send(self, call: Call) -> None:
        """Note that this call is sent now."""
        self._append(_open(call))

    def answered(self, call: Call, tokens: Tokens, answers: int) -> Tokens:
        """Replace the estimates of a sent call by its cost."""
        answers = max(answers, 1)
        known = {"calls": 1, "answers": answers, "estimated": call.prompt, **tokens._asdict()}
        known["squares"] = tokens.completion**2 // answers
        self._change(known, {name: -count for name, count in _open(call).items()})
        return tokens

    def refused(self, call: Call) -> Tokens:
        """A sent call costs nothing."""
        self._append({name: -count for name, count in _open(call).items()})
        return NOTHING

    def lost(self, call: Call) -> Tokens:
        """The answer to a sent call is lost: it may be charged. Returns the estimate."""
        with self._lock:
            self.account.add(_open(call))
            return self.account.expected(call)

    def _change(self, changes: Mapping[str, int], on_file: Mapping[str, int] | None = None) -> None:
        with self._lock:
            self.account.add(changes)
        self._append({**changes, **(on_file or {})})

    def _append(self, changes: Mapping[str, int]) -> None:
        if self.path is None:
            return
        line = json.dumps({name: change for name, change in changes.items() if change}) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)


def _open(call: Call) -> dict[str, int]:
    """The counts of a call of unknown cost."""
    return {"lost": call.answers, "lost_estimated": call.prompt, "lost_longest": call.longest}
