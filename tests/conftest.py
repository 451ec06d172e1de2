"""What several test files share."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.helpers import runner

# A clean checkout's result must not hang on luck: the same examples each time, and none from a database. The deep ones,
# at random, are `make fuzz`'s, or `pytest --hypothesis-profile=deep <files>`.
settings.register_profile("plain", derandomize=True, database=None, deadline=None)
settings.register_profile("deep", max_examples=20_000, deadline=None)
settings.load_profile("plain")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `-n 2 --dist loadgroup`: what looks at `tiny_run` is the longest group and starts first; files stay whole."""
    for item in items:
        shared = "tiny_run" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("tiny_run" if shared else str(item.path)))
    items.sort(key=lambda item: "tiny_run" not in getattr(item, "fixturenames", ()))


def pytest_collection_finish() -> None:
    """What imports have left (a million objects of torch and others) is not walked at every collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def finr1(tmp_path: Path) -> runner.Runner:
    """`finr1("stage=questions", ...)` runs `python -m finr1` in an empty folder and returns what came of it."""
    return partial(runner.run, tmp_path)


@pytest.fixture
def data_path() -> Path:
    """The folder where the real data sets are, or would be."""
    return runner.DATA


@pytest.fixture
def data() -> Path:
    """The folder of the real data sets; skips where there is none."""
    if not runner.DATA.is_dir():
        pytest.skip(f"no real data sets in {runner.DATA}: set FINR1_DATA")
    return runner.DATA


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished `+experiment=tiny`: every stage with the real model and the real vLLM engine."""
    folder = tmp_path_factory.mktemp("tiny")
    result = runner.run(folder, "+experiment=tiny", runner.SPREAD)
    assert result.returncode == 0, result.stderr[-3000:]
    (folder / "stdout.txt").write_text(result.stdout)
    (folder / "stderr.txt").write_text(result.stderr)
    return folder / "runs" / "tiny"


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one rank and two have left what they did in the module's `CASES` of `several.py`."""
    cases = ",".join(request.module.CASES.values())
    return runner.start_one_and_two(
        tmp_path_factory.mktemp("trained"), runner.REPO / "tests" / "helpers" / "several.py", cases
    )


@pytest.fixture(params=["sft", "grpo"])
def both(request: pytest.FixtureRequest, trained: Path) -> tuple[Any, Any]:
    """What one rank left and what two did, by variant."""
    import torch

    case = request.module.CASES[request.param]
    one, two = (torch.load(trained / f"{case}.{ranks}.pt") for ranks in (1, 2))
    return one, two
