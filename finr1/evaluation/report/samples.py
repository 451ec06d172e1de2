"""Choose completions for the sample browser: from the evaluation, GRPO's rollouts and the filtered traces."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from finr1.core.jsonl import read_jsonl
from finr1.core.types import stable_id
from finr1.evaluation.scores.rows import ScoredCompletion, read_rows

Row = dict[str, Any]
T = TypeVar("T")
_ENDINGS = {"length": ", truncated", "error": ", failed call"}


def collect(folders: Mapping[str, Path], per_model: int) -> Row:
    """Return `{"questions": {id: {text, gold, kind}}, "samples": [...]}`, about `per_model` samples per model.

    A sample has origin (evaluation | training | filter), group and mode (filters of the browser), question id, text,
    answer, outcome (of `rows.OUTCOMES`, or good | bad | undecided) and `checks`: [name, value, why]. Those of
    the evaluation also have `bench` and `disagree` (whether the decided verdicts of rules and judges differ).
    """
    questions: dict[str, Row] = {}
    samples: list[Row] = []
    if per_model == 0:
        folders = {}
    if "evaluate" in folders:
        samples += _evaluation(folders["evaluate"], questions, per_model)
    if "grpo" in folders:
        samples += _training(folders["grpo"] / "samples.jsonl", questions, per_model)
    if "filter" in folders:
        samples += _filtered(folders, questions, per_model)
    used = {sample["question"] for sample in samples}
    return {"questions": {key: row for key, row in questions.items() if key in used}, "samples": samples}


def balanced(
    rows: Sequence[T], stratum: Callable[[T], Hashable], identity: Callable[[T], tuple[object, ...]], n: int
) -> list[T]:
    """At most `n` rows, as evenly over the strata as possible.

    The choice depends on `identity` alone, which begins with the question id, so that different models are mostly shown
    on the same questions.
    """
    pools: dict[Hashable, list[T]] = {}
    for row in sorted(rows, key=lambda row: stable_id("report", *identity(row))):
        pools.setdefault(stratum(row), []).append(row)
    chosen: list[T] = []
    depth = 0
    while len(chosen) < min(n, len(rows)):
        chosen += [pool[depth] for pool in pools.values() if depth < len(pool)]
        depth += 1
    return chosen[:n]


def _identity(row: Row) -> tuple[object, ...]:
    return (row["question_id"], row.get("sample"), row.get("step"))


def outcome_of(value: float | None) -> str:
    """Name a verdict; between 0 and 1 it is partly right."""
    return "undecided" if value is None else "right" if value == 1 else "wrong" if value == 0 else "partly right"


def _evaluation(folder: Path, questions: dict[str, Row], per_model: int) -> list[Row]:
    paths = sorted(folder.glob("*/*.jsonl"))
    for path in folder.glob("*/questions.jsonl"):
        questions.update({row["id"]: _question(row) for row in read_jsonl(path)})
    cells = [path for path in paths if path.name != "questions.jsonl"]
    samples = []
    for path in cells:
        model, mode = path.stem.rsplit(".", 1)
        siblings = sum(other.stem.rsplit(".", 1)[0] == model for other in cells)
        rows = balanced(
            read_rows(path),
            lambda row: (row.outcome, _disagree(row)),
            lambda row: (row.question_id, row.sample, None),
            per_model // siblings or 1,
        )
        for row in rows:
            checks = [["well-formed", None if row.well_formed is None else float(row.well_formed), row.format_why]]
            checks.append(["rules (strict)", row.strict, row.strict_why])
            checks.append(["rules (scale-tolerant)", row.scaled, row.scaled_why])
            checks += [[f"{v.judge or 'judge'}, repeat {i}", v.value, v.why] for i, v in enumerate(row.judges, 1)]
            if row.judged_by:
                checks.append([f"final verdict (by {row.judged_by})", row.judged, row.judged_why])
            samples.append(
                {
                    "origin": "evaluation",
                    "group": model,
                    "bench": path.parent.name,
                    "mode": mode,
                    "question": row.question_id,
                    "text": row.text if row.reasoning is None else f"<think>\n{row.reasoning}\n</think>\n{row.text}",
                    "answer": row.answer,
                    "outcome": row.outcome,
                    "disagree": _disagree(row),
                    "note": f"{row.n_tokens} tokens{_ENDINGS.get(row.finish_reason, '')}",
                    "checks": checks,
                }
            )
    return samples


def _disagree(row: ScoredCompletion) -> bool:
    verdicts = {row.strict, row.scaled, *(verdict.value for verdict in row.judges)}
    return len(verdicts - {None}) > 1


def _training(path: Path, questions: dict[str, Row], n: int) -> list[Row]:
    rows = list(read_jsonl(path)) if path.exists() else []
    samples = []
    for row in sorted(balanced(rows, lambda row: row["step"], _identity, n), key=lambda row: int(row["step"])):
        questions.setdefault(row["question_id"], {"text": _text(row["prompt"]), "gold": row["gold"], "kind": ""})
        rewards = {name: verdict or {} for name, verdict in row["rewards"].items()}
        accuracy = rewards.get("accuracy", {"value": row["reward"]})
        note = f"reward {_short(row['reward'])}, advantage {_short(row['advantage'])}"
        samples.append(
            {
                "origin": "training",
                "group": "grpo",
                "mode": f"step {row['step']}",
                "question": row["question_id"],
                "text": row["completion"],
                "answer": accuracy.get("answer"),
                "outcome": outcome_of(accuracy.get("value")),
                "note": note + (", truncated" if row["truncated"] else ""),
                "checks": [[name, verdict.get("value"), verdict.get("why", "")] for name, verdict in rewards.items()],
            }
        )
    return samples


def _filtered(folders: Mapping[str, Path], questions: dict[str, Row], n: int) -> list[Row]:
    path = folders.get("questions", Path("none")) / "questions.jsonl"
    known = {row["id"]: row for row in read_jsonl(path)} if path.exists() else {}
    samples = []
    for outcome in ("good", "bad", "undecided"):
        file = folders["filter"] / f"{outcome}.jsonl"
        rows = list(read_jsonl(file)) if file.exists() else []
        for row in balanced(rows, lambda row: (row["trace"].get("meta") or {}).get("fault"), _identity, max(1, n // 3)):
            question, trace = row["question_id"], row["trace"]
            if question in known:
                questions.setdefault(question, _question(known[question]))
            meta = trace.get("meta") or {}
            checks = {"answer": row.get("answer") or {}, **(row.get("criteria") or {})}
            samples.append(
                {
                    "origin": "filter",
                    "group": trace["teacher"],
                    "mode": f"planted: {meta['fault'] or 'nothing'}" if "fault" in meta else "no planted faults",
                    "question": question,
                    "text": trace["text"],
                    "answer": checks["answer"].get("answer"),
                    "outcome": outcome,
                    "note": trace.get("error", ""),
                    "checks": [[name, check.get("value"), check.get("why", "")] for name, check in checks.items()],
                }
            )
    return samples


def _question(row: Mapping[str, Any]) -> Row:
    choices = [f"{letter}. {text}" for letter, text in (row.get("choices") or {}).items()]
    text = _text(row["prompt"])
    # Most sources put the choices into the prompt; add those that are missing.
    missing = [choice for choice in choices if choice.split(". ", 1)[1] not in text]
    return {"text": "\n".join([text, *missing]), "gold": row.get("gold"), "kind": row.get("kind", "")}


def _text(prompt: str | Iterable[Mapping[str, str]]) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(message["content"] for message in prompt if message.get("role") != "system")


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
