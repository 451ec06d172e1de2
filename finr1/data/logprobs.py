"""Log-probabilities and entropies of completion tokens, from hidden states, without a [T, vocabulary] tensor."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from finr1.data.rows import Row
from finr1.model.load import core

CHUNK = 128  # completion tokens whose logits exist at once on CPU: 25 MB in fp32 with a vocabulary of 49k


class TokenStats(NamedTuple):
    """Of each completion token of a row: natural-log probability, and the entropy of the distribution it came from."""

    logprobs_N: Tensor
    entropy_N: Tensor  # nats; with a gradient only where it is asked for


def completion_stats(model: Any, row: Row, temperature: float = 1.0, entropy_grad: bool = False) -> TokenStats:
    """Run the row through the model. Logits are divided by `temperature`, as the sampler does.

    Hidden states are projected to the vocabulary at completion positions only, in chunks whose logits the backward
    pass computes anew. What is returned is on the row's device, whatever the model's. TypeError for a head that is more
    than a matrix.
    """
    inner: Any = core(model)
    if hasattr(inner, "row_stats"):  # gathers the weights (finr1/data/sharding.py)
        stats: TokenStats = inner.row_stats(row, temperature, entropy_grad)
        if not torch.is_grad_enabled():
            inner.reshard()  # no backward pass will drop what the forward pass has left for it
    else:
        stats = row_stats(inner, row, temperature, entropy_grad)
    return TokenStats(*(values_N.to(row.target_N.device) for values_N in stats))


def row_stats(inner: Any, row: Row, temperature: float, entropy_grad: bool) -> TokenStats:
    """`completion_stats` of a transformers model whose weights are whole, on their device."""
    row = row.to(inner.get_input_embeddings().weight.device)
    hidden_TD = inner.base_model(
        input_ids=row.ids_T[None],
        position_ids=row.positions_T[None],
        attention_mask=None,
        use_cache=False,
        layout=row.layout,
    ).last_hidden_state[0]
    head = inner.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear) or getattr(head, "bias", None) is not None:
        raise TypeError(f"the model's head is {type(head).__name__}, not a plain linear layer without bias")
    hidden_ND, weight_VD = hidden_TD[row.predict_N], head.weight
    device = hidden_ND.device.type
    if torch.is_autocast_enabled(device):  # which reaches modules, but not the inside of a Function
        kind = torch.get_autocast_dtype(device)
        hidden_ND, weight_VD = hidden_ND.to(kind), weight_VD.to(kind)
    chunk = CHUNK if device == "cpu" else 16 * CHUNK  # a GPU wants larger products
    apply: Any = Head.apply
    return TokenStats(*apply(hidden_ND, weight_VD, row.target_N, temperature, entropy_grad, chunk))


class Head(torch.autograd.Function):
    """log softmax(h W^T / temperature) at the targets, and its entropy, chunk by chunk.

    With p the probabilities, l their logarithms and H = -sum p l: d l_y / d z = (1_y - p) and d H / d z = -p (l + H),
    where z are the logits. The gradient of W is summed over chunks in W's own type.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        target_N: Tensor,
        temperature: float,
        entropy_grad: bool,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        """[N] and [N], at least fp32."""
        n = len(target_N)
        logprobs_N, total_N, entropy_N = (hidden_ND.new_empty(n, dtype=_wide(hidden_ND)) for _ in range(3))
        for part in _parts(n, chunk):
            logits = _logits(hidden_ND[part], weight_VD, temperature)
            total_N[part] = total = logits.logsumexp(-1)
            logprobs_N[part] = logits.gather(-1, target_N[part, None])[:, 0] - total
            # H = log Z - E[z]; the expectation as a batched dot product, without another [chunk, V] tensor.
            probs = torch.sub(logits, total[:, None]).exp_()
            entropy_N[part] = total - torch.bmm(probs[:, None], logits[:, :, None])[:, 0, 0]
        ctx.save_for_backward(hidden_ND, weight_VD, target_N, total_N, entropy_N)
        ctx.temperature, ctx.entropy_grad, ctx.chunk = temperature, entropy_grad, chunk
        if not entropy_grad:
            ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Gradients of hidden states and weight."""
        of_logprobs_N, of_entropy_N = gradients
        hidden_ND, weight_VD, target_N, total_N, entropy_N = ctx.saved_tensors
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        d_hidden_ND = torch.empty_like(hidden_ND) if wants_hidden else None
        d_weight_VD = torch.zeros_like(weight_VD) if wants_weight else None
        for part in _parts(len(target_N), ctx.chunk):
            hidden, target = hidden_ND[part], target_N[part, None]
            logs = _logits(hidden, weight_VD, ctx.temperature).sub_(total_N[part, None])
            if ctx.entropy_grad:
                inner = (logs + entropy_N[part, None]).mul_(-of_entropy_N[part, None])
                d_logits = logs.exp_().mul_(inner.sub_(of_logprobs_N[part, None]))
            else:
                d_logits = logs.exp_().mul_(-of_logprobs_N[part, None])
            d_logits.scatter_add_(-1, target, of_logprobs_N[part, None])
            d_logits = d_logits.div_(ctx.temperature).to(hidden.dtype)
            if d_hidden_ND is not None:
                torch.mm(d_logits, weight_VD, out=d_hidden_ND[part])
            if d_weight_VD is not None:
                d_weight_VD.addmm_(d_logits.t(), hidden)
        return d_hidden_ND, d_weight_VD, None, None, None, None


def _parts(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _logits(hidden_ND: Tensor, weight_VD: Tensor, temperature: float) -> Tensor:
    """At least fp32, a tensor that may be written to."""
    logits_NV = torch.mm(hidden_ND, weight_VD.t()).to(_wide(hidden_ND))
    return logits_NV.div_(temperature) if temperature != 1.0 else logits_NV


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
