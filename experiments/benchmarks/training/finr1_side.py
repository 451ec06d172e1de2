"""finr1's side: its own modules, trainer settings and engine, in a process of its own; prints one JSON object.

    python finr1_side.py sft|grpo|pieces|scale …

`__main__.py` beside it says with what. Figures are the run's own metrics.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

import torch
from omegaconf import OmegaConf

from finr1.core.build import build
from finr1.core.clock import memory_gib
from finr1.core.jsonl import read_jsonl
from finr1.core.tracking import Tracker, read_metrics
from finr1.core.types import Question, Verdict
from finr1.parts.model.tokens import completion_ids, load_tokenizer, prompt_ids
from finr1.parts.reward.base import RewardItem
from finr1.settings.checkpoint import CheckpointSettings
from finr1.settings.model import ModelSettings
from finr1.settings.sft import SftSettings
from finr1.training.loop.checkpoints import Checkpoints
from finr1.training.loop.fit import fit, keep_freed_memory
from finr1.training.loop.masters import cast_weights
from finr1.training.loop.meter import work_of
from finr1.training.loop.step_module import StepModule
from finr1.training.model.load import load_trainable
from finr1.training.rows.attention import register
from finr1.training.rows.head import Logits
from finr1.training.rows.logprobs import CPU_BLOCK, Head, completion_stats
from finr1.training.rows.rows import RowGroup, make_row
from finr1.training.sft.run import make_plan
from finr1.training.sft.step import SftModule

REPO = Path(__file__).parents[3]
GIB = 2**30 / 1e9


class Bar:
    """Shows nothing."""

    def advance(self, *_: Any, **__: Any) -> None: ...


class Lengths:
    """A reward that spreads within a group whatever the model says."""

    name, weight = "lengths", 1.0

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        return [Verdict(len(item.text) % 7 / 6) for item in items]


def settings(folder: str, max_model_len: int = 2048) -> ModelSettings:
    return ModelSettings(path=folder, max_model_len=max_model_len)


def model_of(args: Any) -> Any:
    return load_trainable(Path(args.model), settings(args.model), register())


def optimizer(args: Any) -> Callable[..., torch.optim.Optimizer]:
    return build(trainer(args)["optimizer"])  # type: ignore[no-any-return]


def trainer(args: Any) -> Any:
    return OmegaConf.to_container(OmegaConf.load(REPO / "conf" / "trainer" / f"{args.trainer}.yaml"))


def walk(args: Any, module: StepModule, n_steps: int, folder: Path) -> None:
    kept = Checkpoints(folder, CheckpointSettings(), print)
    fit(module, n_steps, kept, trainer(args)["fit"], every=n_steps + 1)


def sft_walk(args: Any, plan: Any, row_tokens: int, folder: Path) -> list[dict[str, float]]:
    """The metrics of each step of a plan."""
    tracker = Tracker(folder)
    options = SftSettings(learning_rate=1e-5, row_tokens=row_tokens)
    walk(args, SftModule(model_of(args), optimizer(args), options, plan, tracker, Bar()), len(plan), folder)  # type: ignore[arg-type]
    return [metrics for _, metrics in read_metrics(folder, "sft")]


def sft(args: Any, folder: Path) -> dict[str, Any]:
    """Tokens a second and MFU of the steps after the first."""
    tokenizer = load_tokenizer(Path(args.model))
    groups = []
    for row in read_jsonl(Path(args.rows)):
        target = completion_ids(tokenizer, row["prompt"], row["completion"][0]["content"])
        groups.append(RowGroup(prompt_ids(tokenizer, row["prompt"]), [target], [len(groups)]))
    plan = make_plan(groups, 1, args.row_tokens, 1, seed=0)[: args.steps]
    steps = sft_walk(args, plan, args.row_tokens, folder)[1:]
    tokens = [work_of(rows).tokens for rows in plan[1:]]
    seconds = sum(n / step["tokens_per_s"] for n, step in zip(tokens, steps, strict=True))
    return {"tokens_per_s": sum(tokens) / seconds, "mfu": statistics.median(step["mfu"] for step in steps)}


def grpo(args: Any, folder: Path) -> dict[str, Any]:
    """Completion tokens a second of whole steps after the first, MFU of their updates, shares of their parts."""
    from finr1.parts.engine.vllm.engine import VllmEngine
    from finr1.settings.grpo import GrpoSettings
    from finr1.settings.sampling import Sampling
    from finr1.training.grpo.canary import Canary
    from finr1.training.grpo.questions import Plan
    from finr1.training.grpo.record import Services
    from finr1.training.grpo.sampler import Sampler
    from finr1.training.grpo.step import GrpoModule, Inference

    questions = [Question.from_json(row["question"]) for row in read_jsonl(Path(args.rows))]
    per_step, sampling = args.prompts_per_step, Sampling(n=args.group, max_new_tokens=args.completion_tokens)
    plan = [questions[i * per_step : (i + 1) * per_step] for i in range(args.steps)]
    options = GrpoSettings(
        steps=args.steps,
        questions_per_step=per_step,
        group_size=args.group,
        sampling=sampling,
        learning_rate=1e-6,
        row_tokens=args.row_tokens,
    )
    # 11,648 tokens of SmolLM2: 32 completions and their prompts of 950 take 7,000. All of it stays in memory.
    engine = VllmEngine(settings(args.model), kv_cache_gib=0.25)
    engine.load_folder(Path(args.model))
    enqueue = engine.llm.enqueue

    def enqueue_longest(prompts: Any, params: Any, **options: Any) -> Any:
        params.ignore_eos = True  # every completion has the same number of tokens
        return enqueue(prompts, params, **options)

    engine.llm.enqueue = enqueue_longest
    ids = prompt_ids(engine.llm.get_tokenizer(), list(questions[0].prompt))[-options.canary.tokens :]
    seconds: list[float] = []

    class Timed(GrpoModule):
        def training_step(self, step: int, _: int) -> None:
            began = time.perf_counter()
            super().training_step(step, _)
            seconds.append(time.perf_counter() - began)

    module = Timed(
        model_of(args),
        optimizer(args),
        options,
        Plan(plan, questions, seed=0),
        Inference(Sampler(engine, sampling, None, "bfloat16"), Canary(engine, ids, bound=1.0)),
        {"lengths": Lengths()},
        Services(folder, Tracker(folder), Bar()),  # type: ignore[arg-type]
    )
    walk(args, module, args.steps, folder)
    steps = [metrics for _, metrics in read_metrics(folder, "grpo")]
    used = slice(1 if len(steps) > 1 else 0, None)
    names = [name for name in steps[0] if name.endswith("_s") and "_per_" not in name]
    laps = {name: statistics.median(step[name] for step in steps[used]) for name in names}
    step_s = statistics.median(seconds[used])
    n_tokens = per_step * args.group * args.completion_tokens
    return {
        "tokens_per_s": n_tokens / step_s,
        "seconds": seconds,
        "laps": laps,
        "mfu": statistics.median(s["mfu"] for s in steps[used]),
        "sync_share": (laps["sync_s"] + laps["canary_s"]) / step_s,
        "groups_with_spread": statistics.mean(s["groups_with_spread"] for s in steps[used]),
    }


def pieces(args: Any, folder: Path) -> dict[str, Any]:
    """Forward and backward pass of one group, under autocast with its prompt once (`--form shared`), and other forms.

    `padded`: the prompt before each completion, `--micro-batch` completions at a time, through torch's own attention.
    All completions have the same length, so that nothing is padded: its best case. `own_norms`: shared, through
    transformers' RMSNorm. `bf16`: shared, in bf16 weights. Memory is what the pass adds to model and gradients, GB.
    """
    keep_freed_memory()
    rng = random.Random(0)
    draw = lambda n: [rng.randrange(49_000) for _ in range(n)]  # noqa: E731
    completions = [draw(args.completion_tokens) for _ in range(args.group)]
    group = RowGroup(draw(args.prompt_tokens), completions, range(args.group))
    model: Any = load_trainable(Path(args.model), settings(args.model), "sdpa" if args.form == "padded" else register())
    for module in model.modules() if args.form == "own_norms" else ():
        vars(module).pop("forward", None)
    if args.form == "bf16":
        cast_weights(model, torch.bfloat16)
    is_padded = args.form == "padded"
    run = functools.partial(padded, model, args.micro_batch) if is_padded else functools.partial(shared, model)
    with torch.autocast("cpu", torch.bfloat16, enabled=args.form != "bf16"):
        run(RowGroup(group.prompt[:16], [group.completions[0][:16]], [0]))  # gradients exist from here on
        torch.clear_autocast_cache()
        before = memory_gib("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins anew
        seconds = []
        for _ in range(args.steps + 1):
            began = time.perf_counter()
            run(group)
            torch.clear_autocast_cache()
            seconds.append(time.perf_counter() - began)
    return {
        "tokens_per_s": args.group * args.completion_tokens / statistics.median(seconds[1:]),
        "added_gb": (memory_gib("VmHWM") - before) * GIB,
    }


def shared(model: Any, group: RowGroup) -> None:
    """Backward pass of the sum of log-probabilities, the prompt once."""
    (-completion_stats(model, make_row([group])).logprobs_N.sum()).backward()


def padded(model: Any, micro_batch: int, group: RowGroup) -> None:
    """The same, the prompt before each completion, so many completions at once."""
    kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    weight_VD = model.get_output_embeddings().weight
    for i in range(0, len(group.completions), micro_batch):
        ids_BT = torch.tensor([[*group.prompt, *c] for c in group.completions[i : i + micro_batch]])
        hidden_BTD = model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
        hidden_ND = hidden_BTD[:, len(group.prompt) - 1 : -1].flatten(0, 1)
        target_N = ids_BT[:, len(group.prompt) :].flatten()
        inputs = hidden_ND, weight_VD, None, target_N, Logits()
        logprobs_N, _ = Head.apply(*inputs, 1.0, True, False, kind, CPU_BLOCK)
        (-logprobs_N.sum()).backward()


def scale(args: Any, folder: Path) -> dict[str, Any]:
    """Seconds of a step of 1, 2, 4 … groups of 1,024 unique tokens (a prompt of 256, 8 completions of 96)."""
    rng = random.Random(0)
    draw = lambda n: [rng.randrange(49_000) for _ in range(n)]  # noqa: E731
    group = lambda: RowGroup(draw(256), [draw(96) for _ in range(8)], range(8))  # noqa: E731
    sizes = [1, *(2**i for i in range(args.steps))]
    plan = [[[group() for _ in range(min(2, n - i))] for i in range(0, n, 2)] for n in sizes]
    tokens = [1024 * n for n in sizes]
    steps = sft_walk(args, plan, 2048, folder)
    points = [(n, n / metrics["tokens_per_s"]) for n, metrics in zip(tokens, steps, strict=True)]
    return {"points": points[1:]}  # the first warms up


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=["sft", "grpo", "pieces", "scale"])
    parser.add_argument("--clock", choices=["cpu", "wall"], required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--trainer", default="cpu", help="a file of conf/trainer")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--rows")
    parser.add_argument("--row-tokens", type=int)
    parser.add_argument("--group", type=int)
    parser.add_argument("--prompts-per-step", type=int)
    parser.add_argument("--completion-tokens", type=int)
    parser.add_argument("--prompt-tokens", type=int)
    parser.add_argument("--micro-batch", type=int)
    parser.add_argument("--form", choices=["shared", "padded", "own_norms", "bf16"])
    args = parser.parse_args()
    if args.clock == "cpu":
        # The metrics' seconds become CPU seconds: what else runs on the machine does not count.
        time.perf_counter = time.process_time
    with tempfile.TemporaryDirectory() as folder:
        found = globals()[args.work](args, Path(folder))
    print(json.dumps({**found, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}))


if __name__ == "__main__":
    main()
