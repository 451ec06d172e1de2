"""Evaluation beside its peers: seconds on the same questions of one server, and what scoring costs the engine.

    python experiments/benchmarks/evaluate_peers.py --evalscope <its python> --lm-eval <its python> [--questions 64]

Both peers live in environments of their own, whose Python is given here or as FINR1_EVALSCOPE_PYTHON and
FINR1_LM_EVAL_PYTHON; one that is missing is left out, and said so. `stage=serve` serves the embedded model without
a prefix cache, so that who comes later gains nothing. Each program is a whole process, start-up included, with the
same chats, greedy, as many tokens and as many requests in flight; the best of the rounds counts. evalscope runs
`general_qa` (BLEU, Rouge), lm-eval `exact_match`. Texts are compared: all three must have asked the same.

The engine: `scoring.score` with its rows written, as the stage does, beside `llm.generate` of the same engine on
prompts that are token ids already; CPU seconds, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.benchmarks.figures import REPO, Figures
from experiments.benchmarks.served import served
from finr1.cli import compose
from finr1.core.build import build_all
from finr1.core.jsonl import JsonlWriter, read_jsonl, write_jsonl
from finr1.core.prompt import chat
from finr1.core.types import Question
from finr1.settings.sampling import Sampling

IN_FLIGHT = 64
EVALSCOPE = "import json, sys, evalscope; evalscope.run_task(evalscope.TaskConfig(**json.loads(sys.argv[1])))"
LM_EVAL_TASK = """
task: same_questions
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: [], do_sample: false, temperature: 0, max_gen_toks: {tokens}}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


class Spent(NamedTuple):
    """What a program took, and what it was told, by the question's text."""

    wall_s: float
    cpu_s: float
    texts: dict[str, str]


def settings(n: int, tokens: int) -> list[str]:
    """What finr1 is told: the quickstart's questions as chats without a system prompt, greedy."""
    how = [f"evaluate.sampling.max_new_tokens={tokens}", "evaluate.sampled=false", "prompt.system=null"]
    return [*how, "stage=evaluate", f"benchmark.worked.limit={n}"]


def questions_of(n: int) -> list[Question]:
    """The questions that these settings ask."""
    return list(build_all(compose.typed(compose.compose(settings(n, 1))).benchmark)["worked"].load())


def timed(command: Sequence[str], folder: Path, cwd: Path | None = None) -> tuple[float, float]:
    """Wall and CPU seconds of a program that must succeed; its words go into the folder."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with (folder / "words.txt").open("w") as words:
        environment = {**kept, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=cwd or folder, env=environment, stdout=words, stderr=words, check=False)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{command[:3]} failed: {(folder / 'words.txt').read_text()[-3000:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def by_finr1(python: str, questions: Sequence[Question], url: str, tokens: int, folder: Path) -> Spent:
    """`stage=evaluate` of an engine `http`."""
    node = [f"engine.served.{k}={v}" for k, v in (("model", "same"), ("base_url", url), ("concurrency", IN_FLIGHT))]
    what = ["evaluate.models=[served]", "+engine@engine.served=http", *node, "name=same", f"paths.runs={folder}"]
    wall, cpu = timed([python, "-m", "finr1", *settings(len(questions), tokens), *what], folder, REPO)
    text_of = {question.id: question.text for question in questions}
    rows = read_jsonl(folder / "same" / "6_scores" / "worked" / "served.greedy.jsonl")
    return Spent(wall, cpu, {text_of[row["question_id"]]: row["text"] for row in rows})


def by_evalscope(python: str, questions: Sequence[Question], url: str, tokens: int, folder: Path) -> Spent:
    """`general_qa` on a file of messages."""
    rows = [{"messages": chat(question, None), "answer": question.gold} for question in questions]
    write_jsonl(folder / "data" / "same.jsonl", rows)
    task = {
        "model": "same",
        "api_url": url,
        "api_key": "none",
        "eval_type": "openai_api",
        "datasets": ["general_qa"],
        "dataset_args": {"general_qa": {"local_path": str(folder / "data"), "subset_list": ["same"]}},
        "generation_config": {"temperature": 0.0, "max_tokens": tokens},
        "eval_batch_size": IN_FLIGHT,
        "work_dir": str(folder / "out"),
        "no_timestamp": True,
    }
    wall, cpu = timed([python, "-c", EVALSCOPE, json.dumps(task)], folder)
    (file,) = (folder / "out" / "predictions").rglob("*.jsonl")
    texts = {}
    for row in read_jsonl(file):
        content = row["model_output"]["choices"][0]["message"]["content"]
        parts = [part.get("text", "") for part in content] if isinstance(content, list) else [content]
        texts[questions[row["index"]].text] = "".join(parts)
    return Spent(wall, cpu, texts)


def by_lm_eval(python: str, questions: Sequence[Question], url: str, tokens: int, folder: Path) -> Spent:
    """A task of its own on a file of questions, as chats."""
    file, tasks = folder / "same.jsonl", folder / "tasks"
    write_jsonl(file, ({"question": question.text, "answer": question.gold} for question in questions))
    tasks.mkdir()
    (tasks / "same.yaml").write_text(LM_EVAL_TASK.format(file=file, tokens=tokens))
    model = f"model=same,base_url={url}/chat/completions,num_concurrent={IN_FLIGHT},tokenized_requests=False"
    command = [python, "-m", "lm_eval", "--model", "local-chat-completions", "--model_args", model, "--tasks"]
    command += ["same_questions", "--include_path", str(tasks), "--apply_chat_template", "--log_samples"]
    wall, cpu = timed([*command, "--output_path", str(folder / "out")], folder)
    (found,) = (folder / "out").rglob("samples_*.jsonl")
    return Spent(wall, cpu, {row["doc"]["question"]: row["resps"][0][0] for row in read_jsonl(found)})


PROGRAMS: dict[str, Callable[[str, Sequence[Question], str, int, Path], Spent]] = {
    "finr1": by_finr1,
    "evalscope": by_evalscope,
    "lm_eval": by_lm_eval,
}


def side_by_side(pythons: dict[str, str], n: int, tokens: int, rounds: int, folder: Path) -> dict[str, list[Spent]]:
    """Every program's rounds, in turn; which comes first moves with the round."""
    questions, spent = questions_of(n), {name: list[Spent]() for name in pythons}
    with served(
        "serve.model=base", "serve.name=same", "serve.extra=[--no-enable-prefix-caching]", folder=folder, start_s=900
    ) as url:
        by_finr1(pythons["finr1"], questions[:2], url, 4, _new(folder, "warm"))
        for number in range(rounds):
            names = list(pythons)[number % len(pythons) :] + list(pythons)[: number % len(pythons)]
            for name in names:
                found = PROGRAMS[name](pythons[name], questions, url, tokens, _new(folder, f"{name}{number}"))
                print(f"{name}: {found.wall_s:.1f} s, {found.cpu_s:.1f} CPU s", flush=True)
                assert len(found.texts) == len(questions), name
                spent[name].append(found)
    return spent


def _new(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def engine_alone(n: int, tokens: int, rounds: int, folder: Path) -> tuple[float, float]:
    """Tokens a CPU second of `scoring.score` and of `llm.generate`, in turn on one engine."""
    from finr1.evaluation.scores.rows import score
    from finr1.parts.engine.vllm.engine import VllmEngine
    from finr1.parts.model.tokens import prompt_ids
    from finr1.settings.model import ModelSettings

    questions, engine = questions_of(n), VllmEngine(ModelSettings(max_model_len=512))
    llm, written = engine.llm, {"scored": 0, "bare": 0}
    tokenizer = llm.get_tokenizer()
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": prompt_ids(tokenizer, chat(question, None))} for question in questions]
    llm.generate(prompts[:4], SamplingParams(temperature=0, max_tokens=4), use_tqdm=False)
    cpu_s = {"scored": 0.0, "bare": 0.0}
    for number in range(rounds):
        for kind in ("scored", "bare") if number % 2 else ("bare", "scored"):
            llm.reset_prefix_cache()
            began = time.process_time()
            if kind == "scored":
                with JsonlWriter(folder / f"rows{number}.jsonl") as writer:
                    sampling = Sampling(temperature=0, max_new_tokens=tokens)
                    rows = score(
                        engine,
                        questions,
                        None,
                        sampling,
                        lambda graded: writer.write(*(row.to_json() for row in graded)),
                    )
                written[kind] += sum(row.n_tokens for row, *_ in rows)
            else:
                outputs = llm.generate(prompts, SamplingParams(temperature=0, max_tokens=tokens), use_tqdm=False)
                written[kind] += sum(len(output.outputs[0].token_ids) for output in outputs)
            cpu_s[kind] += time.process_time() - began
    engine.close()
    assert written["scored"] == written["bare"], written
    return written["scored"] / cpu_s["scored"], written["bare"] / cpu_s["bare"]


def version(python: str, package: str) -> str:
    """A package's version in another environment."""
    program = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evalscope", default=os.environ.get("FINR1_EVALSCOPE_PYTHON"))
    parser.add_argument("--lm-eval", default=os.environ.get("FINR1_LM_EVAL_PYTHON"))
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    n, tokens, rounds = arguments.questions, arguments.tokens, arguments.rounds
    given = {"finr1": sys.executable, "evalscope": arguments.evalscope, "lm_eval": arguments.lm_eval}
    pythons: dict[str, Any] = {name: python for name, python in given.items() if python}
    if missing := sorted(set(given) - set(pythons)):
        print(f"left out: {', '.join(missing)}; name the Python of each (--help)")
    figures = Figures("evaluate")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spent = side_by_side(pythons, n, tokens, rounds, folder)
        scored, bare = engine_alone(n, tokens, max(2, rounds), folder)  # each goes first once
    peers = {peer: f"{peer} {version(python, peer)}" for peer, python in pythons.items() if peer != "finr1"}
    how = f"{n} questions of one server, {tokens} tokens each, {IN_FLIGHT} in flight, best of {rounds}"
    for figure, place, unit in (("server_wall", 0, "seconds, start-up included"), ("server_cpu", 1, "CPU seconds")):
        best = {program: min(found[place] for found in rows) for program, rows in spent.items()}
        beside = "; ".join(f"{peers[peer]}: {best[peer]:.1f}" for peer in peers)
        faster = min((best[peer] for peer in peers), default=None)
        figures.add(figure, best["finr1"], "<= 1 x peer", f"{unit}: {how}; {beside}", faster)
    ours = spent["finr1"][0].texts
    same = {peer: sum(spent[peer][0].texts[text] == told for text, told in ours.items()) / n for peer in peers}
    for peer, share in same.items():
        figures.add(f"same_texts_{peer}", share, ">= 0.9", "share of the questions that both were told the same of")
    figures.add("engine", scored, ">= 0.95 x peer", f"tokens a CPU second: {n} questions; bare llm.generate", bare)
    figures.write()


if __name__ == "__main__":
    main()
