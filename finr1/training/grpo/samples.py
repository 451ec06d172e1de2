"""Sampled completions for `samples.jsonl`, the report and W&B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finr1.training.grpo.rollout import Rollout

SAMPLES = "samples.jsonl"


def sample_rows(step: int, rollout: Rollout) -> list[dict[str, Any]]:
    """One row per completion: first a whole group, with spread if any has it, then the other groups in turn."""
    graded, adv = rollout.graded, rollout.advantages
    n_groups, size = graded.rewards_PG.shape
    first = int(adv.spread_P.int().argmax())
    places = [(first, g) for g in range(size)]
    places += [(p, g) for g in range(size) for p in range(n_groups) if p != first]
    rows = []
    for p, g in places:
        group = graded.groups[p]
        completion, reward = group.completions[g], float(graded.rewards_PG[p, g])
        rows.append(
            {
                "step": step,
                "question_id": group.question.id,
                "prompt": group.question.text,
                "gold": group.question.gold,
                "completion": completion.text,
                "truncated": completion.finish_reason == "length",
                "rewards": {name: {"value": v[g].value, "why": v[g].why} for name, v in group.verdicts.items()},
                "reward": None if reward != reward else reward,
                "advantage": float(adv.advantages_PG[p, g]),
                "weights_version": rollout.weights_version,
            }
        )
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns and values of sample rows; each reward's verdict and reason get columns of their own."""
    flat = []
    for row in rows:
        cells = {name: value for name, value in row.items() if name != "rewards"}
        for name, verdict in row["rewards"].items():
            cells |= {f"verdict/{name}": verdict["value"], f"why/{name}": verdict["why"]}
        flat.append(cells)
    columns = list(flat[0]) if flat else []
    return columns, [[cells[column] for column in columns] for cells in flat]
