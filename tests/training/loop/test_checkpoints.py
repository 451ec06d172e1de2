"""Which checkpoints are kept, what a damaged one and a full disk end in, and that random states come back."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from finr1.cli.explain import explain
from finr1.core.errors import ConfigError, Finr1Error
from finr1.settings.checkpoint import CheckpointSettings
from finr1.training.loop.checkpoints import GIB, Checkpoints, fault_of, random_state, seed_random, set_random_state
from finr1.training.loop.fit import StreamedCheckpoints, fit
from finr1.training.loop.step_module import StepModule

TRAINER = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "devices": 1}
SIZE = 1 << 16  # numbers of a checkpoint: 256 KiB


class Walk(StepModule):
    """Moves a small vector; some steps are the best so far."""

    def __init__(self, best: dict[int, int] | None = None) -> None:
        super().__init__(torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(SIZE, 1))]), torch.optim.SGD, 0.0)
        self.best_at, self.walked, self.oldest = best or {}, [], []

    def training_step(self, step: int, _: int) -> None:
        self.optimise(iter([(self.model[0] - 1).square().mean() * SIZE]), 0.1, 1.0)
        self.walked.append(step)
        self.steps_done += 1
        self.best_steps = self.best_at.get(self.steps_done, self.best_steps)

    def checkpoint_kept(self, oldest: int) -> None:
        self.oldest.append(oldest)


def walk(folder: Path, said: list[str] | None = None, best: dict[int, int] | None = None, **rule: Any) -> list[int]:
    """Seven steps, saved every step but the last; returns what is left on disk."""
    kept = Checkpoints(folder, CheckpointSettings(**rule), [].append if said is None else said.append)
    fit(Walk(best), 7, kept, TRAINER, every=1)
    return kept.steps()


def test_the_newest_are_kept_and_the_best_beside_them(tmp_path: Path) -> None:
    assert walk(tmp_path / "two") == [5, 6]
    assert walk(tmp_path / "three", keep_last=3) == [4, 5, 6]
    assert walk(tmp_path / "best", keep_best=True, best={1: 1, 3: 3}) == [3, 5, 6]
    assert walk(tmp_path / "not asked for", best={1: 1, 3: 3}) == [5, 6]


def test_a_new_best_is_saved_between_the_regular_ones(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, CheckpointSettings(keep_best=True), print)
    module = Walk({3: 3})
    fit(module, 7, kept, TRAINER, every=2)
    assert kept.steps() == [3, 4, 6] and module.oldest == [2, 2, 3, 3]


def test_the_disk_budget_holds_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is made before a checkpoint is written: the sum never passes the budget."""
    one = 4 * SIZE + 40_000  # the file's other records take less than 40 kB
    sums = []
    plain = StreamedCheckpoints.save_checkpoint

    def measured(self: Any, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        plain(self, checkpoint, path, storage_options)
        sums.append(sum(file.stat().st_size for file in Path(path).parent.iterdir()))

    monkeypatch.setattr(StreamedCheckpoints, "save_checkpoint", measured)
    said: list[str] = []
    assert walk(tmp_path, said, keep_last=5, disk_gib=3 * one / GIB) == [4, 5, 6]
    assert len(sums) == 6 and max(sums) <= 3 * one and said == []
    assert walk(tmp_path / "best", said, {2: 2}, keep_last=5, keep_best=True, disk_gib=3 * one / GIB) == [2, 5, 6]
    assert said == []
    assert walk(tmp_path / "small", said, disk_gib=one / 2 / GIB) == [6]  # never without one
    assert len(said) == 1 and said[0].startswith("checkpoint.disk_gib=") and said[0].endswith("increase it")


@pytest.mark.parametrize("damage", ["a bit", "the end", "everything", "nothing left"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, damage: str) -> None:
    assert walk(tmp_path) == [5, 6]
    path = tmp_path / "checkpoints" / "step-00000006.ckpt"
    data = bytearray(path.read_bytes())
    if damage == "a bit":
        data[len(data) // 2] ^= 1  # in the weights: torch itself would load it
    path.write_bytes({"a bit": data, "the end": data[:-1000], "everything": b"x" * 999, "nothing left": b""}[damage])
    assert fault_of(path)
    said: list[str] = []
    module = Walk()
    fit(module, 7, Checkpoints(tmp_path, CheckpointSettings(), said.append), TRAINER, every=10)
    assert module.walked == [5, 6]
    assert len(said) == 1 and "\n" not in said[0]
    assert said[0].startswith("step-00000006.ckpt is corrupt (") and said[0].endswith("resumes from step 5")


def test_without_an_intact_checkpoint_training_starts_at_the_first_step(tmp_path: Path) -> None:
    walk(tmp_path, keep_last=1)
    (path,) = (tmp_path / "checkpoints").iterdir()
    path.write_bytes(b"")
    said: list[str] = []
    module = Walk()
    fit(module, 7, Checkpoints(tmp_path, CheckpointSettings(), said.append), TRAINER, every=10)
    assert module.walked == list(range(7)) and said[0].endswith("resumes from the first step")


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    left = walk(tmp_path)
    (tmp_path / "step-00000009.ckpt").mkdir()
    kept = Checkpoints(tmp_path, CheckpointSettings(), print)
    assert kept.steps() == left and kept.newest() == kept.path(left[-1])


def test_what_a_kill_left_half_written_is_removed_at_the_next_start(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, CheckpointSettings(), print)
    kept.folder.mkdir()
    (kept.folder / ".step-00000003.ckpt.part").write_bytes(b"half")
    assert kept.newest() is None and list(kept.folder.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here: it takes the rights of root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_the_last_good_checkpoint_stays(small_disk: Path) -> None:
    """Three of 256 KiB fit, and then something else takes what is left."""
    kept = Checkpoints(small_disk, CheckpointSettings(keep_last=1), print)

    class Filled(Walk):
        def training_step(self, step: int, batch: int) -> None:
            super().training_step(step, batch)
            if step == 3:
                (small_disk / "other").write_bytes(b"x" * 650_000)

    with pytest.raises(Finr1Error) as error:
        fit(Filled(), 7, kept, TRAINER, every=1)
    line = explain(error.value, [])
    assert line is not None and "\n" not in line
    assert "step-00000004.ckpt: cannot be written (No space left on device;" in line
    assert "free some space" in line and line.endswith("it resumes from step-00000003.ckpt")
    assert sorted(path.name for path in kept.folder.iterdir()) == ["step-00000003.ckpt"]
    (small_disk / "other").unlink()
    module = Walk()
    fit(module, 7, kept, TRAINER, every=1)
    assert module.walked == [3, 4, 5, 6]


def test_a_write_that_fails_removes_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same without a mount: torch's writer fails as it does on a full disk."""
    kept = Checkpoints(tmp_path, CheckpointSettings(), print)
    StreamedCheckpoints().save_checkpoint({"n": 1}, kept.path(1))

    def half(_: Any, file: Any) -> None:
        file.write(b"half")
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")  # noqa: B904

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(Finr1Error, match="No space left on device"):
        StreamedCheckpoints().save_checkpoint({"n": 2}, kept.path(2))
    assert [path.name for path in kept.folder.iterdir()] == ["step-00000001.ckpt"]
    assert torch.load(kept.path(1)) == {"n": 1} and fault_of(kept.path(1)) is None


def test_another_error_while_saving_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        StreamedCheckpoints().save_checkpoint({"n": lambda: 0}, tmp_path / "step-00000001.ckpt")


def test_random_states_go_through_a_file(tmp_path: Path) -> None:
    draws = lambda: [random.random(), random.gauss(0, 1), float(numpy.random.normal()), float(torch.rand(()))]  # noqa: E731
    seed_random(5)
    draws()  # a Gaussian is left over in Python's state and in NumPy's
    torch.save(random_state(), tmp_path / "state")
    expected = [draws() for _ in range(3)]
    seed_random(6)
    assert draws() not in expected
    set_random_state(torch.load(tmp_path / "state", weights_only=True))
    assert [draws() for _ in range(3)] == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep_last": 0}, r"checkpoint\.keep_last=0: must be at least 1"),
        ({"disk_gib": 0.0}, r"checkpoint\.disk_gib=0\.0: must be above 0"),
    ],
)
def test_a_rule_that_cannot_work_is_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CheckpointSettings(**settings)
