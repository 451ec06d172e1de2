"""How fast stage `distil` calls a server with engine=http: requests per second of one that answers at once, and share
of `concurrency` that is in flight at one that takes a second.

    python experiments/benchmarks/distil_http.py [--questions 1200]

The whole stage is measured, its file included, against a server in a process of its own on this machine. The peer is a
bare loop over the `openai` client, which keeps nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.benchmarks.figures import Figures
from finr1.cli import compose
from finr1.run.walk import walk

CONCURRENCY = 64
TEXT = "<think>\n" + "The value is 12 x 3.5 = 42.\n" * 8 + "</think>\n<answer>\n\\boxed{42}\n</answer>"
MESSAGE = {"role": "assistant", "content": TEXT}
ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "created": 0,
    "model": "served",
    "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 90, "total_tokens": 190},
}


class Chat(asyncio.Protocol):
    """HTTP with as little work as can be: every POST gets the same answer after `delay_s`, every GET the figures."""

    delay_s = 0.0
    open = requests = 0
    first = last = area = 0.0  # seconds, and request-seconds in flight up to `last`

    @classmethod
    def count(cls, change: int) -> None:
        now = time.monotonic()
        cls.first = cls.first or now
        cls.area += cls.open * (now - (cls.last or now))
        cls.last, cls.open = now, cls.open + change
        cls.requests += change > 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found:
            return
        if head.startswith(b"GET"):
            mean = Chat.area / max(Chat.last - Chat.first, 1e-9)
            self.data = b""
            Chat.open = Chat.requests = 0
            Chat.first = Chat.last = Chat.area = 0.0
            self.send({"mean_in_flight": mean})
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(body) >= length:
            self.data = body[length:]
            Chat.count(1)
            asyncio.get_running_loop().call_later(Chat.delay_s, self.answer)

    def answer(self) -> None:
        Chat.count(-1)
        self.send(ANSWER)

    def send(self, value: Any) -> None:
        raw = json.dumps(value).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
        self.transport.write(head.encode() + raw)


async def serve(delay_s: float) -> None:
    """Listen until the parent ends this process; its port goes to stdout."""
    Chat.delay_s = delay_s
    server = await asyncio.get_running_loop().create_server(Chat, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def server(delay_s: float) -> Iterator[str]:
    """The base address of a server in a process of its own."""
    command = [sys.executable, __file__, "--serve", str(delay_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


def in_flight(url: str) -> float:
    """Mean requests open at the server, from the first to the last; asking sets it back."""
    with urllib.request.urlopen(url) as reply:
        return float(json.load(reply)["mean_in_flight"])


def stage_seconds(url: str, n: int, client: str = "openai") -> float:
    """Seconds of stage `distil` over `n` questions."""
    with tempfile.TemporaryDirectory() as folder:
        for stage in ("questions", "distil"):
            more = [f"paths.runs={folder}", f"source.worked.n_train={n}", "source.worked.n_test=2"]
            more += ["source.worked.difficulty=3"]  # the quickstart's own has too few different questions
            more += ["engine@engine.teacher=http", "engine.teacher.model=m", f"engine.teacher.base_url={url}"]
            more += [f"engine.teacher.client={client}"]
            cfg = compose.compose([f"stage={stage}", *more, f"engine.teacher.concurrency={CONCURRENCY}"])
            spent = walk(compose.typed(cfg), compose.plain(cfg))
    return spent["distil"].seconds


def peer_seconds(url: str, n: int) -> float:
    """Seconds of `n` requests through `openai.AsyncOpenAI`, as many at a time."""
    from openai import AsyncOpenAI

    async def ask_all() -> float:
        places = asyncio.Semaphore(CONCURRENCY)
        async with AsyncOpenAI(base_url=url, api_key="none") as client:

            async def ask(i: int) -> None:
                async with places:
                    await client.chat.completions.create(
                        model="m", messages=[{"role": "user", "content": f"question {i} " * 20}], max_tokens=512
                    )

            began = time.monotonic()
            await asyncio.gather(*(ask(i) for i in range(n)))
            return time.monotonic() - began

    return asyncio.run(ask_all())


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=1200)
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        asyncio.run(serve(arguments.serve))
        return
    few = arguments.questions // 3
    with server(0.0) as url:
        rate, peer_rate = arguments.questions / stage_seconds(url, arguments.questions), few / peer_seconds(url, few)
        requests_rate = few / stage_seconds(url, few, "requests")
    with server(1.0) as url:
        stage_seconds(url, 8 * CONCURRENCY)
        share = in_flight(url) / CONCURRENCY
        peer_seconds(url, 4 * CONCURRENCY)
        peer_share = in_flight(url) / CONCURRENCY
    figures = Figures("distil_http")
    figures.add("instant_server", rate, "> 300", "requests/s", peer_rate)
    figures.add("instant_server_requests", requests_rate, "> 300", "requests/s, engine.client=requests", peer_rate)
    figures.add("one_second_server", share, "> 0.9", "share of concurrency in flight", peer_share)
    figures.write()


if __name__ == "__main__":
    main()
