"""NEFTune: noise on the input embeddings during fine-tuning (Jain et al., arXiv 2310.05914, Algorithm 1).

    e' = e + alpha / sqrt(L d) u,   u uniform in (-1, 1) for each element

with d the embedding size and L the number of tokens of the text: of its prompt and completions, not of the packed row.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from finr1.training.model.load import base_model
from finr1.training.rows.rows import RowGroup, is_single


@contextmanager
def noisy(model: Any, groups: Sequence[RowGroup], alpha: float) -> Iterator[None]:
    """Add noise to the embeddings of a row of these groups within the block; `alpha` 0 adds none."""
    if not alpha:
        yield
        return
    if is_single(base_model(model)):
        lengths = torch.tensor([[group.n_tokens] for group in groups])  # [B, 1]: a text each
    else:
        lengths = torch.tensor([[group.n_tokens for group in groups for _ in range(group.n_tokens)]])  # [1, T]

    def add(_: Any, __: Any, embeddings_BTD: Tensor) -> Tensor:
        bounds = alpha / (lengths.to(embeddings_BTD.device) * embeddings_BTD.shape[-1]).sqrt()
        noise_BTD = torch.empty_like(embeddings_BTD).uniform_(-1, 1)
        return embeddings_BTD + noise_BTD * bounds.to(embeddings_BTD.dtype)[..., None]

    handle = base_model(model).get_input_embeddings().register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
