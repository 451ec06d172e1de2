"""The check of a model at load: what it leaves as it was, what it refuses by configuration, and single rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from finr1.core.errors import ConfigError
from finr1.settings.model import LoraSettings, ModelSettings
from finr1.training.model.check import check_rope, choose_rows, load_checked
from finr1.training.model.load import base_model
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row, pack
from tests.helpers.tiny_model import VOCABULARY, tiny

GROUPS = [RowGroup([3, 1, 4, 1], [[5, 9, 2], [6]], [0, 1]), RowGroup([8, 9], [[7, 9, 3, 2, 3]], [2])]
SHORT = ModelSettings(max_model_len=64)


def saved(place: Path, kind: str = "llama", **more: Any) -> Path:
    tiny(kind, "eager", initializer_range=0.3, **more).save_pretrained(place)
    return place


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_the_check_leaves_the_model_and_the_random_states_as_they_were(adapter: str, tmp_path: Path) -> None:
    settings = ModelSettings(adapter=adapter, lora=LoraSettings(r=2, dropout=0.5), max_model_len=64)
    model = load_checked(saved(tmp_path, attention_dropout=0.3), settings)
    inner: Any = base_model(model)
    state = [(name, p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()]
    random = torch.random.get_rng_state()
    replaced = [m for m in inner.modules() if "forward" in vars(m)]
    assert replaced
    assert choose_rows(inner, settings, tmp_path) is None
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(
        torch.equal(p, old) and p.requires_grad == trained
        for (_, old, trained), p in zip(state, model.parameters(), strict=True)
    )
    assert all(p.grad is None for p in model.parameters()) and all(m.training for m in model.modules())
    assert [m for m in inner.modules() if "forward" in vars(m)] == replaced
    assert (inner.config._attn_implementation, inner.single_rows) == ("finr1", False)


def test_a_fault_in_a_replaced_layer_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's own pass is that of its class: without the norms, embeddings and MLPs that we replace."""
    own = torch.nn.functional.silu
    monkeypatch.setattr("finr1.training.model.cpu.mlp.silu", lambda x: own(x) * 1.1)
    with pytest.raises(ConfigError) as error:
        load_checked(saved(tmp_path), SHORT)
    assert f"model.path={tmp_path}: model type llama would not be trained right: packed rows: log-probs" in str(
        error.value
    )
    assert "; single rows: log-probs differ by" in str(error.value) and "\n" not in str(error.value)


def test_a_leak_between_the_texts_of_a_row_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a usable packed attention, rows are single."""

    def causal(module: Any, query: Any, key: Any, value: Any, _: Any, *__: Any, **___: Any) -> Any:
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2), None

    monkeypatch.setattr("finr1.training.rows.attention.attend", causal)
    notes: list[str] = []
    assert load_checked(saved(tmp_path), SHORT, notes.append).single_rows
    assert notes[0].startswith("the model trains in single rows: log-probs differ by ")


@pytest.mark.parametrize(("rows", "single"), [("auto", False), ("packed", False), ("single", True)])
def test_the_rows_of_a_model_that_takes_both_can_be_set(rows: str, single: bool, tmp_path: Path) -> None:
    notes: list[str] = []
    model = load_checked(saved(tmp_path), ModelSettings(rows=rows, max_model_len=64), notes.append)
    assert model.single_rows == single and not notes


def test_packed_rows_are_refused_where_they_would_be_wrong(tmp_path: Path) -> None:
    folder = saved(tmp_path, "qwen2", use_sliding_window=True, sliding_window=16, max_window_layers=0)
    line = (
        "model.rows=packed: model type qwen2 would not be trained right: packed rows: a token attends to 16 of "
        "model.max_model_len=64; use model.rows=auto"
    )
    with pytest.raises(ConfigError) as error:
        load_checked(folder, ModelSettings(rows="packed", max_model_len=64))
    assert str(error.value) == line
    assert not load_checked(folder, ModelSettings(rows="packed", max_model_len=16)).single_rows


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
        {
            "rope_type": "longrope",
            "short_factor": [1.0] * 4,
            "long_factor": [2.0] * 4,
            "original_max_position_embeddings": 256,
            "rope_theta": 1e4,
        },
    ],
)
def test_rotary_frequencies_that_depend_on_the_length_are_refused_where_they_change(rope: Any, tmp_path: Path) -> None:
    folder = saved(tmp_path, rope_parameters=rope)
    assert not load_checked(folder, ModelSettings(max_model_len=256)).single_rows
    with pytest.raises(ConfigError) as error:
        load_checked(folder, ModelSettings(max_model_len=257))
    why = f"with rope_type {rope['rope_type']} the rotary frequencies change beyond 256 tokens"
    assert str(error.value) == f"model.max_model_len=257: {why}; use at most 256"


def test_rotary_types_by_kind_of_layer_are_read_too() -> None:
    config = tiny().config
    config.rope_parameters = {"full_attention": {"rope_type": "dynamic"}, "sliding_attention": {"rope_type": "default"}}
    with pytest.raises(ConfigError, match="with rope_type dynamic"):
        check_rope(config, 300)


def test_single_rows_give_the_log_probs_and_gradients_of_packed_ones() -> None:
    found = []
    for single in (False, True):
        model = tiny(attention="sdpa" if single else "")
        model.single_rows = single
        rows = pack(GROUPS, 100, single)
        assert len(rows) == 1
        stats = completion_stats(model, make_row(rows[0]), 0.7)
        number_N = make_row(rows[0]).number_N
        by_number = [stats.logprobs_N[number_N == n] for n in range(3)]
        torch.cat(by_number).mul(torch.arange(9.0)).sum().backward()
        found.append((torch.cat(by_number).detach(), *(p.grad for p in model.parameters())))
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() <= 1e-5 * one.norm()


def test_single_rows_hold_each_completion_once_and_are_padded_within_the_budget() -> None:
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randint(VOCABULARY, (n,), generator=generator).tolist()  # noqa: E731
    lengths = [[1 + (5 * i + j) % 11 for j in range(4)] for i in range(9)]
    groups = [RowGroup(draw(3 + i), list(map(draw, ls)), range(4 * i, 4 * i + 4)) for i, ls in enumerate(lengths)]
    rows = pack(groups, 40, single=True)
    assert sorted(n for row in rows for group in row for n in group.numbers) == list(range(36))
    assert all(len(group.completions) == 1 for row in rows for group in row)
    assert all(len(row) * max(group.n_tokens for group in row) <= 40 for row in rows)
    pairs = {n: (group.prompt, c) for group in groups for n, c in zip(group.numbers, group.completions, strict=True)}
    assert all((group.prompt, group.completions[0]) == pairs[group.numbers[0]] for row in rows for group in row)
    assert len(rows) < 36


def test_a_shared_prompt_is_no_single_row() -> None:
    model = tiny(attention="sdpa")
    model.single_rows = True
    with pytest.raises(ValueError, match="each completion needs its own prompt"):
        completion_stats(model, make_row(GROUPS))
