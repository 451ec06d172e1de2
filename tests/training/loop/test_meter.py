"""Counts of FLOPs by hand and against torch's own counter; the measured peak; what is logged."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode

from finr1.core.clock import memory_gib
from finr1.core.files import read_json, write_json
from finr1.training.loop.meter import FILE, Meter, Work, matmul_peak, work_of
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row
from tests.helpers.tiny_model import VOCABULARY, tiny

ROW = [RowGroup([1, 2, 3], [[4, 5], [6]], [0, 1]), RowGroup([7], [[8, 9]], [2])]


def test_work_by_hand() -> None:
    # pairs: prompts 6 + 1; completions of the first 3 + 3*2 and 1 + 3*1, of the second 3 + 1*2
    # places: prompts 2*3, completions 3*2
    assert work_of([ROW]) == Work(1, 9, 5, 6 + 1 + 9 + 4 + 5, 12)
    assert work_of([ROW, ROW]) == Work(2, 18, 10, 50, 24)
    assert work_of([]) == Work(0, 0, 0, 0, 0)
    assert work_of([ROW]).padded_tokens == sum(x.numel() for x in make_row(ROW).layout.padded[:2])


def test_flops_by_hand(tmp_path: Path) -> None:
    """Hidden 32, inner 48, 3 layers, 4 heads of 8, 2 of keys and values; vocabulary 50."""
    linear = 3 * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48)
    work = Work(rows=1, tokens=10, targets=4, pairs=30, padded_tokens=10)
    expected = 6 * 10 * linear + 6 * 4 * 32 * VOCABULARY + 12 * 30 * 32 * 3
    assert Meter(tiny(), tmp_path).flops(work) == expected


def test_flops_of_the_forward_pass_are_those_that_torch_counts(tmp_path: Path) -> None:
    """A third of ours is the forward pass."""
    groups = [RowGroup(list(range(1, 9)), [[3] * 4], [0])]
    meter, work = Meter(tiny(attention="eager"), tmp_path), work_of([groups])
    ids = torch.tensor([[*groups[0].prompt, *groups[0].completions[0]]])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        meter.model(input_ids=ids, use_cache=False, logits_to_keep=4)
    dense = work._replace(pairs=12 * 12)  # eager computes the pairs that nothing sees
    assert counter.get_total_flops() == meter.flops(dense) / 3


def test_frozen_weights_have_no_gradient_to_compute(tmp_path: Path) -> None:
    model = get_peft_model(tiny(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    work = Work(rows=1, tokens=10, targets=4, pairs=30, padded_tokens=10)
    linear, adapter = 3 * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48), 3 * (32 * 2 + 2 * 32)
    expected = 10 * (4 * linear + 6 * adapter) + 4 * 4 * 32 * VOCABULARY + 12 * 30 * 32 * 3
    assert Meter(model, tmp_path).flops(work) == expected


def test_a_full_rows_utilisation_lies_between_nothing_and_everything(tmp_path: Path) -> None:
    """Of a matrix product alone it would be 1."""
    meter = Meter(tiny(), tmp_path)
    meter.prepare()
    groups = [RowGroup(list(range(1, 40)), [[i] * 20 for i in range(1, 8)], list(range(7)))]
    began = time.perf_counter()
    completion_stats(meter.model, make_row(groups)).logprobs_N.sum().backward()
    work = work_of([groups])
    found = meter.metrics(work, time.perf_counter() - began, row_tokens=2 * work.tokens)
    assert 0 < found["mfu"] < 1
    assert found["packing_efficiency"] == 0.5 and found["padding_fraction"] == 0.0
    assert found["peak_memory_gib"] == pytest.approx(memory_gib("VmHWM"), rel=0.2) and found["peak_memory_gib"] > 0.1
    nothing = meter.metrics(work_of([]), 0.0, 100)
    assert nothing.keys() == {"peak_memory_gib"}


def test_the_peak_takes_little_time_and_no_random_number() -> None:
    state, began = torch.get_rng_state(), time.process_time()
    peak = matmul_peak(torch.device("cpu"), torch.float32)
    assert time.process_time() - began < 2 * torch.get_num_threads()
    assert torch.equal(state, torch.get_rng_state())
    a = torch.full((512, 512), 0.5)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(a, a)
        times.append(time.perf_counter() - start)
    assert peak >= 0.5 * 2 * 512**3 / sorted(times)[2]  # larger products are no slower, but for what else runs here


def test_the_peak_is_measured_once_per_run_and_dtype(tmp_path: Path) -> None:
    Meter(tiny(), tmp_path).prepare()
    ((key, peak),) = read_json(tmp_path / FILE).items()
    assert key.endswith(f"{torch.get_num_threads()} threads, torch.float32") and peak > 1e8
    write_json(tmp_path / FILE, {key: 5.0})
    again = Meter(tiny(), tmp_path)
    again.prepare()
    assert again.peak == 5.0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Meter(tiny(), tmp_path).prepare()
    assert sorted(k.rsplit(", ")[-1] for k in read_json(tmp_path / FILE)) == ["torch.bfloat16", "torch.float32"]
