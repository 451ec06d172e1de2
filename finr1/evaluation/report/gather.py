"""Gather the summary of a run: every number of the report, from the stage folders and the metrics mirror.

Numbers of a stage that has not run are None, never 0.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from finr1.core.files import read_json
from finr1.core.jsonl import count_lines, read_jsonl
from finr1.core.scores import Pair, Score
from finr1.core.stage_folder import MANIFEST
from finr1.core.tracking import read_metrics
from finr1.evaluation.report.agreement import agreement
from finr1.evaluation.scores import intervals as stats

STAGES = ("questions", "distil", "filter", "sft", "grpo", "evaluate")  # of a full run, in order
OUTCOMES = ("good", "bad", "undecided")
_SHOWN = (  # section of the configuration, its settings that the report shows where the manifests have them
    ("", "seed source benchmark"),
    ("engine", "teacher policy"),
    ("model", "name dtype adapter"),
    ("prompt", "system"),
    ("distil.sampling", "n temperature"),
    ("judge", "answer reasoning"),
    ("filter", "criteria_needed scale_tolerant audit_share"),
    ("sft", "epochs learning_rate max_rows row_tokens"),
    ("", "reward"),
    ("grpo", "reading steps questions_per_step group_size learning_rate loss.kind loss.clip_low loss.clip_high"),
    ("grpo", "sampling.temperature sampling.max_new_tokens select.low select.high"),
    ("evaluate", "reading scorer judge_repeats"),
    ("engine", "judge.model"),
    ("evaluate.sampling", "n temperature top_p max_new_tokens"),
)
SETTINGS = [f"{section}.{name}".lstrip(".") for section, names in _SHOWN for name in names.split()]


def summarise(name: str, run_dir: Path, folders: Mapping[str, Path]) -> dict[str, Any]:
    """Return the content of `summary.json`. `folders` maps stage names to folders, in order; they may be missing."""
    manifests = {
        stage: read_json(folder / MANIFEST) for stage, folder in folders.items() if (folder / MANIFEST).exists()
    }
    benchmarks = benchmarks_of(folders.get("evaluate", Path("none")))
    first: Mapping[str, Any] = next(iter(benchmarks.values()), {})
    settings: dict[str, Any] = {}
    versions: dict[str, str] = {}
    for manifest in manifests.values():
        settings.update(manifest.get("settings", {}))
        versions.update(manifest.get("versions", {}))
    summary: dict[str, Any] = finite(
        {
            "name": name,
            "began": min((m["began"] for m in manifests.values()), default=None),
            "stages": {stage: manifest["seconds"] for stage, manifest in manifests.items()},
            "memory_gib": {stage: gib for stage, manifest in manifests.items() if (gib := manifest.get("memory_gib"))},
            "funnel": funnel(folders, manifests),
            "filter": filter_table(folders.get("filter")),
            "agreement": agreement(
                folders.get("filter"), folders.get("questions"), manifests.get("filter", {}).get("settings", {})
            ),
            "scores": first.get("scores", {}),
            "paired": first.get("paired", {}),
            "benchmarks": benchmarks,
            "judge": judge_cost(manifests.get("evaluate", {}).get("counts", {})),
            "training": {
                stage: training(run_dir, stage, manifests[stage]["began"])
                for stage in ("sft", "grpo")
                if stage in manifests
            },
            "notes": {s: notes for s, m in manifests.items() if (notes := m["counts"].get("notes"))},
            "versions": versions,
            "settings": {key: value for key in SETTINGS if (value := lookup(settings, key)) is not None},
        }
    )
    return summary


def benchmarks_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return benchmark -> its scores by model and mode, and its tests by pair and mode, as the page shows them."""
    out: dict[str, dict[str, Any]] = {}
    for score in Score.read(folder / "scores.json"):
        new = {"questions": score.questions, "headline": score.headline}
        table = out.setdefault(score.benchmark, new | {"scores": {}, "paired": {}, "training_rows": {}})
        table["scores"].setdefault(score.model, {})[score.mode] = score.values
        table["training_rows"][score.model] = score.training_rows
    for pair in Pair.read(folder / "paired.json"):
        tests = out[pair.benchmark]["paired"].setdefault(f"{pair.model}_vs_{pair.against}", {})
        tests[pair.mode] = pair.values or None
    return out


def judge_cost(counts: Mapping[str, Any]) -> dict[str, int] | None:
    """Return calls and tokens of the evaluation's judge model; None without one."""
    if "judge_asked" not in counts:
        return None
    paid = {key: counts.get(key, 0) for key in ("paid_prompt_tokens", "paid_completion_tokens")}
    return {"asked": counts["judge_asked"], "failed": counts["judge_failed"], **paid}


def lookup(settings: Mapping[str, Any], dotted: str) -> Any:
    """Look up a dotted key in settings keyed by dotted prefixes (`engine.policy`, `sft`); parts give their names."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        value: Any = settings.get(".".join(parts[:cut]))
        for part in parts[cut:]:
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(value, Mapping):
            target = value.get("_target_")
            return target.rsplit(".", 1)[-1] if isinstance(target, str) else ", ".join(value)
        if value is not None:
            return value
    return None


def funnel(folders: Mapping[str, Path], manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the number of rows after each step; `removed` counts removed questions by reason."""

    def rows(stage: str, name: str) -> int | None:
        path = folders.get(stage, Path("none")) / name
        return count_lines(path) if path.exists() else None

    def counted(stage: str, key: str) -> Any:
        return manifests.get(stage, {}).get("counts", {}).get(key)

    removed = folders.get("questions", Path("none")) / "removed.jsonl"
    selected = counted("grpo", "selected")
    return {
        "questions": rows("questions", "questions.jsonl"),
        "removed": dict(Counter(row["reason"] for row in read_jsonl(removed))) if removed.exists() else None,
        "traces": rows("distil", "traces.jsonl"),
        **{outcome: rows("filter", f"{outcome}.jsonl") for outcome in OUTCOMES},
        "sft_rows": rows("sft", "rows.jsonl"),
        "rl_questions": rows("filter", "rl.jsonl"),
        "rl_candidates": counted("grpo", "candidates"),
        "rl_selected": rows("grpo", "questions.jsonl") if selected is None else selected,
    }


def filter_table(folder: Path | None) -> dict[str, Any] | None:
    """Return precision and recall of the filter on the teacher's planted faults, from `filter_summary.json`.

    A rejected trace is caught, a kept one missed; undecided ones are counted separately. Adds Wilson intervals to
    precision, recall and false alarms (clean traces rejected), and per fault the checks that failed (`failed_checks`).
    None without a filter or planted faults.
    """
    if folder is None or not (folder / "filter_summary.json").exists():
        return None
    faults = read_json(folder / "filter_summary.json").get("faults")
    if not faults:
        return None
    failed_checks = _failed_checks(folder / "bad.jsonl")
    rows = {fault: {**row, "failed_checks": failed_checks.get(fault, {})} for fault, row in faults["by_fault"].items()}
    clean = {**faults["clean"], "failed_checks": failed_checks.get(None, {})}
    caught, missed = (sum(row[key] for row in rows.values()) for key in ("caught", "missed"))
    for row in rows.values():
        row["recall"] = _share(row["caught"], row["caught"] + row["missed"])
    intervals = {
        "precision": _share(caught, caught + clean["called_bad"]),
        "recall": _share(caught, caught + missed),
        "false_alarms": _share(clean["called_bad"], clean["called_bad"] + clean["kept"]),
    }
    return {
        **{name: share["value"] for name, share in intervals.items()},
        "intervals": intervals,
        "caught": caught,
        "missed": missed,
        "by_fault": rows,
        "clean": clean,
        "note": faults.get("note", ""),
    }


def _failed_checks(path: Path) -> dict[str | None, dict[str, int]]:
    """Return fault (None: clean trace) -> check -> number of bad traces that failed it, most frequent first."""
    counts: dict[str | None, Counter[str]] = {}
    for row in read_jsonl(path) if path.exists() else ():
        checks = {"answer": row["answer"], **row["criteria"]}
        counter = counts.setdefault((row["trace"].get("meta") or {}).get("fault"), Counter())
        counter.update(name for name, verdict in checks.items() if verdict["value"] == 0)
    return {fault: dict(counter.most_common()) for fault, counter in counts.items()}


def _share(successes: int, n: int) -> dict[str, Any]:
    if n == 0:
        return {"value": None, "low": None, "high": None, "n": 0}
    interval = stats.wilson(successes, n)
    return {"value": successes / n, "low": interval.low, "high": interval.high, "n": n}


def training(run_dir: Path, stage: str, began: float, points: int = 400) -> dict[str, Any]:
    """Return metric -> first and last value and a curve of at most `points` pairs [step, value]."""
    curves: dict[str, list[list[float]]] = {}
    for step, metrics in read_metrics(run_dir, stage, since=began):
        for metric, value in metrics.items():
            curves.setdefault(metric, []).append([step, value])
    return {
        metric: {"first": curve[0][1], "last": curve[-1][1], "steps": len(curve), "curve": thin(curve, points)}
        for metric, curve in curves.items()
    }


def thin(curve: Sequence[list[float]], points: int) -> list[list[float]]:
    """Thin a curve to means of equal chunks; non-finite values are left out, a chunk without finite ones is NaN."""
    size = max(1, math.ceil(len(curve) / points))
    out = []
    for i in range(0, len(curve), size):
        run = curve[i : i + size]
        values = [value for _, value in run if math.isfinite(value)]
        out.append([run[-1][0], sum(values) / len(values) if values else math.nan])
    return out


def finite(value: Any) -> Any:
    """Make a value valid JSON: NaN and infinities become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [finite(item) for item in value]
    return value
