"""stage=serve: the command line of vLLM's server, what is refused before it starts, and where the key goes."""

from __future__ import annotations

import json
import os
import socket
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from finr1.cli import serve
from finr1.cli.serve import check_port, command_of, environment_of, model_folder
from finr1.core.errors import ConfigError
from finr1.settings.root import RootConfig
from finr1.settings.serve import ServeSettings


def config(runs: Path, **settings: Any) -> RootConfig:
    cfg = RootConfig(name="mine", stage="serve")
    cfg.paths.runs = str(runs)
    cfg.serve = ServeSettings(**settings)
    return cfg


def model(folder: Path, template: bool = True) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "x" if template else None}))
    return folder


def test_the_command_line_fits_the_model(tmp_path: Path) -> None:
    folder = model(tmp_path / "mine" / "5_grpo" / "model")
    cfg = config(tmp_path, tensor_parallel_size=2, extra=["--max-num-seqs", "8"])
    cfg.model.max_model_len = 777
    command = command_of(cfg, model_folder(cfg))
    assert command[:3] == [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    given = dict(pairwise(command))
    expected = {
        "--model": str(folder),
        "--host": "127.0.0.1",
        "--port": "8000",
        "--served-model-name": "mine",
        "--dtype": "bfloat16",
        "--max-model-len": "777",
        "--tensor-parallel-size": "2",
        "--max-num-seqs": "8",
    }
    assert {key: given[key] for key in expected} == expected
    assert "--chat-template" not in command and "--reasoning-parser" not in command
    assert "--api-key" not in command and "--middleware" not in command
    cfg.serve.api_key_env = "MINE"
    assert dict(pairwise(command_of(cfg, folder)))["--middleware"].endswith("require_key.RequireKey")


@pytest.mark.parametrize("gpu", [False, True])
def test_a_fraction_of_a_gib_is_what_the_cache_gets(gpu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "4")  # would count before the argument
    monkeypatch.setattr(serve, "gpus", lambda: int(gpu))
    cfg = config(tmp_path, kv_cache_gib=0.25)
    command = command_of(cfg, model(tmp_path / "m"))
    given = dict(pairwise(command)).get("--kv-cache-memory-bytes")
    assert given == (None if gpu else str(256 * 2**20))
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment_of(cfg)


def test_which_model_is_served(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"serve\.model=None: no model in .*5_grpo/model or .*4_sft/model; run stage"):
        model_folder(config(tmp_path))
    sft = model(tmp_path / "mine" / "4_sft" / "model")
    assert model_folder(config(tmp_path)) == sft
    grpo = model(tmp_path / "mine" / "5_grpo" / "model")
    assert model_folder(config(tmp_path)) == grpo
    assert model_folder(config(tmp_path, model="sft")) == sft
    assert model_folder(config(tmp_path, model=str(grpo))) == grpo
    with pytest.raises(ConfigError, match=r"serve\.model=nope: no model in nope"):
        model_folder(config(tmp_path, model="nope"))


def test_the_key_goes_from_one_variable_to_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MINE", "sk-1")
    monkeypatch.setenv("VLLM_API_KEY", "of something else")
    assert environment_of(config(tmp_path, api_key_env="MINE", host="0.0.0.0"))["VLLM_API_KEY"] == "sk-1"
    assert "VLLM_API_KEY" not in environment_of(config(tmp_path))
    assert os.environ["VLLM_API_KEY"] == "of something else"
    with pytest.raises(ConfigError, match=r"serve\.host=0\.0\.0\.0: anyone who reaches it could use the model"):
        environment_of(config(tmp_path, host="0.0.0.0"))
    with pytest.raises(ConfigError, match=r"serve\.api_key_env=NOT_THERE: no such environment variable"):
        environment_of(config(tmp_path, api_key_env="NOT_THERE"))


def test_what_cannot_be_served_is_said_before(tmp_path: Path) -> None:
    bare = model(tmp_path / "bare", template=False)
    with pytest.raises(ConfigError, match=r"serve\.chat_template=None: .*bare has no chat template"):
        command_of(config(tmp_path), bare)
    with pytest.raises(ConfigError, match=r"serve\.chat_template=gone: no such file"):
        command_of(config(tmp_path, chat_template="gone"), bare)
    (bare / "chat_template.jinja").write_text("{{ messages }}")
    assert "--chat-template" not in command_of(config(tmp_path), bare)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"serve\.port={port}: 127\.0\.0\.1:{port} cannot be bound"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)
    with pytest.raises(ConfigError, match=r"serve\.tensor_parallel_size=0"):
        ServeSettings(tensor_parallel_size=0)
