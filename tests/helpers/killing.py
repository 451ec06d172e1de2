"""Train a tiny model in forked processes that are killed at named points, and compare what the resumed runs leave.

`python tests/helpers/killing.py <folder>` prints one JSON object: point -> what differs from the uninterrupted run
(nothing: []). It runs in its own process, because forking one that has trained may hang.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from finr1.core.jsonl import read_jsonl
from finr1.core.tracking import Tracker, read_metrics
from finr1.core.types import Verdict
from finr1.parts.reward.base import RewardItem
from finr1.settings.checkpoint import CheckpointSettings
from finr1.settings.grpo import GrpoSettings, HeldOutSettings
from finr1.settings.sampling import Sampling
from finr1.settings.sft import SftSettings
from finr1.training.grpo.held_out import HeldOutEvaluation
from finr1.training.grpo.questions import make_plan
from finr1.training.grpo.record import Recorder, Services
from finr1.training.grpo.rollout_log import RolloutLog
from finr1.training.grpo.sampler import Sampler
from finr1.training.grpo.step import GrpoModule, Inference
from finr1.training.loop.checkpoints import Checkpoints
from finr1.training.loop.fit import fit
from finr1.training.rows.rows import RowGroup
from finr1.training.sft.run import make_plan as make_rows
from finr1.training.sft.step import SftModule
from tests.helpers.stages import question
from tests.helpers.tiny_engine import TinyEngine
from tests.helpers.tiny_model import VOCABULARY, tiny

TRAINER = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "devices": 1}
QUESTIONS = [question(f"question {i}") for i in range(12)]
STEPS, EVERY = 6, 2
TIMES = ("_s", "tokens_per_s", "mfu", "memory_gib")  # suffixes of metrics that depend on the clock or the machine


class Chance:
    """A reward that uses Python's random numbers, as a user's may."""

    name, weight = "chance", 1.0

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        return [Verdict(float(len(item.text.split()) % 2) + random.random()) for item in items]


class Bar:
    def advance(self, *_: Any, **__: Any) -> None: ...


def adapted() -> Any:
    """The tiny model with adapters and dropout: its forward pass draws from torch's random numbers."""
    torch.manual_seed(1)
    config = LoraConfig(r=2, lora_dropout=0.3, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(tiny(), config).train()


def optimizer(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=lr)


def train(stage: str, folder: Path) -> None:
    """Train the stage from the state in the folder; writes `weights.pt`."""
    folder.mkdir(parents=True, exist_ok=True)
    random.seed()  # the initial random state must not matter
    torch.seed()
    said: list[str] = []
    kept = Checkpoints(folder, CheckpointSettings(), said.append)
    module: Any
    if stage != "sft":
        known = {"steps": STEPS, "questions_per_step": 3, "group_size": 4, "learning_rate": 0.01, "warmup_steps": 2}
        sampling = Sampling(n=4, max_new_tokens=6)
        evaluation = HeldOutSettings(every_steps=3)
        settings = GrpoSettings(**known, sampling=sampling, updates_per_rollout=2, refill_rounds=1, eval=evaluation)
        plan = make_plan(QUESTIONS, STEPS, 3, seed=0)
        engine = TinyEngine(lora_sync="adapter" if stage == "grpo_adapter" else "merged")
        sampler = Sampler(engine, sampling, None, "float32")
        held_out = HeldOutEvaluation([question("held out")], sampler, settings, folder, said.append)
        inference = Inference(sampler, held_out=held_out)
        services = Services(folder, Tracker(folder), Bar())  # type: ignore[arg-type]
        module = GrpoModule(adapted(), optimizer, settings, plan, inference, {"chance": Chance()}, services)
    else:
        generator = torch.Generator().manual_seed(0)
        draw = lambda n: torch.randint(1, VOCABULARY, (n,), generator=generator).tolist()  # noqa: E731
        rows = make_rows([RowGroup(draw(4), [draw(5)], [i]) for i in range(12)], 1, 20, 1, seed=0)
        module = SftModule(adapted(), optimizer, SftSettings(learning_rate=0.01), rows, Tracker(folder), Bar())  # type: ignore[arg-type]
    n_steps = len(module.plan)
    assert n_steps == STEPS, n_steps
    fit(module, n_steps, kept, TRAINER, EVERY, seed=3)
    torch.save(module.model.state_dict(), folder / "weights.pt")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(owner: Any, name: str, call: int, after: bool = False) -> None:
    """SIGKILL at the n-th call of a function (from 0), before it or after it has returned."""
    plain, calls = getattr(owner, name), iter(range(10**6))

    def killing(*arguments: Any, **more: Any) -> Any:
        now = next(calls) == call
        if now and not after:
            die()
        result = plain(*arguments, **more)
        if now:
            die()
        return result

    setattr(owner, name, killing)


def half_saved() -> None:
    """SIGKILL when half of the second checkpoint has been written to its temporary file."""
    plain, calls = torch.save, iter(range(10**6))

    def save(what: Any, file: Any) -> None:
        if next(calls) == 1:
            file.write(b"PK\3\4" * 1000)
            file.flush()
            die()
        plain(what, file)

    torch.save = save  # type: ignore[assignment]


# Step 3 is the fourth: the newest checkpoint holds two steps, and step 2 has been taken since.
POINTS: dict[str, tuple[str, Callable[[], None]]] = {
    "grpo before any step": ("grpo", lambda: kill_at(GrpoModule, "training_step", 0)),
    "grpo in the middle of a rollout": ("grpo", lambda: kill_at(TinyEngine, "_complete", 3 * 12 + 6)),
    "grpo with a rollout on disk": ("grpo", lambda: kill_at(RolloutLog, "put", 3, after=True)),
    "grpo between two updates": ("grpo", lambda: kill_at(GrpoModule, "optimise", 7)),
    "grpo with the weights moved": ("grpo", lambda: kill_at(GrpoModule, "optimise", 7, after=True)),
    "grpo with the step logged": ("grpo", lambda: kill_at(Recorder, "record", 3, after=True)),
    "grpo in the middle of an evaluation": ("grpo", lambda: kill_at(HeldOutEvaluation, "_answer", 1)),
    "grpo with half a checkpoint": ("grpo", half_saved),
    "grpo with a checkpoint, nothing removed yet": ("grpo", lambda: kill_at(Checkpoints, "prune", 1)),
    "grpo by adapter with the weights moved": ("grpo_adapter", lambda: kill_at(GrpoModule, "optimise", 7, after=True)),
    "grpo by adapter in the middle of a sync": ("grpo_adapter", lambda: kill_at(TinyEngine, "load_adapter", 4)),
    "sft in the middle of an update": ("sft", lambda: kill_at(SftModule, "manual_backward", 3)),
    "sft with the weights moved": ("sft", lambda: kill_at(SftModule, "optimise", 3, after=True)),
    "sft with half a checkpoint": ("sft", half_saved),
}


def forked(work: Callable[[], None]) -> int:
    """Run a function in a forked process; returns the status of `os.waitpid`."""
    process = os.fork()
    if process == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitpid(process, 0)[1]


def left(stage: str, folder: Path) -> dict[str, Any]:
    """Return the results of a run: weights, rows, and the metrics that do not depend on the clock."""
    rows = read_metrics(folder, stage.removesuffix("_adapter"))
    metrics = [(step, {k: v for k, v in row.items() if not k.endswith(TIMES)}) for step, row in rows]
    samples = [list(read_jsonl(path)) for path in sorted(folder.glob("*.jsonl")) if path.name != "metrics.jsonl"]
    state = torch.load(folder / "weights.pt")
    return {"metrics": metrics, "samples": samples} | {name: tensor.tolist() for name, tensor in state.items()}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for stage in ("grpo", "grpo_adapter", "sft"):
        assert forked(lambda stage=stage: train(stage, folder / stage)) == 0  # type: ignore[misc]
    for name, (stage, arm) in POINTS.items():
        own = folder / name.replace(" ", "_")

        def killed(stage: str = stage, arm: Callable[[], None] = arm, own: Path = own) -> None:
            arm()
            train(stage, own)

        assert forked(killed) == signal.SIGKILL, f"{name}: not killed"
        half = [path.name for path in own.rglob("*.part")]
        assert (half != []) == ("half" in name), half
        assert forked(lambda stage=stage, own=own: train(stage, own)) == 0, name  # type: ignore[misc]
        whole, resumed = left(stage, folder / stage), left(stage, own)
        assert len(whole["metrics"]) == STEPS
        found[name] = [key for key in whole if whole[key] != resumed[key]] + [p.name for p in own.rglob("*.part")]
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
