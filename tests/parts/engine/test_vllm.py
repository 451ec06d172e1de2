"""The in-process vLLM engine with real weights, in a separate process, whose state it changes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.engine_process import result_of

pytestmark = pytest.mark.slow

PROGRAM = """
import json, random, sys
import numpy, torch
from pathlib import Path
from transformers import AutoModelForCausalLM
from finr1.training.rows.attention import register
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row
from finr1.parts.engine.base import Request
from finr1.settings.sampling import Sampling
from finr1.parts.engine.vllm.engine import VllmEngine
from finr1.training.grpo.canary import Canary
from finr1.training.model.weights import checkpoint_weights
from finr1.training.model.load import load_trainable
from finr1.parts.model.folder import resolve
from finr1.settings.model import ModelSettings
from finr1.core.types import Message, Question


def main():
    settings = ModelSettings(max_model_len=256)
    engine = VllmEngine(settings, kv_cache_gib=1, max_num_seqs=16, dtype="float32")
    ask = lambda text: Request([Message(role="user", content=text)],
                               Question("t", text, "en", "reasoning business", "number", [], "1"))
    requests = [ask("What is 3 percent of 200?"), ask("Name a bank."), ask("Why do bonds fall when yields rise?")]
    sampling = Sampling(n=2, temperature=0.8, max_new_tokens=24)
    engine.llm
    first_names = engine.weight_names
    random.seed(1), numpy.random.seed(1), torch.manual_seed(1)
    before = random.random(), numpy.random.rand(), torch.rand(1).item()
    random.seed(1), numpy.random.seed(1), torch.manual_seed(1)
    seen = []
    first = engine.generate(requests, sampling, lambda i, c: seen.append(i))
    after = random.random(), numpy.random.rand(), torch.rand(1).item()
    again = engine.generate(requests, sampling)
    unread = engine.generate([request._replace(logprobs=False) for request in requests], sampling)
    texts = lambda answers: [c.text for one in answers for c in one]

    plain = AutoModelForCausalLM.from_pretrained(resolve(settings), dtype=torch.float32)
    def by_transformers(completion, penalty):
        ids = torch.tensor([list(completion.prompt_token_ids)])
        how = {"do_sample": False, "max_new_tokens": 20, "repetition_penalty": penalty}
        return plain.generate(ids, attention_mask=torch.ones_like(ids), **how)[0, ids.shape[1]:].tolist()
    penalised = {}
    for penalty in (1.0, 1.3):
        greedy = Sampling(temperature=0, max_new_tokens=20, repetition_penalty=penalty)
        found = [completions[0] for completions in engine.generate(requests, greedy)]
        penalised[penalty] = [[list(c.token_ids), by_transformers(c, penalty)] for c in found]

    model = load_trainable(resolve(settings), settings, register())
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * p.std() * 0.02)
    engine.load_weights(checkpoint_weights(model, "float32"), "moved")
    moved = engine.generate(requests, sampling)

    def gap(answers):
        differences = []
        for completions in answers:
            for c in completions:
                row = make_row([RowGroup(c.prompt_token_ids, [c.token_ids], [0])])
                with torch.no_grad():
                    ours = completion_stats(model, row, 0.8).logprobs_N
                differences.append((ours - torch.tensor(c.logprobs)).abs().max().item())
        return max(differences)

    gap_after_sync, gap_before_sync = gap(moved), gap(first)
    ids = list(moved[0][0].prompt_token_ids) + list(moved[0][0].token_ids)
    canary = Canary(engine, ids[-48:], 1e9)
    after_sync = canary.check(model, 1)
    synced = engine.weight_names
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * p.std() * 0.02)
    stale = canary.check(model, 2)

    cut = engine.generate([requests[0]], Sampling(temperature=0, max_new_tokens=3))[0][0]
    long = engine.generate([ask("long " * 300), requests[1]], Sampling(temperature=0, max_new_tokens=4))
    form = Sampling(temperature=1, max_new_tokens=20, regex=r"<answer>\\\\boxed\\{[012]\\}</answer>")
    labels = engine.generate(requests, form)
    print("RESULT" + json.dumps({
        "same": texts(first) == texts(again), "differ": texts(first)[0] != texts(first)[1], "seen": sorted(seen),
        "random_kept": before == after, "gap_after_sync": gap_after_sync, "gap_before_sync": gap_before_sync,
        "canary": [after_sync, stale], "names": [len(first_names), first_names == synced],
        "version": engine.weights_version, "lengths": [len(c.token_ids) == len(c.logprobs) for o in moved for c in o],
        "cut": [cut.finish_reason, len(cut.token_ids)], "long": [long[0][0].finish_reason, long[0][0].error],
        "beside_long": len(long[1][0].token_ids), "labels": texts(labels),
        "unread": [texts(unread) == texts(first), [len(c.logprobs) for one in unread for c in one]],
        "penalised": [penalised[1.0], penalised[1.3]],
    }))
    engine.close()


if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return result_of(PROGRAM)


def test_engine_and_trainer_agree_after_a_sync(result: dict[str, Any]) -> None:
    assert result["gap_after_sync"] <= 1e-4  # fp32 on both sides
    assert result["gap_before_sync"] > 1e-2  # the old samples are from another model: the bound above can fail
    assert result["version"] == "moved"


def test_the_canary_distinguishes_synced_from_stale_weights(result: dict[str, Any]) -> None:
    synced, stale = result["canary"]
    assert synced <= 1e-4  # fp32 on both sides
    assert stale > 1e-2
    n_names, alike = result["names"]
    assert n_names > 250 and alike  # the folder has the trainer's names, including the head's


def test_same_weights_and_requests_give_the_same_samples(result: dict[str, Any]) -> None:
    assert result["same"] and result["differ"]


def test_without_log_probs_the_samples_are_the_same(result: dict[str, Any]) -> None:
    assert result["unread"] == [True, [0] * 6]


def test_the_random_state_is_restored(result: dict[str, Any]) -> None:
    assert result["random_kept"]


def test_every_request_is_reported_once(result: dict[str, Any]) -> None:
    assert result["seen"] == [0, 1, 2]
    assert all(result["lengths"])


def test_truncation_and_overlong_prompts_are_reported(result: dict[str, Any]) -> None:
    assert result["cut"] == ["length", 3]
    assert result["long"][0] == "error" and "model.max_model_len=256" in result["long"][1]
    assert result["beside_long"] == 4


def test_structured_output(result: dict[str, Any]) -> None:
    assert all(text in [f"<answer>\\boxed{{{n}}}</answer>" for n in "012"] for text in result["labels"])


def test_repetition_penalty_is_that_of_transformers(result: dict[str, Any]) -> None:
    plain, penalised = result["penalised"]
    assert all(ours == theirs for ours, theirs in plain + penalised)  # the same greedy tokens in fp32
    assert all(without[0] != with_it[0] for without, with_it in zip(plain, penalised, strict=True))
