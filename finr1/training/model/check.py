"""Check a model before the first step: our log-probs and gradients of a few tokens against the model's own.

The model's own are those of each sequence alone, by its class (no replaced layers) under eager attention. Ours are
those of training: packed rows with a shared prompt or, where these differ (state along a row, ALiBi, masks and sinks of
the model's own, windows shorter than `model.max_model_len`), single rows under the model's own attention. Both are
computed in fp32 (4-bit weights too) and without dropout. Random states stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from finr1.core.errors import ConfigError
from finr1.parts.model.folder import first_line
from finr1.settings.model import ModelSettings
from finr1.training.model.load import base_model, load_trainable
from finr1.training.model.weights import is_packed
from finr1.training.rows import attention
from finr1.training.rows.logprobs import row_stats
from finr1.training.rows.rows import RowGroup, make_row

BOUND = 1e-3  # nats of a token; of the gradient relative to its norm
TERMS = ("softcap", "s_aux", "position_bias", "indices", "block_indices")  # of transformers' attention: they change it
OWN_MASK = "its attention has a mask of its own"
LOOKS = f"{attention.NAME}_looks"
IDS = 997  # token ids below this are used
LENGTHS = ((7, (4, 6)), (5, (4,)))  # tokens of prompt and completions, by group


class _Mask:
    """A layer's mask before it is computed: `sees(batch, head, query, key)`. ValueError for a layer that changes it."""

    def __init__(self, sees: Callable[..., Tensor]) -> None:
        self.sees = sees

    def __getattr__(self, _: str) -> Any:
        raise ValueError(OWN_MASK)

    def __getitem__(self, _: Any) -> Any:
        raise ValueError(OWN_MASK)


class Outcome(NamedTuple):
    """Of the sample's completion tokens."""

    logprobs_N: Tensor
    gradient_VD: Tensor  # of a weighted sum of the log-probs with respect to each token id's embeddings


def load_checked(folder: Path, settings: ModelSettings, note: Callable[[str], None] = lambda _: None) -> Any:
    """Load a model for training, in rows that give its own log-probs and gradients; `note` is told of single rows.

    ConfigError: see `load_trainable` and `choose_rows`.
    """
    model = load_trainable(folder, settings, "eager")
    fault = choose_rows(base_model(model), settings, folder)
    if fault:
        note(f"the model trains in single rows: {fault}")
    return model


def choose_rows(inner: Any, settings: ModelSettings, folder: Path) -> str | None:
    """Make the model take packed rows or, where it cannot, single ones; returns why not packed ones.

    ConfigError where neither kind that `model.rows` allows gives the model's own log-probs and gradients.
    """
    kind = inner.config.model_type
    check_rope(inner.config, settings.max_model_len)
    name = attention.register(settings.attention)
    faults: dict[str, str] = {}
    with torch.random.fork_rng(devices=[]), _still(inner):
        try:
            groups = _sample(inner)
            expected = _own(inner, groups)
        except Exception as error:
            why = f"a pass of model type {kind} fails: {first_line(error)}"
            raise ConfigError("model.path", folder, why, "use another model") from error
        inner.single_rows = False
        own = _own_attention(inner, groups[0], settings.max_model_len)
        capped = own is not None and own.endswith(TERMS)  # torch's kernels would drop it
        for rows, implementation in (("packed", name), ("single", "eager" if capped else "sdpa"), ("single", "eager")):
            if settings.rows in ("auto", rows):
                inner.single_rows = rows == "single"
                fault = (own if rows == "packed" else None) or _fault(inner, groups, expected, implementation)
                if fault is None:
                    return faults.get("packed")
                faults[rows] = fault
    why = f"model type {kind} would not be trained right: " + "; ".join(f"{k} rows: {f}" for k, f in faults.items())
    if settings.rows == "packed":
        raise ConfigError("model.rows", "packed", why, "use model.rows=auto")
    raise ConfigError("model.path", folder, why, "use another model")


def check_rope(config: Any, max_model_len: int) -> None:
    """ConfigError where the rotary frequencies would depend on the longest sequence of a row."""
    config = config.get_text_config()
    ropes = getattr(config, "rope_parameters", None) or {}
    for rope in (ropes, *ropes.values()):
        kind = rope.get("rope_type") if isinstance(rope, dict) else None
        if kind in ("dynamic", "longrope"):
            limit = rope.get("original_max_position_embeddings") or config.max_position_embeddings
            if max_model_len > limit:
                why = f"with rope_type {kind} the rotary frequencies change beyond {limit} tokens"
                raise ConfigError("model.max_model_len", max_model_len, why, f"use at most {limit}")


def _sample(inner: Any) -> list[RowGroup]:
    """Two groups of fixed token ids."""
    size = min(IDS, len(inner.get_input_embeddings().weight), len(inner.get_output_embeddings().weight))
    ids = iter(11 + 37 * i for i in range(sum(n + sum(more) for n, more in LENGTHS)))

    def some(n: int) -> list[int]:
        return [next(ids) % size for _ in range(n)]

    return [RowGroup(some(n), [some(m) for m in more], range(len(more))) for n, more in LENGTHS]


def _alone(groups: list[RowGroup]) -> list[RowGroup]:
    return [RowGroup(group.prompt, [completion], [0]) for group in groups for completion in group.completions]


def _own(inner: Any, groups: list[RowGroup]) -> Outcome:
    """By the model's class, each sequence alone."""
    replaced = [(m, m.__dict__.pop("forward")) for m in inner.modules() if "forward" in m.__dict__]
    inner.set_attn_implementation("eager")
    outcomes: list[Outcome] = []
    try:
        for prompt, (completion,), *_ in _alone(groups):
            with _outcome(inner) as outcome:
                ids_T = torch.tensor([*prompt, *completion], device=_device(inner))
                logits_TV = inner(input_ids=ids_T[None], use_cache=False).logits[0].float()
                logprobs_TV, target_N = logits_TV[len(prompt) - 1 : -1].log_softmax(-1), ids_T[len(prompt) :]
                outcomes.append(outcome(logprobs_TV.gather(-1, target_N[:, None])[:, 0], target_N))
    finally:
        for module, forward in replaced:
            module.forward = forward
    gradients: Any = [outcome.gradient_VD for outcome in outcomes]
    return Outcome(torch.cat([outcome.logprobs_N for outcome in outcomes]), sum(gradients))


def _fault(inner: Any, groups: list[RowGroup], expected: Outcome, implementation: str) -> str | None:
    """Why our path is not the model's own under this attention; None if it is."""
    try:
        inner.set_attn_implementation(implementation)
        row = make_row(_alone(groups) if inner.single_rows else groups)
        with _outcome(inner) as outcome:
            ours = outcome(row_stats(inner, row, 1.0, False, False).logprobs_N, row.target_N)
    except Exception as error:
        return first_line(error)
    gap = float((ours.logprobs_N - expected.logprobs_N).abs().max())
    of_gradient = float((ours.gradient_VD - expected.gradient_VD).norm() / expected.gradient_VD.norm())
    if gap <= BOUND and of_gradient <= BOUND:  # not NaN
        return None
    return f"log-probs differ by {gap:.2g} nats from the model's own, gradients by {of_gradient:.2g}"


def _own_attention(inner: Any, group: RowGroup, max_model_len: int) -> str | None:
    """What the model's attention has that a row's layout lacks; None if nothing.

    One pass under an attention that computes nothing, but looks at what each layer gives it.
    """
    if getattr(inner.config.get_text_config(), "attn_temperature_tuning", False):
        return "it scales queries by their place in the row"
    found: list[str] = []
    last, keys = torch.tensor(max_model_len - 1), torch.arange(max_model_len)

    def look(_: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **given: Any) -> tuple[Tensor, None]:
        found.extend(f"its attention has {term}" for term in TERMS if given.get(term) is not None)
        if "layout" not in given:
            found.append("its layers do not pass on the row's layout")
        if isinstance(mask, Tensor):
            found.append(OWN_MASK)
        elif mask is not None:
            seen = int((mask.sees(0, 0, last, keys) & (keys >= 0)).sum())
            if seen < max_model_len:
                found.append(f"a token attends to {seen} of model.max_model_len={max_model_len}")
        return value.new_zeros(1, query.shape[2], query.shape[1], value.shape[3]), None

    AttentionInterface.register(LOOKS, look)
    AttentionMaskInterface.register(LOOKS, lambda *_, mask_function, **__: _Mask(mask_function))
    try:
        inner.set_attn_implementation(LOOKS)
        if inner.config._attn_implementation != LOOKS:
            return "its attention cannot be replaced"
        with torch.no_grad():
            row_stats(inner, make_row([RowGroup(group.prompt, group.completions[:1], [0])]), 1.0, False, False)
    except Exception as error:
        found.append(first_line(error))
    return found[0] if found else None


@contextmanager
def _still(inner: Any) -> Iterator[None]:
    """Switch off dropout and weight gradients, and compute 4-bit weights in fp32, within the block."""
    modules, weights = [(m, m.training) for m in inner.modules()], [p for p in inner.parameters() if p.requires_grad]
    four_bit: list[Any] = [m for m, _ in modules if is_packed(m) and hasattr(m, "compute_dtype")]  # no peft wrappers
    kinds = [m.compute_dtype for m in four_bit]
    for module, _ in modules:
        module.training = is_packed(module)  # else bitsandbytes would repack its weights
    for module in four_bit:
        module.compute_dtype = torch.float32
    for weight in weights:
        weight.requires_grad = False
    try:
        yield
    finally:
        for module, training in modules:
            module.training = training
        for module, kind in zip(four_bit, kinds, strict=True):
            module.compute_dtype = kind
        for weight in weights:
            weight.requires_grad = True


@contextmanager
def _outcome(inner: Any) -> Iterator[Callable[[Tensor, Tensor], Outcome]]:
    """Gives a function of log-probs and targets of a pass within the block."""
    seen: list[tuple[Tensor, Tensor]] = []

    def cut(_: Any, args: tuple[Tensor], embeddings: Tensor) -> Tensor:
        seen.append((args[0], embeddings.detach().requires_grad_()))
        return seen[-1][1].clone()

    def outcome(logprobs_N: Tensor, target_N: Tensor) -> Outcome:
        ((ids, leaf),) = seen
        weighted = logprobs_N * (1.5 + target_N.to(logprobs_N).cos())
        (gradient,) = torch.autograd.grad(weighted.sum(), leaf)
        total_VD = leaf.new_zeros(IDS, leaf.shape[-1])
        return Outcome(logprobs_N.detach(), total_VD.index_add(0, ids.flatten(), gradient.flatten(0, -2)))

    handle = inner.get_input_embeddings().register_forward_hook(cut)
    try:
        yield outcome
    finally:
        handle.remove()


def _device(inner: Any) -> torch.device:
    device: torch.device = inner.get_input_embeddings().weight.device
    return device
