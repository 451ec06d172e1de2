"""The whole pipeline with the real engine on a small randomly initialized Qwen2, on one rank and on two with sharded
weights; and with other trainers and adapters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from finr1.core.cpu import has_bf16
from finr1.core.files import read_json
from finr1.core.jsonl import read_jsonl
from finr1.core.tracking import read_metrics
from finr1.run.stages import PIPELINE, STAGES, chosen
from tests.helpers import runner
from tests.helpers.byte_tokenizer import tokenizer
from tests.helpers.runner import SPREAD
from tests.helpers.tiny_model import tiny

pytestmark = pytest.mark.slow

# One token per byte: a gold completion takes up to 150. Of eight random completions some have odd, some even length.
LENGTHS = (
    "model.max_model_len=1024",
    "grpo.group_size=8",
    "grpo.sampling.max_new_tokens=160",
    "evaluate.sampling.max_new_tokens=32",
    "prompt.system=null",
    "engine.policy.kv_cache_gib=0.05",
)
FP32 = ("model.dtype=float32", "trainer.fit.precision=32-true", "grpo.canary.bound=1e-3")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: Qwen2's architecture and chat template, 64 wide, one token per byte."""
    folder = tmp_path_factory.mktemp("qwen")
    template = runner.REPO / "tests" / "golden" / "chat_templates" / "qwen2_5.jinja"
    made = tokenizer(template.read_text(encoding="utf-8"), ["<|im_start|>", "<|im_end|>"])
    shape = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128, "vocab_size": 320}
    model = tiny("qwen2", "eager", **shape, max_position_embeddings=1024, eos_token_id=made.eos_token_id)
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`+experiment=tiny` on it, with engine and trainer in fp32."""
    folder = tmp_path_factory.mktemp("whole")
    done = runner.run(folder, "+experiment=tiny", f"model.path={qwen}", *LENGTHS, *FP32, SPREAD)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "runs" / "tiny"


def moved(run: Path, *stages: str) -> None:
    """The second stage changed the weights of the first, and GRPO had steps that trained."""
    folders = [run / STAGES[name].folder / "model" for name in stages]
    before, after = (load_file(folder / "model.safetensors") for folder in folders)
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)
    trained = [m for _, m in read_metrics(run, "grpo") if m["groups_with_spread"] > 0]
    assert trained and all(m["grad_norm"] > 0 for m in trained)


def test_a_small_qwen2_goes_through_every_stage(run: Path) -> None:
    """In fp32, log-probs of engine and trainer agree to 1e-4 nats, before and after each update."""
    assert read_json(run / "7_report" / "summary.json")["scores"].keys() == {"base", "sft", "grpo"}
    moved(run, "sft", "grpo")
    losses = [m["loss"] for _, m in read_metrics(run, "sft")]
    assert losses[0] == pytest.approx(torch.log(torch.tensor(320.0)).item(), abs=0.3)  # random: about log(vocabulary)
    for _, metrics in read_metrics(run, "grpo"):
        assert metrics["mismatch"] < 1e-4 and metrics["canary"] < 1e-4


def test_two_ranks_with_sharded_weights_and_an_engine_each(run: Path, tmp_path: Path) -> None:
    """`fsdp` from the SFT weights of one rank: sample, train, sync, export."""
    rows_from = (
        f"grpo.rows={run}",
        f"grpo.init_from={run / '4_sft' / 'model'}",
        f"model.path={run / '4_sft' / 'model'}",
    )
    ranks = ("trainer.fit.devices=2", "trainer.fit.strategy=fsdp")
    common = ("+experiment=tiny", "stage=grpo", "name=sharded", *rows_from, *ranks, *LENGTHS, *FP32, SPREAD)
    done = runner.run(tmp_path, *common)
    assert done.returncode == 0, done.stderr[-3000:]
    sharded = tmp_path / "runs" / "sharded"
    steps = [m for _, m in read_metrics(sharded, "grpo")]
    assert len(steps) == 2 and all(m["mismatch"] < 1e-4 and m["canary"] < 1e-4 and m["grad_norm"] > 0 for m in steps)
    asked = {row["question_id"] for row in read_jsonl(sharded / "5_grpo" / "samples.jsonl") if row["step"] == 0}
    assert len(asked) == 2  # one question per rank
    before, after = (load_file(f / "model" / "model.safetensors") for f in (run / "4_sft", sharded / "5_grpo"))
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)
    assert all(before[name].shape == after[name].shape for name in before)


BF16 = pytest.mark.skipif(
    not has_bf16(), reason="this CPU has no bf16 instructions: torch emulates them, many times slower"
)


@pytest.mark.parametrize("setting", [pytest.param("trainer=cpu_bf16", marks=BF16), "model.adapter=qlora"])
def test_the_pipeline_with_bf16_weights_and_with_4_bit_weights(tmp_path: Path, setting: str) -> None:
    """SmolLM2 through every stage: log-probs of engine and trainer agree as closely as bf16 allows."""
    done = runner.run(tmp_path, "+experiment=tiny", setting, SPREAD)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stderr.splitlines()
    assert not [line for line in lines if line.split() and line.split()[0].rstrip(":") not in STAGES]
    assert len(lines) >= 2 * len(chosen(PIPELINE))
    run = tmp_path / "runs" / "tiny"
    moved(run, "sft", "grpo")
    for _, metrics in read_metrics(run, "grpo"):
        assert 0 < metrics["mismatch"] < 0.06 and 0 < metrics["canary"] < 0.15
    config = read_json(run / "5_grpo" / "model" / "config.json")
    assert "quantization_config" not in config and config["dtype"] == OmegaConf.load(run / "config.yaml").model.dtype
