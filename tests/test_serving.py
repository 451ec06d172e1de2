"""What a run leaves is a model folder that vLLM's server takes as it is (the command of the README)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import runner

pytestmark = pytest.mark.slow
START_S = 240.0


def _ask(url: str, body: dict[str, Any] | None = None) -> Any:
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        raw = response.read()
    return json.loads(raw) if raw else None


def test_vllms_server_loads_the_grpo_model_and_answers(tiny_run: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tiny_run / "5_grpo" / "model"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--enforce-eager", "--max-model-len", "512", "--served-model-name", "tiny"]
    log = tmp_path / "server.txt"
    with log.open("w") as out:
        environment = runner.environment(VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1")
        server = subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + START_S
        while True:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            try:
                _ask(f"http://127.0.0.1:{port}/health")
                break
            except OSError:
                time.sleep(1)
        messages = [{"role": "user", "content": "What is 2 + 2?"}]
        body = {"model": "tiny", "messages": messages, "max_tokens": 8, "temperature": 0}
        first, second = (_ask(f"http://127.0.0.1:{port}/v1/chat/completions", body) for _ in range(2))
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(30)
        with contextlib.suppress(ProcessLookupError):  # its engine is a process of its own
            os.killpg(server.pid, signal.SIGKILL)
    assert first["usage"]["completion_tokens"] == 8 or first["choices"][0]["finish_reason"] == "stop"
    assert first["choices"][0]["message"]["content"].strip()
    assert first["choices"][0]["message"] == second["choices"][0]["message"]
