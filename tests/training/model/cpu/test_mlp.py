"""What the backward pass needs: the lean MLP to the last bit, gradient checkpointing, and the memory that both save."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from finr1.settings.model import LoraSettings, ModelSettings
from finr1.training.model.cpu.mlp import Gated, lean_mlps
from finr1.training.model.load import load_trainable
from finr1.training.rows.attention import register
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row
from tests.helpers.tiny_model import SHAPES, tiny

ROW = [RowGroup([1, 2, 3], [[4, 5, 9], [6]], [0, 1]), RowGroup([7, 7], [[8, 9]], [2])]


def test_gated_mlp_by_hand_and_against_finite_differences() -> None:
    """silu(x) = x / (1 + e^-x): of 0 it is 0, of log 3 it is log 3 * 3 / 4."""
    log3 = torch.tensor(3.0).log()
    out = Gated.apply(torch.stack([torch.tensor(0.0), log3]), torch.tensor([5.0, 2.0]), [])
    torch.testing.assert_close(out, torch.stack([torch.tensor(0.0), log3 * 1.5]))
    generator = torch.Generator().manual_seed(0)
    gate, up = (torch.randn(3, 4, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda *both: Gated.apply(*both, []), (gate, up))


def passed(model: Any, autocast: bool) -> list[Tensor]:
    """Log-probabilities and gradients of a row."""
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logprobs_N = completion_stats(model, make_row(ROW)).logprobs_N
        logprobs_N.sum().backward()
    return [logprobs_N.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kind", list(SHAPES))
def test_log_probs_and_gradients_are_the_same_to_the_last_bit(kind: str, autocast: bool) -> None:
    plain, lean = tiny(kind), tiny(kind)
    assert lean_mlps(lean) == 3 and lean_mlps(tiny(kind, hidden_act="gelu")) == 0
    for theirs, ours in zip(passed(plain, autocast), passed(lean, autocast), strict=True):
        assert torch.equal(theirs, ours)
    assert plain.state_dict().keys() == lean.state_dict().keys()


class Blocks(ctypes.Structure):
    """`struct mallinfo2` of malloc.h."""

    names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = tuple((name, ctypes.c_size_t) for name in names)


def live() -> int:
    """Bytes that glibc has given out."""
    call = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if call is None:
        pytest.skip("no mallinfo2 here")
    call.restype = Blocks
    found = call()
    return int(found.uordblks + found.hblkhd)


WIDTH, TOKENS, LAYERS = 4096, 1024, 3


def kept(model: Any) -> int:
    """Bytes that a forward pass keeps for its backward pass."""
    row = make_row([RowGroup([1] * (TOKENS - 10), [[2] * 10], [0])])
    completion_stats(model, row).logprobs_N.sum().backward()  # what is made once
    model.zero_grad()
    before = live()
    result = completion_stats(model, row).logprobs_N
    found = live() - before
    assert result.requires_grad
    return found


def test_a_pass_keeps_two_of_an_mlps_four_wide_activations() -> None:
    shape = {"intermediate_size": WIDTH, "max_position_embeddings": TOKENS}
    plain, lean = tiny(**shape), tiny(**shape)
    lean_mlps(lean)
    before, after = kept(plain), kept(lean)
    activation = LAYERS * TOKENS * WIDTH * 4
    assert before > 4 * activation
    assert (before - after) / activation == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_gradient_checkpointing_changes_memory_alone(tmp_path: Path, adapter: str) -> None:
    tiny(intermediate_size=WIDTH, max_position_embeddings=TOKENS).save_pretrained(tmp_path)
    models = []
    for checkpointing in (False, True):
        torch.manual_seed(0)  # of the adapters
        settings = ModelSettings(adapter=adapter, lora=LoraSettings(r=4), gradient_checkpointing=checkpointing)
        models.append(load_trainable(tmp_path, settings, register()))
    for model in models:
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(parameter, 0.1)
    for theirs, ours in zip(*(passed(model, True) for model in models), strict=True):
        assert torch.equal(theirs, ours)
    before, after = map(kept, models)
    assert after < 0.1 * before


@pytest.mark.parametrize(("option", "is_used"), [("dora", "use_dora"), ("rslora", "use_rslora")])
def test_forms_of_adapters_are_chosen_by_settings(tmp_path: Path, option: str, is_used: str) -> None:
    tiny().save_pretrained(tmp_path)
    for chosen in (False, True):
        settings = ModelSettings(adapter="lora", lora=LoraSettings(r=4, alpha=8, **{option: chosen}))
        model = load_trainable(tmp_path, settings, register())
        assert getattr(model.peft_config["default"], is_used) is chosen
        layer = model.get_base_model().model.layers[0].mlp.up_proj
        assert layer.scaling["default"] == (4.0 if chosen and option == "rslora" else 2.0)  # 8 / sqrt(4), 8 / 4
        assert any("magnitude" in name for name, _ in model.named_parameters()) == (chosen and option == "dora")
