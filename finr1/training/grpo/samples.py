"""Tables of sampled completions for W&B and the run's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finr1.training.grpo.advantage import Advantages
from finr1.training.grpo.rollout import Graded

SAMPLES = "samples.jsonl"


def table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns and values of rows of `samples.jsonl`, each reward's verdict and its reason in columns of their own."""
    flat = []
    for row in rows:
        parts = [(name, verdict["value"], verdict["why"]) for name, verdict in row["rewards"].items()]
        verdicts = {
            key: v for name, value, why in parts for key, v in ((f"verdict/{name}", value), (f"why/{name}", why))
        }
        flat.append({**{key: value for key, value in row.items() if key != "rewards"}, **verdicts})
    columns = list(flat[0]) if flat else []
    return columns, [[row[column] for column in columns] for row in flat]


def _samples(step: int, graded: Graded, adv: Advantages, version: str) -> list[dict[str, Any]]:
    """One row a completion: a whole group with spread first (any group, where none has), then the others in turn."""
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
                "rewards": {
                    name: {"value": found[g].value, "why": found[g].why} for name, found in group.verdicts.items()
                },
                "reward": None if reward != reward else reward,
                "advantage": float(adv.advantages_PG[p, g]),
                "weights_version": version,
            }
        )
    return rows
