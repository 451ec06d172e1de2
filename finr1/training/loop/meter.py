"""Efficiency of a training step: model FLOPs utilisation (MFU), peak memory, padding and packing.

Model FLOPs count 2 per multiply-add: linear layers over all tokens, the head over completion tokens, attention over the
pairs of tokens that attend to each other. The backward pass takes twice the forward pass, less the gradients of frozen
weights; recomputation does not count (PaLM, arXiv 2204.02311 App. B). The peak is that of a plain matrix product,
measured on this machine in the dtype and with the threads of the step.
"""

import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from finr1.core.clock import memory_gib
from finr1.core.files import read_json, write_json
from finr1.core.ranks import ALONE, Ranks
from finr1.training.model.load import base_model
from finr1.training.rows import attention
from finr1.training.rows.rows import RowGroup, is_single

FILE = "matmul_peak.json"
BUDGET_S = 1.0  # time to measure the peak, once per run


class Work(NamedTuple):
    """Counts of packed rows."""

    rows: int
    tokens: int  # each prompt counted once per row
    targets: int  # tokens that carry the loss
    pairs: int  # (query, key) pairs of attention, a token's pair with itself included
    padded_tokens: int  # if prompts and completions were padded to the longest of their row


def work_of(rows: Sequence[Sequence[RowGroup]], single: bool = False) -> Work:
    total = Work(len(rows), 0, 0, 0, 0)
    for groups in rows:
        prompts = [len(group.prompt) for group in groups]
        lengths = [len(c) for group in groups for c in group.completions]
        pairs = sum(n * (n + 1) // 2 for n in (*prompts, *lengths))
        pairs += sum(len(group.prompt) * len(c) for group in groups for c in group.completions)
        padded = len(prompts) * max(prompts) + len(lengths) * max(lengths, default=0)
        if single:
            padded = len(groups) * max(group.n_tokens for group in groups)
        more = Work(0, sum(prompts) + sum(lengths), sum(group.n_targets for group in groups), pairs, padded)
        total = Work(*(one + other for one, other in zip(total, more, strict=True)))
    return total


class Meter:
    """Computes the efficiency of a model's steps; `folder` keeps the measured peak, so that a resumed run has the same.

    The first rank measures the peak for all ranks: their machines are assumed to be alike.
    """

    def __init__(self, model: Any, folder: Path, ranks: Ranks = ALONE) -> None:
        self.model, self.path, self.ranks = model, folder / FILE, ranks
        self.peak = 0.0  # FLOPs per second of one rank

    def prepare(self) -> None:
        """Measure or read the peak; to be called inside a training step, under its autocast."""
        if not self.peak:
            self.peak = self.ranks.broadcast(self._peak() if self.ranks.first else 0.0)

    def _peak(self) -> float:
        device = next(self.model.parameters()).device
        dtype = getattr(base_model(self.model), "compute_dtype", next(self.model.parameters()).dtype)
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        processor = (
            torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
        )
        key = f"{platform.node()}, {processor}, {dtype}"
        peaks = read_json(self.path) if self.path.exists() else {}
        if key not in peaks:
            peaks[key] = matmul_peak(device, dtype)
            write_json(self.path, peaks)
        return float(peaks[key])

    def flops(self, work: Work) -> float:
        """Model FLOPs of the forward and backward passes."""
        inner: Any = base_model(self.model)
        head, config = inner.get_output_embeddings(), inner.config
        layers = [m for m in inner.base_model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
        linear, linear_trained = _sizes(layers)
        of_head, head_trained = _sizes([head])
        config, (heads, size) = config.get_text_config(), _heads(config)
        return float(
            2 * work.tokens * (2 * linear + linear_trained)
            + 2 * work.targets * (2 * of_head + head_trained)
            + 12 * work.pairs * heads * size * config.num_hidden_layers
        )

    def metrics(self, work: Work, seconds: float, row_tokens: int) -> dict[str, float]:
        """Metrics of a step in which all ranks trained on this work, in rows of up to `row_tokens` tokens."""
        cuda = next(self.model.parameters()).device.type == "cuda"
        memory = torch.cuda.max_memory_allocated() / 2**30 if cuda else memory_gib("VmHWM")
        metrics = {"peak_memory_gib": max(self.ranks.gather(memory))}
        if work.tokens:
            metrics["mfu"] = self.flops(work) / seconds / (self.ranks.world * self.peak)
            metrics["packing_efficiency"] = work.tokens / (work.rows * row_tokens)
            metrics["padding_fraction"] = 1 - work.tokens / work.padded_tokens if self._pads() else 0.0
        return metrics

    def _pads(self) -> bool:
        """Whether the texts of a row are padded: by attention (`rows/attention.py`), or as single rows."""
        inner: Any = base_model(self.model)
        if is_single(inner):
            return True
        _, size = _heads(inner.config)
        flexible = inner.config._attn_implementation == attention.NAME
        return attention.kernel(next(inner.parameters()).device, size, flexible=flexible) == "padded"


def _heads(config: Any) -> tuple[int, int]:
    """Number and size of a layer's attention heads; 0 of a model without attention."""
    config = config.get_text_config()
    heads = getattr(config, "num_attention_heads", 0)
    return heads, vars(config).get("head_dim") or config.hidden_size // max(heads, 1)


def _sizes(layers: Sequence[torch.nn.Linear]) -> tuple[int, int]:
    """Number of weights of these layers, and of the trained ones among them."""
    # From the layer's shape: a 4-bit weight tensor packs two weights per byte.
    sizes = [(m.in_features * m.out_features, m.weight.requires_grad) for m in layers]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


def matmul_peak(device: torch.device, dtype: torch.dtype, budget_s: float = BUDGET_S) -> float:
    """FLOPs per second of the fastest square matrix product within about this time; draws no random numbers."""
    best, began = 0.0, time.perf_counter()
    for n in (512, 1024, 2048, 4096, 8192):
        flops, left = 2.0 * n**3, budget_s - (time.perf_counter() - began)
        if best and 4 * flops / best > left:
            break
        a = torch.full((n, n), 0.5, dtype=dtype, device=device)
        torch.mm(a, a)  # warms up
        # The best of many short runs is one that no other process interrupted.
        first, repeats = time.perf_counter(), 0
        while repeats < 3 or time.perf_counter() - first < budget_s / 4:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            start = time.perf_counter()
            torch.mm(a, a)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best, repeats = max(best, flops / (time.perf_counter() - start)), repeats + 1
    return best
