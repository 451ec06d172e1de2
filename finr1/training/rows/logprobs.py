"""Log-probs and entropies of completion tokens, from hidden states, without a [T, vocabulary] tensor of logits.

Logits are computed for one slice of the vocabulary at a time, with running sums as in online softmax (Milakov and
Gimelshein, arXiv 1805.02867): they stay in the processor's cache, and the head's weight is read once per pass.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finr1.training.model.cpu.embedding import in_place
from finr1.training.model.load import base_model
from finr1.training.rows.head import Logits, head_input
from finr1.training.rows.rows import Row, is_single

CPU_BLOCK = 1024, 2048  # tokens and vocabulary entries of a block of logits: 8 MB in fp32
GPU_BLOCK = 2048, 1 << 15  # larger products for a GPU


class TokenStats(NamedTuple):
    """Per completion token of a row: natural-log probability, and entropy of its distribution."""

    logprobs_N: Tensor
    entropy_N: Tensor  # nats; with a gradient only on request


def completion_stats(
    model: Any, row: Row, temperature: float = 1.0, entropy_grad: bool = False, entropy: bool = True
) -> TokenStats:
    """Run the row through the model; logits are divided by `temperature`, as in sampling.

    Only completion positions are projected to the vocabulary, and the backward pass recomputes the logits. The result
    is on the row's device. Without `entropy` the entropies are NaN. ValueError: see `head_input`.
    """
    inner: Any = base_model(model)
    if hasattr(inner, "row_stats"):  # sharded weights: gathers them (loop/sharding.py)
        stats: TokenStats = inner.row_stats(row, temperature, entropy_grad, entropy)
        if not torch.is_grad_enabled():
            inner.reshard()  # no backward pass will free the gathered weights
    else:
        stats = row_stats(inner, row, temperature, entropy_grad, entropy)
    return TokenStats(*(values_N.to(row.target_N.device) for values_N in stats))


def row_stats(inner: Any, row: Row, temperature: float, entropy_grad: bool, entropy: bool = True) -> TokenStats:
    """`completion_stats` of a transformers model with full weights, on their device."""
    row = row.to(inner.get_input_embeddings().weight.device)
    if is_single(inner):
        ids_CL, real_CL = row.apart
        hidden_TD = head_input(inner, input_ids=ids_CL, use_cache=False)[real_CL]
    else:
        row_inputs = {"input_ids": row.ids_T[None], "position_ids": row.positions_T[None], "layout": row.layout}
        hidden_TD = head_input(inner, **row_inputs, attention_mask=None, use_cache=False)[0]
    head = inner.get_output_embeddings()
    device = hidden_TD.device.type
    kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight.dtype
    size = CPU_BLOCK if device == "cpu" else GPU_BLOCK
    apply: Any = Head.apply
    hidden_ND = hidden_TD[row.predict_N]
    # Autocast would round the terms of the entropy.
    with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
        weights = hidden_ND, head.weight, head.bias
        return TokenStats(
            *apply(*weights, row.target_N, inner.head_logits, temperature, entropy, entropy_grad, kind, size)
        )


class Head(torch.autograd.Function):
    """log softmax(z / temperature) at the targets, and its entropy; matrix products are computed in `kind`.

    With logits z of `Logits`, probabilities p, l = log p and H = -sum p l: d l_y / d z = 1_y - p and
    d H / d z = -p (l + H). Sums over the vocabulary are in at least fp32. `size`: tokens and vocabulary entries of a
    block.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        target_N: Tensor,
        output: Logits,
        temperature: float,
        entropy: bool,
        entropy_grad: bool,
        kind: torch.dtype,
        size: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """Log-probs [N] and entropies [N], at least fp32."""
        n, wide = len(target_N), torch.promote_types(kind, torch.float32)
        new_N = partial(hidden_ND.new_full, (n,), dtype=wide)
        # Over the slices so far: the largest logit, and the sums of e^(z - largest) and of e^(z - largest) z.
        chosen_N, largest_N, sum_N, mean_N = new_N(0.0), new_N(-torch.inf), new_N(0.0), new_N(0.0)
        for block in _blocks(hidden_ND, weight_VD, bias_V, target_N, kind, size):
            part, logits = block.tokens, _divided(block.logits(output), temperature)
            chosen_N[part] += logits.gather(-1, block.target_N1)[:, 0].where(block.inside_N, 0.0)
            largest = torch.maximum(largest_N[part], logits.amax(-1))
            before = torch.exp(largest_N[part] - largest)
            powers = logits.sub(largest[:, None]).exp_() if entropy else logits.sub_(largest[:, None]).exp_()
            sum_N[part] = sum_N[part] * before + powers.sum(-1)
            if entropy:  # the sum of products as a batched dot product, without another [N, S] tensor
                of_slice = torch.bmm(powers[:, None], logits[:, :, None])[:, 0, 0]
                mean_N[part] = mean_N[part] * before + of_slice
            largest_N[part] = largest
        total_N = largest_N + sum_N.log()
        entropy_N = total_N - mean_N / sum_N if entropy else new_N(torch.nan)  # H = log Z - E[z]
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, target_N, total_N, entropy_N)
        ctx.output, ctx.temperature, ctx.entropy_grad, ctx.kind, ctx.size = (
            output,
            temperature,
            entropy_grad,
            kind,
            size,
        )
        if not entropy_grad:
            ctx.mark_non_differentiable(entropy_N)
        return chosen_N - total_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Gradients of the hidden states, the weight and the bias."""
        of_logprobs_N, of_entropy_N = gradients
        hidden_ND, weight_VD, bias_V, target_N, total_N, entropy_N = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        d_hidden_ND = hidden_ND.new_zeros(hidden_ND.shape, dtype=total_N.dtype) if wants_hidden else None
        fresh = torch.empty_like if len(target_N) else torch.zeros_like  # with targets every slice is overwritten
        known_VD = weight_VD.grad if wants_weight and in_place(weight_VD) else None
        d_weight_VD = (fresh(weight_VD) if known_VD is None else known_VD) if wants_weight else None
        d_bias_V = torch.zeros_like(bias_V) if wants_bias else None
        for block in _blocks(hidden_ND, weight_VD, bias_V, target_N, ctx.kind, ctx.size):
            part, logits, of_logprobs = block.tokens, block.logits(ctx.output), of_logprobs_N[block.tokens, None]
            slope = ctx.output.slope(logits)
            logs = _divided(logits, ctx.temperature).sub_(total_N[part, None])
            if ctx.entropy_grad:
                inner = (logs + entropy_N[part, None]).mul_(-of_entropy_N[part, None])
                d_logits = logs.exp_().mul_(inner.sub_(of_logprobs))
            else:
                d_logits = logs.exp_().mul_(-of_logprobs)
            d_logits.scatter_add_(-1, block.target_N1, of_logprobs.where(block.inside_N[:, None], 0.0))
            d_logits = _divided(d_logits, ctx.temperature)
            d_logits = d_logits if ctx.output == Logits() else d_logits.mul_(slope)
            if d_bias_V is not None:
                d_bias_V[block.entries] += d_logits.sum(0)
            d_logits = d_logits.to(ctx.kind)
            if d_hidden_ND is not None:
                d_hidden_ND[part] += torch.mm(d_logits, block.weight_SD)
            if d_weight_VD is not None:
                d_slice = torch.mm(d_logits.t(), block.hidden_ND)
                if part.start == 0 and known_VD is None:
                    d_weight_VD[block.entries] = d_slice
                else:
                    d_weight_VD[block.entries] += d_slice
        d_hidden_ND = d_hidden_ND.to(hidden_ND.dtype) if d_hidden_ND is not None else None
        if wants_weight and in_place(weight_VD):  # else autograd would copy it
            weight_VD.grad, d_weight_VD = d_weight_VD, None
        return d_hidden_ND, d_weight_VD, d_bias_V, *(None,) * 7


class _Block(NamedTuple):
    """A chunk of the tokens and a slice S of the vocabulary."""

    tokens: slice
    entries: slice
    hidden_ND: Tensor
    weight_SD: Tensor
    bias_S: Tensor | None
    target_N1: Tensor  # relative to the start of the slice, 0 if outside of it
    inside_N: Tensor  # bool: the target is in the slice

    def logits(self, output: Logits) -> Tensor:
        """Logits [N, S] in at least fp32, a fresh tensor."""
        products_NS = torch.mm(self.hidden_ND, self.weight_SD.t())
        products_NS = products_NS.to(torch.promote_types(products_NS.dtype, torch.float32))
        return output.of(products_NS if self.bias_S is None else products_NS.add_(self.bias_S))


def _divided(logits: Tensor, temperature: float) -> Tensor:
    return logits.div_(temperature) if temperature != 1.0 else logits


def _blocks(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    target_N: Tensor,
    kind: torch.dtype,
    size: tuple[int, int],
) -> Iterator[_Block]:
    """All blocks, slice by slice of the vocabulary, so that the weight is cast once."""
    hidden_ND = hidden_ND.to(kind)
    for entries in _parts(len(weight_VD), size[1]):
        weight_SD, bias_S = weight_VD[entries].to(kind), None if bias_V is None else bias_V[entries]
        place_N = target_N - entries.start
        inside_N = (place_N >= 0) & (place_N < len(weight_SD))
        place_N1 = place_N.where(inside_N, 0)[:, None]
        for part in _parts(len(target_N), size[0]):
            yield _Block(part, entries, hidden_ND[part], weight_SD, bias_S, place_N1[part], inside_N[part])


def _parts(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
