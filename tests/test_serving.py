"""`stage=serve` puts what a run leaves behind vLLM's server (README), and it answers as in the run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import runner

from finr1 import compose
from finr1.context import build_all
from finr1.prompt import chat
from finr1.store import read_jsonl

pytestmark = pytest.mark.slow
START_S = 240.0


def _ask(url: str, body: dict[str, Any] | None = None) -> Any:
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        raw = response.read()
    return json.loads(raw) if raw else None


def test_vllms_server_answers_as_the_run_did(tiny_run: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cfg = compose.typed(compose.compose(["+experiment=tiny"]))
    questions = build_all(cfg.benchmark)["worked"].load()
    ours = {
        row["question_id"]: row["text"] for row in read_jsonl(tiny_run / "6_scores" / "worked" / "grpo.greedy.jsonl")
    }
    asked = {"model": "tiny", "max_tokens": cfg.evaluate.sampling.max_new_tokens, "temperature": 0}
    command = runner.command("+experiment=tiny", "stage=serve", f"serve.port={port}")
    log = tmp_path / "server.txt"
    with log.open("w") as out:
        server = subprocess.Popen(
            command, stdout=out, stderr=out, env=runner.environment(), cwd=tiny_run.parents[1], start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_S
        while True:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            try:
                _ask(f"http://127.0.0.1:{port}/health")
                break
            except OSError:
                time.sleep(1)
        told = [
            _ask(f"http://127.0.0.1:{port}/v1/chat/completions", {"messages": chat(q, cfg.prompt.system), **asked})
            for q in questions
        ]
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(30)
        with contextlib.suppress(ProcessLookupError):  # its engine is a process of its own
            os.killpg(server.pid, signal.SIGKILL)
    texts = [reply["choices"][0]["message"]["content"] for reply in told]
    # the same greedy decoding by the run's own engine; bf16 may break a near tie otherwise in another batch
    same = [text[:30] == ours[q.id][:30] for q, text in zip(questions, texts, strict=True)]
    assert min(map(len, texts)) >= 30 and sum(same) >= 3, list(zip(texts, ours.values(), strict=True))
