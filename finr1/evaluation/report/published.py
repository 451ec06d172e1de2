"""Scores that Fin-R1 published on its five benchmarks, shown next to ours and marked as published."""

from collections.abc import Mapping

SOURCE = "arXiv 2503.16252 v5 and the README of SUFE-AIFLM-Lab/Fin-R1; judged by GPT-4o, up to 1,000 rows per benchmark"
MARK = "†"
BENCHMARKS = ("finqa", "convfinqa", "ant_finance", "tfns", "finance_instruct")


# percent; Fin-R1-Zero is GRPO without SFT
_TABLE = {
    "Fin-R1": (76.0, 85.0, 81.0, 71.0, 62.9),
    "Fin-R1, SFT only": (73.0, 81.0, 76.0, 68.0, 61.0),
    "Fin-R1-Zero": (62.1, 76.3, 72.2, 70.9, 57.6),
    "Qwen2.5-7B-Instruct": (60.0, 66.0, 85.0, 68.0, 49.0),
    "DeepSeek-R1": (71.0, 82.0, 90.0, 78.0, 70.0),
}
SCORES: Mapping[str, Mapping[str, float]] = {
    model: {name: value / 100 for name, value in zip(BENCHMARKS, values, strict=True)}
    for model, values in _TABLE.items()
}
