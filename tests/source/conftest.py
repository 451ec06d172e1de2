"""Where the real data sets are."""

from __future__ import annotations

from pathlib import Path

import pytest
from runner import DATA


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
