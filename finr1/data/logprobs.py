"""Log-probabilities and entropies of completion tokens, from hidden states, without a [T, vocabulary] tensor."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from finr1.data.rows import Row
from finr1.model.load import core

CHUNK = 128  # completion tokens whose logits exist at once on CPU: 25 MB in fp32 with a vocabulary of 49k


class TokenStats(NamedTuple):
    """Of each completion token of a row: natural-log probability, and the entropy of the distribution it came from."""

    logprobs_N: Tensor
    entropy_N: Tensor  # nats; with a gradient only where it is asked for


def completion_stats(model: Any, row: Row, temperature: float = 1.0, entropy_grad: bool = False) -> TokenStats:
    """Run the row through the model. Logits are divided by `temperature`, as the sampler does.

    Hidden states are projected to the vocabulary at completion positions only, in chunks that are recomputed in the
    backward pass where there is more than one.
    """
    inner: Any = core(model)
    hidden_TD = inner.base_model(
        input_ids=row.ids_T[None],
        position_ids=row.positions_T[None],
        attention_mask=None,
        use_cache=False,
        layout=row.layout,
    ).last_hidden_state[0]
    hidden_ND = hidden_TD[row.predict_N]
    head = inner.get_output_embeddings()
    pieces: tuple[Any, Any] = (hidden_ND, row.target_N)
    chunk = CHUNK if hidden_ND.device.type == "cpu" else 16 * CHUNK  # a GPU wants larger products
    chunks = list(zip(*(piece.split(chunk) for piece in pieces), strict=True))
    parts = [
        checkpoint(_head, head, hidden, target, temperature, entropy_grad, use_reentrant=False)
        if len(chunks) > 1 and torch.is_grad_enabled()
        else _head(head, hidden, target, temperature, entropy_grad)
        for hidden, target in chunks
    ]
    logprobs, entropies = zip(*parts, strict=True)
    return TokenStats(torch.cat(logprobs), torch.cat(entropies))


def _head(
    head: Any, hidden_ND: Tensor, target_N: Tensor, temperature: float, entropy_grad: bool
) -> tuple[Tensor, Tensor]:
    logits_NV = head(hidden_ND).float()
    if temperature != 1.0:
        logits_NV = logits_NV / temperature
    log_total_N = logits_NV.logsumexp(-1)
    logprobs_N = logits_NV.gather(-1, target_N[:, None])[:, 0] - log_total_N
    with torch.set_grad_enabled(entropy_grad and torch.is_grad_enabled()):
        # H = log Z - E[logit]; the expectation as a batched dot product, without another [N, V] tensor.
        probs_NV = torch.sub(logits_NV, log_total_N[:, None]).exp_()
        entropy_N = log_total_N - torch.bmm(probs_NV[:, None], logits_NV[:, :, None])[:, 0, 0]
    return logprobs_N, entropy_N
