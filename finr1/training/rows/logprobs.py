"""Log-probabilities and entropies of completion tokens, from hidden states, without a [T, vocabulary] tensor.

The vocabulary is walked in slices, with running sums as in online softmax (Milakov and Gimelshein, arXiv 1805.02867):
what exists of the logits at once stays in a processor's cache, and each slice of the weight is read once a pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finr1.training.model.cpu.embedding import in_place
from finr1.training.model.load import base_model
from finr1.training.rows.rows import Row

CHUNK, SLICE = 1024, 2048  # tokens and vocabulary entries whose logits exist at once on CPU: 8 MB in fp32
GPU_CHUNK, GPU_SLICE = 2048, 1 << 15  # a GPU wants larger products


class TokenStats(NamedTuple):
    """Of each completion token of a row: natural-log probability, and the entropy of the distribution it came from."""

    logprobs_N: Tensor
    entropy_N: Tensor  # nats; with a gradient only where it is asked for


def completion_stats(
    model: Any, row: Row, temperature: float = 1.0, entropy_grad: bool = False, entropy: bool = True
) -> TokenStats:
    """Run the row through the model. Logits are divided by `temperature`, as the sampler does.

    Hidden states are projected to the vocabulary at completion positions only, in pieces whose logits the backward
    pass computes anew. What is returned is on the row's device, whatever the model's. Without `entropy` that of each
    token is NaN. TypeError for a head that is more than a matrix.
    """
    inner: Any = base_model(model)
    if hasattr(inner, "row_stats"):  # gathers the weights (finr1/training/loop/sharding.py)
        stats: TokenStats = inner.row_stats(row, temperature, entropy_grad, entropy)
        if not torch.is_grad_enabled():
            inner.reshard()  # no backward pass will drop what the forward pass has left for it
    else:
        stats = row_stats(inner, row, temperature, entropy_grad, entropy)
    return TokenStats(*(values_N.to(row.target_N.device) for values_N in stats))


def row_stats(inner: Any, row: Row, temperature: float, entropy_grad: bool, entropy: bool = True) -> TokenStats:
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
    device = hidden_TD.device.type
    kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight.dtype
    size = (CHUNK, SLICE) if device == "cpu" else (GPU_CHUNK, GPU_SLICE)
    apply: Any = Head.apply
    hidden_ND = hidden_TD[row.predict_N]
    # Autocast, where it is on, would round what the entropy is summed from.
    with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
        return TokenStats(*apply(hidden_ND, head.weight, row.target_N, temperature, entropy, entropy_grad, kind, size))


class Head(torch.autograd.Function):
    """log softmax(h W^T / temperature) at the targets, and its entropy; products are computed in `kind`.

    With p the probabilities, l their logarithms and H = -sum p l: d l_y / d z = (1_y - p) and d H / d z = -p (l + H),
    where z are the logits. Sums over the vocabulary are at least fp32. `size` is of a piece: tokens, vocabulary.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        target_N: Tensor,
        temperature: float,
        entropy: bool,
        entropy_grad: bool,
        kind: torch.dtype,
        size: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """[N] and [N], at least fp32."""
        n, wide = len(target_N), torch.promote_types(kind, torch.float32)
        new_N = partial(hidden_ND.new_full, (n,), dtype=wide)
        # Of the slices so far: the largest logit, and sums of e^(z - largest), and of e^(z - largest) z.
        chosen_N, largest_N, sum_N, mean_N = new_N(0.0), new_N(-torch.inf), new_N(0.0), new_N(0.0)
        for piece in _pieces(hidden_ND, weight_VD, target_N, kind, size):
            part, logits = piece.tokens, piece.logits(temperature)
            chosen_N[part] += logits.gather(-1, piece.target_N1)[:, 0].where(piece.inside_N, 0.0)
            largest = torch.maximum(largest_N[part], logits.amax(-1))
            before = torch.exp(largest_N[part] - largest)
            powers = logits.sub(largest[:, None]).exp_() if entropy else logits.sub_(largest[:, None]).exp_()
            sum_N[part] = sum_N[part] * before + powers.sum(-1)
            if entropy:  # a sum of products as a batched dot product, without another tensor of that size
                of_slice = torch.bmm(powers[:, None], logits[:, :, None])[:, 0, 0]
                mean_N[part] = mean_N[part] * before + of_slice
            largest_N[part] = largest
        total_N = largest_N + sum_N.log()
        entropy_N = total_N - mean_N / sum_N if entropy else new_N(torch.nan)  # H = log Z - E[z]
        ctx.save_for_backward(hidden_ND, weight_VD, target_N, total_N, entropy_N)
        ctx.temperature, ctx.entropy_grad, ctx.kind, ctx.size = temperature, entropy_grad, kind, size
        if not entropy_grad:
            ctx.mark_non_differentiable(entropy_N)
        return chosen_N - total_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Gradients of hidden states and weight."""
        of_logprobs_N, of_entropy_N = gradients
        hidden_ND, weight_VD, target_N, total_N, entropy_N = ctx.saved_tensors
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        d_hidden_ND = hidden_ND.new_zeros(hidden_ND.shape, dtype=total_N.dtype) if wants_hidden else None
        fresh = torch.empty_like if len(target_N) else torch.zeros_like  # every slice is written to, if anything is
        known_VD = weight_VD.grad if wants_weight and in_place(weight_VD) else None
        d_weight_VD = (fresh(weight_VD) if known_VD is None else known_VD) if wants_weight else None
        for piece in _pieces(hidden_ND, weight_VD, target_N, ctx.kind, ctx.size):
            part = piece.tokens
            logs, of_logprobs = piece.logits(ctx.temperature).sub_(total_N[part, None]), of_logprobs_N[part, None]
            if ctx.entropy_grad:
                inner = (logs + entropy_N[part, None]).mul_(-of_entropy_N[part, None])
                d_logits = logs.exp_().mul_(inner.sub_(of_logprobs))
            else:
                d_logits = logs.exp_().mul_(-of_logprobs)
            d_logits.scatter_add_(-1, piece.target_N1, of_logprobs.where(piece.inside_N[:, None], 0.0))
            d_logits = d_logits.div_(ctx.temperature) if ctx.temperature != 1.0 else d_logits
            d_logits = d_logits.to(ctx.kind)
            if d_hidden_ND is not None:
                d_hidden_ND[part] += torch.mm(d_logits, piece.weight_SD)
            if d_weight_VD is not None:
                d_slice = torch.mm(d_logits.t(), piece.hidden_ND)
                if part.start == 0 and known_VD is None:
                    d_weight_VD[piece.entries] = d_slice
                else:
                    d_weight_VD[piece.entries] += d_slice
        d_hidden_ND = d_hidden_ND.to(hidden_ND.dtype) if d_hidden_ND is not None else None
        if wants_weight and in_place(weight_VD):  # autograd would copy it
            weight_VD.grad, d_weight_VD = d_weight_VD, None
        return d_hidden_ND, d_weight_VD, None, None, None, None, None, None


class _Piece(NamedTuple):
    """Some tokens and a slice S of the vocabulary; targets count from the slice's start, 0 where they are outside."""

    tokens: slice
    entries: slice
    hidden_ND: Tensor
    weight_SD: Tensor
    target_N1: Tensor
    inside_N: Tensor

    def logits(self, temperature: float) -> Tensor:
        """[N, S], at least fp32, a tensor that may be written to."""
        logits_NS = torch.mm(self.hidden_ND, self.weight_SD.t())
        logits_NS = logits_NS.to(torch.promote_types(logits_NS.dtype, torch.float32))
        return logits_NS.div_(temperature) if temperature != 1.0 else logits_NS


def _pieces(
    hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor, kind: torch.dtype, size: tuple[int, int]
) -> Iterator[_Piece]:
    """Slice after slice of the vocabulary, each with all tokens, so that the weight is cast once."""
    hidden_ND = hidden_ND.to(kind)
    for entries in _parts(len(weight_VD), size[1]):
        weight_SD = weight_VD[entries].to(kind)
        place_N = target_N - entries.start
        inside_N = (place_N >= 0) & (place_N < len(weight_SD))
        place_N1 = place_N.where(inside_N, 0)[:, None]
        for part in _parts(len(target_N), size[0]):
            yield _Piece(part, entries, hidden_ND[part], weight_SD, place_N1[part], inside_N[part])


def _parts(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
