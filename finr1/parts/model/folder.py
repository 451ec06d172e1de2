"""Find a model's folder: on disk, in a package, or on the Hugging Face hub."""

from pathlib import Path
from typing import Any

from finr1.core.errors import ConfigError
from finr1.parts.model import embedded
from finr1.settings.model import ModelSettings

EMBEDDED = "embedded:"


def resolve(settings: ModelSettings) -> Path:
    """The local folder of a model; an embedded one is unpacked, a hub id downloaded or taken from the hub's cache."""
    if settings.path.startswith(EMBEDDED):
        return embedded.unpack(settings.path.removeprefix(EMBEDDED))
    folder = Path(settings.path).expanduser()
    if folder.is_dir():
        return folder
    return from_hub("model.path", settings.path)


def from_hub(key: str, name: str) -> Path:
    """Download a hub model (safetensors only) or take it from the cache; ConfigError if that fails."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]))
    except Exception as error:
        reason = str(error).splitlines()[0][:120]
        why = f"no such folder, and it cannot be downloaded from the hub ({type(error).__name__}: {reason})"
        raise ConfigError(key, name, why, "give a model folder, or a hub id and network access") from error


def first_line(error: Exception) -> str:
    """What a library's error says first, for a message of one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


def quiet() -> None:
    """Turn off transformers' progress bars and warnings: the stage has its own progress bar."""
    from transformers.utils import logging

    untyped: Any = logging
    untyped.disable_progress_bar()
    untyped.set_verbosity_error()
