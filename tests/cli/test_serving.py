"""`stage=serve` puts a run's model behind vLLM's server (README): any client may ask it, it scores as in process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.benchmarks.served import served
from finr1.cli import compose
from finr1.core.build import build_all
from finr1.core.jsonl import read_jsonl
from finr1.core.prompt import chat
from finr1.core.scores import Score
from tests.helpers import runner

openai = pytest.importorskip("openai", reason="vLLM brings it")
requests = pytest.importorskip("requests", reason="vLLM brings it")
pytestmark = pytest.mark.slow
KEY = "sk-of-this-test"
PENALTY = 1.05  # of Fin-R1's model card: a field that is vLLM's own
START_S = 600.0  # of a server on a machine that does other work beside
SETTINGS = ["+experiment=tiny", "model.dtype=float32", "evaluate.sampled=false", "benchmark.worked.limit=6"]
SETTINGS += ["evaluate.sampling.max_new_tokens=40", f"evaluate.sampling.repetition_penalty={PENALTY}"]


def evaluated(folder: Path, name: str, *models: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Question id -> text, and the figures of the only model scored."""
    done = runner.run(folder, *SETTINGS, "stage=evaluate", f"name={name}", *models, SERVED_KEY=KEY)
    assert done.returncode == 0, done.stderr[-3000:]
    scores = folder / "runs" / name / "6_scores"
    (score,) = Score.read(scores / "scores.json")
    rows = read_jsonl(scores / "worked" / f"{score.model}.greedy.jsonl")
    return {row["question_id"]: row["text"] for row in rows}, dict(score.values)


def scored_alike(url: str, folder: Path, messages: Any) -> None:
    """The server's log-probs of a prompt are those of transformers with the same folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
    body = {"model": "mine", "prompt": ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    reply = requests.post(f"{url}/completions", json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=120)
    told = reply.json()["choices"][0]["prompt_logprobs"][1:]  # of the first token there is none
    theirs = torch.tensor([one[str(token)]["logprob"] for one, token in zip(told, ids[1:], strict=True)])
    with torch.no_grad():
        logits_TV = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(torch.tensor([ids])).logits[
            0, :-1
        ]
    ours = logits_TV.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    assert len(ids) > 20 and float((theirs - ours).abs().max()) < 1e-3 and float(ours.mean()) < -0.5


def every_route_needs_the_key(root: str) -> None:
    """Each method of each route that the server lists, and the mounted ones, answer 401 without the key."""
    key = {"Authorization": f"Bearer {KEY}"}
    paths = requests.get(f"{root}/openapi.json", headers=key, timeout=60).json()["paths"]
    routes = {(method, path) for path, methods in paths.items() for method in methods}
    assert {("post", "/v1/chat/completions"), ("post", "/tokenize"), ("post", "/invocations")} <= routes
    routes |= {("get", path) for path in ("/metrics", "/docs", "/openapi.json", "/no-such-route", "/health/")}
    for method, path in sorted(routes - {("get", "/health")}):
        for headers in ({}, {"Authorization": "Bearer sk-other"}, {"Authorization": KEY}):
            assert requests.request(method, root + path, headers=headers, timeout=60).status_code == 401, (method, path)
    assert requests.get(f"{root}/health", timeout=60).status_code == 200
    assert requests.get(f"{root}/metrics", headers=key, timeout=60).status_code == 200


def test_any_client_may_ask_and_the_scores_are_those_in_process(tiny_run: Path, tmp_path: Path) -> None:
    model = tiny_run / "5_grpo" / "model"
    cfg = compose.typed(compose.compose(SETTINGS))
    questions = build_all(cfg.benchmark)["worked"].load()
    inside, figures = evaluated(tmp_path, "inside", f"evaluate.models=[{model}]")
    # In float32 the greedy choice does not hang on what else is in the batch; in bf16 a near tie may break otherwise.
    how, own = {"max_tokens": cfg.evaluate.sampling.max_new_tokens, "temperature": 0}, {"repetition_penalty": PENALTY}
    serving = [*SETTINGS, f"serve.model={model}", "serve.name=mine", "serve.api_key_env=SERVED_KEY"]
    serving += ["serve.kv_cache_gib=0.25"]
    with served(*serving, folder=tmp_path, start_s=START_S, SERVED_KEY=KEY) as url:
        client = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0)
        assert [listed.id for listed in client.models.list()] == ["mine"]
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=url, api_key="sk-other", max_retries=0).models.list()
        every_route_needs_the_key(url.removesuffix("/v1"))
        for question in questions:
            messages = chat(question, cfg.prompt.system)
            reply = client.chat.completions.create(model="mine", messages=messages, extra_body=own, **how)
            assert reply.choices[0].message.content == inside[question.id]
            body = {"model": "mine", "messages": messages, **how, **own}
            answer = requests.post(
                f"{url}/chat/completions", json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=120
            )
            assert answer.json()["choices"][0]["message"]["content"] == inside[question.id]
        scored_alike(url, model, chat(questions[0], cfg.prompt.system))
        engine = [
            f"engine.served.{k}={v}" for k, v in (("model", "mine"), ("base_url", url), ("api_key_env", "SERVED_KEY"))
        ]
        outside, served_figures = evaluated(
            tmp_path, "outside", "evaluate.models=[served]", "+engine@engine.served=http", *engine
        )
    assert len(inside) == 6 and min(map(len, inside.values())) > 0 and outside == inside
    cost, served_cost = figures.pop("cost"), served_figures.pop("cost")
    assert served_figures == figures
    assert served_cost["tokens"] == cost["tokens"] == served_cost["paid_completion_tokens"]
    assert served_cost["paid_prompt_tokens"] > 0 and cost["paid_prompt_tokens"] is None
    said = (tmp_path / "server.txt").read_text()
    # 0.25 GiB by 46,080 bytes a token (30 layers, keys and values of 3 heads of 64, fp32): 45 whole blocks of 128
    assert KEY not in said and "KV cache size: 5,760 tokens" in said
