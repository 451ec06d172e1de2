"""What cannot be loaded or adapted is one line, before the first step."""

from __future__ import annotations

from pathlib import Path

import pytest

from finr1.core.errors import ConfigError
from finr1.parts.model.tokens import load_tokenizer
from finr1.settings.model import LoraSettings, ModelSettings
from finr1.training.model.load import load_trainable
from tests.helpers.tiny_model import tiny


def line_of(folder: Path, settings: ModelSettings) -> str:
    with pytest.raises(ConfigError) as error:
        load_trainable(folder, settings, "eager")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    remedy = "; give the folder of a causal language model: config.json and safetensors"
    lines = [line_of(tmp_path, ModelSettings())]
    (tmp_path / "config.json").write_text('{"model_type": "no such type"}')
    lines.append(line_of(tmp_path, ModelSettings()))
    tiny(attention="eager").config.save_pretrained(tmp_path)
    lines.append(line_of(tmp_path, ModelSettings()))
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    lines.append(line_of(tmp_path, ModelSettings()))
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").mkdir()
    lines.append(line_of(tmp_path, ModelSettings()))
    for line in lines:
        assert line.startswith(f"model.path={tmp_path}: transformers cannot load it (") and line.endswith(remedy)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    tiny(attention="eager").save_pretrained(tmp_path)
    with pytest.raises(ConfigError) as error:
        load_tokenizer(tmp_path)
    assert str(error.value).startswith(f"model.path={tmp_path}: transformers finds no tokenizer in it (")
    assert str(error.value).endswith("; give a model folder with its tokenizer") and "\n" not in str(error.value)


@pytest.mark.parametrize("targets", ["q_porj", "all_linear"])
def test_mistyped_targets_name_those_there_are(targets: str, tmp_path: Path) -> None:
    tiny(attention="eager").save_pretrained(tmp_path)
    line = line_of(tmp_path, ModelSettings(adapter="lora", lora=LoraSettings(targets=targets)))
    assert line.startswith(f"model.lora.targets={targets}: no adapter fits (")
    names = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    assert line.endswith(f"; use all-linear, or some of {names}")


def test_gradient_checkpointing_that_a_model_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(attention="eager")
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(type(model), "supports_gradient_checkpointing", False)
    why = "model.gradient_checkpointing=true: LlamaForCausalLM of transformers has none; use false"
    assert line_of(tmp_path, ModelSettings(gradient_checkpointing=True)) == why
