"""Completions for the report's browser: a balanced few of the evaluation, GRPO's rollouts and the filtered traces."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from finr1.core.jsonl import read_jsonl
from finr1.core.types import stable_id

Row = dict[str, Any]


def collect(folders: Mapping[str, Path], per_model: int) -> Row:
    """`{"questions": {id: {text, gold, kind}}, "samples": [...]}`, about `per_model` samples of each model.

    A sample: origin (evaluation | training | filter), group and mode (what the browser filters by), question id, text,
    answer, outcome (right | wrong | undecided, or good | bad | undecided), and `checks`: [name, value, why]. Of the
    evaluation also its benchmark (`bench`), and `disagree`: of rules and judges that decided, some say right and some
    wrong.
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


def balanced(rows: Sequence[Row], key: Callable[[Row], Hashable], n: int) -> list[Row]:
    """At most `n` rows, as many of each key as there are, in turn; which ones depends on question ids alone, so that
    different models are mostly shown on the same questions."""
    pools: dict[Hashable, list[Row]] = {}
    for row in sorted(
        rows, key=lambda row: stable_id("report", row["question_id"], row.get("sample"), row.get("step"))
    ):
        pools.setdefault(key(row), []).append(row)
    chosen: list[Row] = []
    depth = 0
    while len(chosen) < min(n, len(rows)):
        chosen += [pool[depth] for pool in pools.values() if depth < len(pool)]
        depth += 1
    return chosen[:n]


def outcome_of(value: float | None) -> str:
    """A verdict in a word; between 0 and 1 it is partly right."""
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
        rows = balanced(list(read_jsonl(path)), lambda row: (_leading(row), _disagree(row)), per_model // siblings or 1)
        for row in rows:
            checks = [["form", _number(row["format"]), row.get("format_why", "")]]
            checks += [[f"rules, {name}", row[name]["value"], row[name]["why"]] for name in ("strict", "scaled")]
            for number, verdict in enumerate(row.get("judges", ()), 1):
                checks.append([f"{verdict['judge'] or 'judge'}, {number}", verdict["value"], verdict["why"]])
            if "judged" in row:
                checks.append([f"counts, by {row['judged']['by']}", row["judged"]["value"], row["judged"]["why"]])
            samples.append(
                {
                    "origin": "evaluation",
                    "group": model,
                    "bench": path.parent.name,
                    "mode": mode,
                    "question": row["question_id"],
                    "text": row["text"],
                    "answer": row["answer"],
                    "outcome": outcome_of(_leading(row)),
                    "disagree": _disagree(row),
                    "note": f"{row['n_tokens']} tokens, {_ending(row['finish_reason'])}",
                    "checks": checks,
                }
            )
    return samples


def _leading(row: Row) -> float | None:
    """The verdict that the scores count (`finr1.evaluation.scores.rows.headline`)."""
    value: float | None = row["judged" if "judged" in row else "strict"]["value"]
    return value


def _disagree(row: Row) -> bool:
    said = {verdict["value"] for verdict in (row["strict"], row["scaled"], *row.get("judges", ()))}
    return len(said - {None}) > 1


def _training(path: Path, questions: dict[str, Row], n: int) -> list[Row]:
    rows = list(read_jsonl(path)) if path.exists() else []
    samples = []
    for row in sorted(balanced(rows, lambda row: row["step"], n), key=lambda row: int(row["step"])):
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
                "note": note + (", cut" if row["truncated"] else ""),
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
        for row in balanced(rows, lambda row: (row["trace"].get("meta") or {}).get("fault"), max(1, n // 3)):
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
    # Sources write the choices into the prompt as a rule; they are added where one has not.
    missing = [choice for choice in choices if choice.split(". ", 1)[1] not in text]
    return {"text": "\n".join([text, *missing]), "gold": row.get("gold"), "kind": row.get("kind", "")}


def _text(prompt: str | Iterable[Mapping[str, str]]) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(message["content"] for message in prompt if message.get("role") != "system")


def _number(value: bool | None) -> float | None:
    return None if value is None else float(value)


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _ending(reason: str) -> str:
    return {"length": "cut by the length limit", "error": "the call failed"}.get(reason, "ended by itself")
