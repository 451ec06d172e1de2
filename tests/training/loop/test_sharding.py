"""Weights in pieces over two ranks: the gradients, weights, metrics and files of one rank, checkpoints and exports."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from finr1.core.ranks import Ranks, plain, sharded
from tests.helpers.runner import REPO, start

SEVERAL = REPO / "tests" / "helpers" / "several.py"
CASES = {"sft": "sft.pieces", "grpo": "grpo.pieces"}
Found = dict[str, dict[str, Any]]
GPU = {"accelerator": "gpu", "plugins": []}


def test_rounds_have_as_many_passes_on_every_rank_and_count_each_row_once() -> None:
    # by size 9 7 | 6 5 | 4 and the last one again, which does not count
    names, sizes = ["two", "nine", "five", "seven", "six"], [4, 9, 5, 7, 6]
    assert Ranks(0, 2).rounds(names, sizes) == [("nine", True), ("six", True), ("two", True)]
    assert Ranks(1, 2).rounds(names, sizes) == [("seven", True), ("five", True), ("two", False)]
    assert [Ranks(r, 3).rounds(["one"], [5]) for r in range(3)] == [[("one", r == 0)] for r in range(3)]
    assert Ranks(1, 2).rounds([], []) == []
    for world in range(1, 9):
        parts = [Ranks(r, world).rounds(names, sizes) for r in range(world)]
        assert {len(part) for part in parts} == {math.ceil(5 / world)}
        assert sorted(name for part in parts for name, counts in part if counts) == sorted(names)


def test_weights_are_sharded_on_request_or_on_gpus_in_full_fine_tuning() -> None:
    assert sharded(GPU, full=True) and sharded({**GPU, "precision": "32-true"}, full=True)
    assert not sharded(GPU, full=False) and not sharded({**GPU, "strategy": "ddp"}, full=True)
    assert not sharded({**GPU, "precision": "bf16-mixed"}, full=True)
    assert not sharded({"accelerator": "cpu"}, full=True) and sharded({"accelerator": "cpu", "strategy": "fsdp"}, True)
    assert plain({"precision": 32}) and not plain({"precision": "16-mixed"})


def gap(expected: dict[str, Tensor], found: dict[str, Tensor]) -> float:
    """The largest difference, against the largest value of each tensor."""
    assert expected.keys() == found.keys() and expected
    pairs = [(expected[name], found[name]) for name in expected]
    return max(float((e - f).abs().max() / e.abs().max().clamp_min(1e-6)) for e, f in pairs)


@pytest.mark.slow
def test_shards_have_the_gradients_and_weights_of_one_rank(both: tuple[Found, Found]) -> None:
    """Three optimiser steps or more, clipped; steps in which a rank has no row of its own; tied weights."""
    one, two = both
    for variant in one.keys() - {"bf16", "AdamW, 8 bits"}:
        alone, together = one[variant]["gradients"], two[variant]["gradients"]
        assert len(alone) == len(together) >= 3
        for expected, found in zip(alone, together, strict=True):
            assert gap(expected, found) < 1e-5, variant
        assert gap(one[variant]["weights"], two[variant]["weights"]) < 1e-5, variant
    norms = [torch.stack([g.norm() for g in step.values()]).norm() for v in one.values() for step in v["gradients"]]
    assert sum(float(norm) > 0.05 for norm in norms) > 6  # those are clipped


@pytest.mark.slow
def test_each_rank_holds_a_shard(both: tuple[Found, Found]) -> None:
    """Of weights, and of the optimiser's states where it has any."""
    for variant, found in both[1].items():
        (whole,) = both[0][variant]["held"]  # weights, states
        for kind, total in enumerate(whole):
            pieces = [held[kind] for held in found["held"]]
            assert sum(pieces) == total and max(pieces) <= 0.51 * total, variant
    for found in (both[1][name] for name in both[1] if name.startswith("AdamW")):
        assert [states for _, states in found["held"]] == [2 * weights for weights, _ in found["held"]]  # two moments


@pytest.mark.slow
def test_metrics_and_files_are_those_of_one_rank(both: tuple[Found, Found]) -> None:
    """A row that a rank passes to keep pace is counted nowhere."""
    machine = ("_s", "mfu", "memory_gib")
    for variant in both[0].keys() - {"bf16", "AdamW, 8 bits"}:
        alone, together = both[0][variant], both[1][variant]
        for (step, metrics), (its_step, its) in zip(alone["metrics"], together["metrics"], strict=True):
            assert step == its_step and metrics.keys() == its.keys()
            for name in metrics:
                if not name.endswith(machine):
                    assert its[name] == pytest.approx(metrics[name], rel=1e-4, abs=1e-5), f"{variant}: {name}"
        assert alone["files"].keys() == together["files"].keys()
        assert [len(rows) for rows in alone["files"].values()] == [len(rows) for rows in together["files"].values()]


@pytest.mark.slow
def test_8_bit_optimizer_states_of_each_shard(trained: Path) -> None:
    """They are rounded by blocks, which begin anew with each piece: not the weights of one rank, but near them."""
    one, two = (torch.load(trained / f"sft.pieces.{ranks}.pt")["AdamW, 8 bits"] for ranks in (1, 2))
    assert gap(one["gradients"][0], two["gradients"][0]) < 1e-5
    moved = gap(torch.load(trained / "sft.pieces.1.pt")["plain"]["weights"], one["weights"])
    assert 0 < gap(one["weights"], two["weights"]) < 0.1 * moved


@pytest.mark.slow
def test_bf16_passes_over_fp32_shards(trained: Path) -> None:
    """Gradients are rounded as bf16 does, no worse; weights are not."""
    exact, rounded = (torch.load(trained / "sft.pieces.2.pt")[name] for name in ("plain", "bf16"))
    first = [found["gradients"][0] for found in (exact, rounded)]
    assert 1e-4 < gap(*first) < 0.05
    assert {tensor.dtype for tensor in rounded["weights"].values()} == {torch.float32}
    for name, weight in rounded["weights"].items():
        assert not torch.equal(weight, weight.bfloat16().float()) or weight.unique().numel() == 1, name


@pytest.mark.slow
def test_the_exported_folder_loads_whole(trained: Path) -> None:
    """By the first rank alone; of GRPO the weights of the best step, which a checkpoint held."""
    for case, variant, number in (("sft", "plain", 0), ("sft", "AdamW, tied", 1), ("grpo", "best", 3)):
        first, second = (trained / f"{case}.pieces.2.rank{rank}" / str(number) / "model" for rank in (0, 1))
        assert not second.exists()
        model = AutoModelForCausalLM.from_pretrained(first, dtype=torch.float32)
        expected = torch.load(trained / f"{case}.pieces.2.pt")[variant]["weights"]
        assert model.state_dict().keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("case", ["sft.killed.pieces", "grpo.killed.pieces"])
def test_a_killed_rank_is_said_in_one_line_and_a_resume_ends_as_if_nothing_had_been(tmp_path: Path, case: str) -> None:
    """With AdamW's states in 8 bits, or in 32 and a reward that draws; another number of ranks is refused."""
    assert start(2, SEVERAL, case, tmp_path / "whole").returncode == 0
    killed = start(2, SEVERAL, case, tmp_path / "killed", KILL="1")
    assert killed.returncode == 128 + 9
    line = "error: rank 1 was ended by SIGKILL; start the same command again to continue"
    assert killed.stderr.splitlines()[-1] == line
    if case.startswith("sft"):
        two, one = (tmp_path / "killed" / f"{case}.{ranks}.rank0" for ranks in (2, 1))
        two.rename(one)
        other = start(1, SEVERAL, case, tmp_path / "killed")
        assert "trainer.fit.devices=1: the checkpoint after 2 steps has 2 ranks; continue with 2" in other.stderr
        one.rename(two)
    resumed = start(2, SEVERAL, case, tmp_path / "killed")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    whole, left = (torch.load(tmp_path / name / f"{case}.2.pt")["drawn"] for name in ("whole", "killed"))
    assert 0 < len(left["gradients"]) < len(whole["gradients"]), "it began anew instead of at its checkpoint"
    assert all(torch.equal(whole["weights"][name], left["weights"][name]) for name in whole["weights"])
    assert whole["files"] == left["files"]
