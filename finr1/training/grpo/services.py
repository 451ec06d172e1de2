"""Services of the run that GRPO uses."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from finr1.core.ranks import ALONE, Ranks
from finr1.core.tracking import Tracker
from finr1.run.progress import Bar


class Services(NamedTuple):
    """Where a training stage writes, and how it is distributed."""

    folder: Path  # of the stage
    tracker: Tracker
    bar: Bar
    ranks: Ranks = ALONE
    seed: int = 0
