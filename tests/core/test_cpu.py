"""Which CPUs multiply bf16 natively, and the precision that the CPU configs choose."""

from __future__ import annotations

from pathlib import Path

import pytest

from finr1.cli import compose
from finr1.core import cpu


@pytest.mark.parametrize(
    ("flags", "native"),
    [
        ("flags : fpu sse2 avx2 avx512f avx512_bf16 fma", True),
        ("flags : avx512f amx_bf16 amx_tile", True),
        ("Features : fp asimd bf16 i8mm", True),
        ("flags : fpu sse2 avx2 fma", False),
        ("flags : avx512f avx512bw", False),
    ],
)
def test_bf16_instructions_by_the_flags_of_the_cpu(tmp_path: Path, flags: str, native: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    assert cpu.has_bf16(tmp_path / "cpuinfo") is native
    assert not cpu.has_bf16(tmp_path / "missing")


@pytest.mark.parametrize(
    ("native", "precision", "dtype"), [(True, "bf16-mixed", "bfloat16"), (False, "32-true", "float32")]
)
def test_the_cpu_configs_use_bf16_only_where_it_is_fast(
    monkeypatch: pytest.MonkeyPatch, native: bool, precision: str, dtype: str
) -> None:
    monkeypatch.setattr(compose, "has_bf16", lambda: native)
    values = compose.plain(compose.compose([]))
    assert values["trainer"]["fit"]["precision"] == precision
    assert values["model"]["dtype"] == values["engine"]["policy"]["model"]["dtype"] == dtype
    chosen = compose.plain(compose.compose(["trainer.fit.precision=bf16-mixed", "model.dtype=bfloat16"]))
    assert (chosen["trainer"]["fit"]["precision"], chosen["model"]["dtype"]) == ("bf16-mixed", "bfloat16")
