"""Render the report page: one self-contained HTML file; all its numbers come from the summary."""

import math
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from finr1.core.tracking import METRICS
from finr1.evaluation.report import charts, published, tables, views
from finr1.evaluation.report.gather import STAGES

CURVES = {  # stage -> metrics shown first, in this order; the others follow under "More curves"
    "sft": ("loss", "grad_norm", "learning_rate", "tokens_per_s"),
    "grpo": (
        "reward",
        "accuracy",
        "eval_accuracy",
        "format",
        "completion_tokens",
        "entropy",
        "groups_with_spread",
        "reward_std",
        "clip_ratio",
        "grad_norm",
        "mismatch",
        "tokens_per_s",
        "truncated",
        "undecided",
    ),
}
SHARES = (
    *("format", "accuracy", "clip_ratio", "truncated", "undecided", "groups_with_spread", "packing_efficiency"),
    *("eval_accuracy", "eval_format", "eval_truncated", "eval_undecided", "eval_alarm", "mfu", "padding_fraction"),
)
FIGURES = {
    "accuracy_strict": "accuracy (strict)",
    "accuracy_scaled": "accuracy (scale-tolerant)",
    "format": "well-formed",
}
JUDGED = {"accuracy_judged": "accuracy (judged)"}  # where a judge model scores
FUNNEL = (  # key in the summary, stage that writes it, label, indentation
    ("questions", "questions", "questions", 0),
    ("traces", "distil", "teacher traces", 0),
    ("good", "filter", "good", 1),
    ("bad", "filter", "bad", 1),
    ("undecided", "filter", "undecided", 1),
    ("sft_rows", "sft", "SFT rows (from good)", 0),
    ("rl_questions", "filter", "RL questions (no good trace)", 0),
    ("rl_candidates", "grpo", "measured pass rate", 1),
    ("rl_selected", "grpo", "selected for GRPO", 1),
)


def render(summary: Mapping[str, Any], samples: Mapping[str, Any]) -> str:
    """Return the whole document; stages missing from the summary are shown as not run."""
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {
            "pct": percent,
            "points": points,
            "num": charts.number,
            "duration": duration,
            "p": p_value,
            "short_p": short_p,
            "count": count,
            "gib": gib,
        }
    )
    return environment.get_template("template.html").render(
        s=summary,
        date=time.strftime("%Y-%m-%d %H:%M", time.localtime(summary["began"])) if summary["began"] else "–",
        peak_gib=max(summary["memory_gib"].values(), default=None),
        findings=findings(summary),
        figures_of=figures_of,
        views=views,
        tables=tables,
        charts=charts,
        funnel=funnel(summary),
        stages=STAGES,
        curves={stage: curves(stage, summary["training"].get(stage)) for stage in CURVES},
        methods=methods,
        leaders=tables.leaders(summary["benchmarks"]) if shows_leaders(summary["benchmarks"]) else [],
        published=published,
        style=Markup((folder / "style.css").read_text(encoding="utf-8")),
        script=Markup((folder / "script.js").read_text(encoding="utf-8")),
        samples=htmlsafe_json_dumps(samples, ensure_ascii=False, allow_nan=False),  # no text can end the <script>
        n_samples=len(samples["samples"]),
    )


def figures_of(benchmark: Mapping[str, Any]) -> dict[str, str]:
    """Figure -> label of a benchmark's score table; judged accuracy first, where a judge model scores."""
    return {**JUDGED, **FIGURES} if benchmark["headline"] in JUDGED else FIGURES


def funnel(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the bars of the funnel: label, count, width in percent of the widest bar, whether the stage ran."""
    counts = {key: summary["funnel"].get(key) for key, *_ in FUNNEL}
    widest = max((n for n in counts.values() if n), default=1)
    return [
        {
            "label": label,
            "depth": depth,
            "n": counts[key],
            "width": round(100 * (counts[key] or 0) / widest, 2),
            "ran": counts[key] is not None or stage in summary["stages"],
        }
        for key, stage, label, depth in FUNNEL
    ]


def findings(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compare each model with the one before it on the first benchmark: the cards at the top of the page.

    A change counts as improved or worsened if its interval excludes 0 and p < 0.05 (Holm-corrected where available).
    """
    out, benchmarks = [], summary.get("benchmarks", {})
    leads = next(iter(benchmarks.values()))["headline"] if benchmarks else ""
    where = f"{next(iter(benchmarks))}, " if len(benchmarks) > 1 else ""
    for a, b in pairwise(summary["scores"]):
        tests = summary["paired"].get(f"{b}_vs_{a}") or {}
        for figure, mode in (("format", "greedy"), (leads, "sampled"), (leads, "greedy")):
            test = tests.get(mode)
            test = test and (test if figure == leads else test.get(figure))
            if test:
                p = test.get("p_holm", test["p"])
                clear = (test["low"] > 0 or test["high"] < 0) and p < 0.05
                word = ("improved" if test["diff"] > 0 else "worsened") if clear else "no clear change"
                before, after = (summary["scores"][model][mode][figure] for model in (a, b))
                title = f"{where}{b} vs {a}: {(FIGURES | JUDGED)[figure]}, {mode}"
                out.append({**test, "title": title, "word": word, "before": before, "after": after, "p": p})
    return out


def shows_leaders(benchmarks: Mapping[str, Any]) -> bool:
    """Whether to show a table over all benchmarks: with several, or with published scores to compare."""
    return len(benchmarks) > 1 or any(name in published.BENCHMARKS for name in benchmarks)


def methods(benchmark: Mapping[str, Any]) -> dict[str, str]:
    """Mode -> method of its paired tests."""
    return {mode: test["method"] for modes in benchmark["paired"].values() for mode, test in modes.items() if test}


def curves(stage: str, training: Mapping[str, Any] | None) -> list[dict[str, Any]] | None:
    """Return a stage's charts; None if it did not run."""
    if training is None:
        return None
    names = [name for name in CURVES[stage] if name in training]
    names += [name for name in training if name not in names]
    return [
        {
            "name": name.replace("_", " "),
            "about": METRICS.get(f"{stage}/{name}", ""),
            "last": training[name]["last"],
            "svg": charts.line(name, training[name]["curve"], name in SHARES),
            "extra": name not in CURVES[stage],
        }
        for name in names
    ]


def percent(value: float | None) -> str:
    """Format a share in percent with one decimal; a dash for None."""
    return "–" if value is None else f"{100 * value:.1f}%"


def points(value: float | None) -> str:
    """Format a difference of shares in percentage points, with its sign."""
    if value is None:
        return "–"
    return f"{100 * value:+.1f}".replace("-", "−") if abs(value) >= 0.0005 else "0.0"


def p_value(value: float | None) -> str:
    """Format a p-value: `p = 0.03` or `p < 0.001`."""
    if value is None:
        return "–"
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def short_p(value: float | None) -> str:
    """Format a p-value for a column headed p: `0.03` or `< 0.001`."""
    return p_value(value).removeprefix("p = ").removeprefix("p ")


def count(value: float | None) -> str:
    """Format a whole number with thousands separators; a dash for None."""
    return "–" if value is None else f"{value:,.0f}"


def gib(value: float | None) -> str:
    """Format memory in GiB with one decimal; empty where unknown."""
    return f"{value:.1f} GiB" if value else ""


def duration(seconds: float | None) -> str:
    """Format seconds as `1 h 02 min`, `3 min 20 s` or `4.2 s`."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
