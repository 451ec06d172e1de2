"""The peer: TRL's SFTTrainer and GRPOTrainer on the same model, rows and lengths. Runs in an environment of its own.

    python trl_side.py sft --model DIR --rows FILE [--packing]
    python trl_side.py grpo --model DIR --rows FILE

Imports nothing of finr1; prints one JSON object. fp32 weights under bf16 autocast, AdamW, as finr1's CPU trainer. GRPO
samples by transformers: TRL 1.16 cannot load weights into vLLM's CPU build. Every completion has the same number of
tokens, and the reward spreads within a group: the work does not depend on what the model says.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"


def main() -> None:
    """Train some steps, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=["sft", "grpo"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--micro-batch", type=int, required=True)
    parser.add_argument("--clock", choices=["cpu", "wall"], required=True)
    parser.add_argument("--packing", action="store_true")
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--group", type=int)
    parser.add_argument("--prompts-per-step", type=int)
    parser.add_argument("--completion-tokens", type=int)
    args = parser.parse_args()
    now = time.process_time if args.clock == "cpu" else time.perf_counter

    from transformers import TrainerCallback

    seconds: list[float] = []

    class StepTimer(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = now()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(now() - self.began)

    with open(args.rows, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    with tempfile.TemporaryDirectory() as folder:
        common = {
            "output_dir": folder,
            "max_steps": args.steps,
            "per_device_train_batch_size": args.micro_batch,
            "bf16": True,
            "use_cpu": True,
            "gradient_checkpointing": False,
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
            "model_init_kwargs": {"dtype": "float32"},
        }
        train = sft if args.work == "sft" else grpo
        found = train(args, rows, common, StepTimer(), seconds)
    found |= {"seconds": seconds, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}
    print(json.dumps(found))


def sft(args: Any, rows: list[Any], common: dict[str, Any], timer: Any, seconds: list[float]) -> dict[str, float]:
    """Real (not padding) tokens a second."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    tokens: list[int] = []

    class Counting(SFTTrainer):
        def compute_loss(self, model: Any, inputs: Any, *rest: Any, **kwargs: Any) -> Any:
            mask = inputs.get("attention_mask")
            tokens.append(int(mask.sum()) if mask is not None else int(inputs["input_ids"].numel()))
            return super().compute_loss(model, inputs, *rest, **kwargs)

    config = SFTConfig(max_length=args.max_length, packing=args.packing, learning_rate=1e-5, **common)
    Counting(args.model, args=config, train_dataset=Dataset.from_list(rows), callbacks=[timer]).train()
    return {"tokens_per_s": sum(tokens[1:]) / sum(seconds[1:])}


def grpo(args: Any, rows: list[Any], common: dict[str, Any], timer: Any, seconds: list[float]) -> dict[str, float]:
    """Completion tokens a second of whole steps."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    def reward(completions: list[Any], **_: Any) -> list[float]:
        return [float(len(completion[0]["content"]) % 7) for completion in completions]

    n_completions = args.group * args.prompts_per_step
    config = GRPOConfig(
        gradient_accumulation_steps=n_completions // args.micro_batch,
        num_generations=args.group,
        max_completion_length=args.completion_tokens,
        generation_kwargs={"min_new_tokens": args.completion_tokens},
        learning_rate=1e-6,
        beta=0.0,
        **common,
    )
    dataset = Dataset.from_list([{"prompt": row["messages"]} for row in rows])
    GRPOTrainer(args.model, reward_funcs=reward, args=config, train_dataset=dataset, callbacks=[timer]).train()
    return {"tokens_per_s": n_completions * args.completion_tokens / statistics.median(seconds[1:] or seconds)}


if __name__ == "__main__":
    main()
