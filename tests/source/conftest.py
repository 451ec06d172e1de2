"""Where the real data sets are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("FINR1_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.fixture
def data_path() -> Path:
    """The folder where the real data sets are, or would be."""
    return DATA


@pytest.fixture
def data() -> Path:
    """The folder of the real data sets; skips where there is none."""
    if not DATA.is_dir():
        pytest.skip(f"no real data sets in {DATA}: set FINR1_DATA")
    return DATA
