"""What a model does before and after the product of its head, asked of the model's own forward pass.

Logits are z = cap tanh(scale (h W^T + b) / cap), or scale (h W^T + b) without a cap: Granite divides them, Cohere and
Falcon-H1 multiply them, Gemma and nanochat cap them. The head is replaced for one pass: it keeps its input h, and
returns known numbers, from whose images scale and cap follow. So no model has to be known by name.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

# 1 gives the scale and 1e6 the cap; the others must then fit.
PROBES = (1.0, 1e6, 0.0, -1e6, -3.0, 0.25, 20.0, -60.0)


class Logits(NamedTuple):
    """How products of the head become logits."""

    scale: float = 1.0
    cap: float = 0.0  # 0: none

    def of(self, products: Tensor) -> Tensor:
        """Logits of the head's products, in place."""
        if self.scale != 1.0:
            products.mul_(self.scale)
        return products.div_(self.cap).tanh_().mul_(self.cap) if self.cap else products

    def slope(self, logits: Tensor) -> Tensor | float:
        """d logits / d products: scale (1 - (z / cap)^2)."""
        return (logits / self.cap).square_().neg_().add_(1.0).mul_(self.scale) if self.cap else self.scale


def head_input(inner: Any, **inputs: Any) -> Tensor:
    """The hidden states that a causal language model gives to its head, by its own forward pass.

    Learns `inner.head_logits` in the first pass. ValueError where head and logits are of another form.
    """
    head: Any = inner.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear):
        raise ValueError(f"its head is {type(head).__module__}.{type(head).__name__}, not a plain linear layer")
    hidden: list[Tensor] = []
    replaced: Any = head

    def keep(states: Tensor) -> Tensor:
        hidden.append(states)
        return torch.tensor(PROBES, device=states.device).expand(*states.shape[:-1], -1)

    replaced.forward = keep
    try:
        images = inner.forward(**inputs).logits
    finally:
        del replaced.forward
    if len(hidden) != 1:
        raise ValueError(f"its head is called {len(hidden)} times")
    if not hasattr(inner, "head_logits"):
        inner.head_logits = _fit(images.flatten(0, -2)[0].float().tolist())
    return hidden[0]


def _fit(images: list[float]) -> Logits:
    one, largest = images[:2]
    capped = 0 < largest < 1e3
    scale = largest * math.atanh(one / largest) if capped and abs(one) < largest else one
    logits = Logits(round(scale, 7 - math.ceil(math.log10(abs(scale) or 1.0))), largest if capped else 0.0)
    fitted = logits.of(torch.tensor(PROBES, dtype=torch.float64)).tolist()
    if not all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-5) for a, b in zip(fitted, images, strict=True)):
        raise ValueError("its logits are no scaled or capped product of its head")
    return logits
