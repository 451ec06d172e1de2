"""What this machine's processor can do."""

import re
from functools import cache
from pathlib import Path

_FLAGS = re.compile(r"\b(avx512_bf16|amx_bf16|bf16)\b")  # x86 with AVX-512 or AMX; ARM


@cache
def has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has instructions for bf16 products, as far as Linux tells.

    Without them torch emulates bf16, many times slower than fp32.
    """
    return cpuinfo.is_file() and bool(_FLAGS.search(cpuinfo.read_text(encoding="utf-8", errors="replace")))
