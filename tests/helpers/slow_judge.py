"""A slow answer judge that logs the questions it judges, for tests that kill the filter."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from finr1.core.types import Verdict
from finr1.parts.judge.base import JudgeItem
from finr1.parts.judge.exact import Exact


class SlowExact(Exact):
    """`Exact` at 4 ms per item; writes the question's id to `log` before it returns the verdict."""

    def __init__(self, log: str, scale_tolerant: bool = True) -> None:
        super().__init__(scale_tolerant)
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]:
        for item in items:
            os.write(self._log, f"{item.question.id}\n".encode())
            time.sleep(0.004)
        return super().judge(items)
