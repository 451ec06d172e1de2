"""NEFTune: noise on the embeddings that fine-tuning sees (Jain et al., arXiv 2310.05914, Algorithm 1).

    e' = e + alpha / sqrt(L d) u,   u uniform in (-1, 1) for each element

with d the width of an embedding and L the tokens of the text. In a packed row L is each text's own: its prompt and
completions, not the row they lie in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from finr1.training.model.load import base_model
from finr1.training.rows.rows import RowGroup


@contextmanager
def noisy(model: Any, groups: Sequence[RowGroup], alpha: float) -> Iterator[None]:
    """Within the block the embeddings of a row of these groups carry noise; with `alpha` 0 they do not."""
    if not alpha:
        yield
        return
    length_T = torch.tensor([group.n_tokens for group in groups for _ in range(group.n_tokens)])

    def add(_: Any, __: Any, embeddings_1TD: Tensor) -> Tensor:
        bound_T = alpha / (length_T.to(embeddings_1TD.device) * embeddings_1TD.shape[-1]).sqrt()
        noise_1TD = torch.empty_like(embeddings_1TD).uniform_(-1, 1)
        return embeddings_1TD + noise_1TD * bound_T.to(embeddings_1TD.dtype)[:, None]

    handle = base_model(model).get_input_embeddings().register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
