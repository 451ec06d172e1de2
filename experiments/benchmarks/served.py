"""A model behind `stage=serve` while something asks it: for benchmarks, and for the tests of serving."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.benchmarks.figures import REPO


@contextmanager
def served(*arguments: str, folder: Path, start_s: float = 240.0, **env: str) -> Iterator[str]:
    """The address (`http://127.0.0.1:<port>/v1`) of `python -m finr1 stage=serve <arguments>`, run in `folder`.

    Its words go to `folder/server.txt`. RuntimeError with the end of them where it does not answer in `start_s`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "finr1", "stage=serve", f"serve.port={port}", *arguments]
    log = folder / "server.txt"
    with log.open("w") as out:
        server = subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            env={**os.environ, "PYTHONPATH": str(REPO), **env},
            cwd=folder,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + start_s
        while not _healthy(f"http://127.0.0.1:{port}/health"):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {log.read_text()[-3000:]}")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(30)
        with contextlib.suppress(ProcessLookupError):  # its engine is a process of its own
            os.killpg(server.pid, signal.SIGKILL)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False
