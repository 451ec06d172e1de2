"""Learning-rate schedule, and the order of training rows."""

import math

import torch


def learning_rate(step: int, n_steps: int, warmup_steps: int, peak: float, schedule: str) -> float:
    """Linear warm-up, then constant, linear decay to zero, or cosine decay to zero. Steps count from 0."""
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return peak
    done = (step - warmup_steps) / max(1, n_steps - warmup_steps)
    return peak * (1 - done if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done)))


def shuffled(n: int, epochs: int, seed: int) -> list[list[int]]:
    """One seeded permutation of 0 … n-1 per epoch."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(n, generator=generator).tolist() for _ in range(epochs)]
