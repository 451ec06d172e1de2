"""A fault-injecting chat server on 127.0.0.1, which records every request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Seen(NamedTuple):
    """A request: its number, arrival (`time.monotonic`), JSON, headers, and the number of requests open then."""

    number: int
    at: float
    body: dict[str, Any]
    headers: dict[str, str]
    in_flight: int

    @property
    def text(self) -> str:
        """The last user message."""
        return str(next(m["content"] for m in reversed(self.body["messages"]) if m["role"] == "user"))


@dataclass
class Reply:
    """A response: a body, or a network fault."""

    status: int = 200
    body: bytes | dict[str, Any] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut_at: int | None = None  # close the connection after so many bytes of the body
    reset: bool = False  # reset the connection without an answer


Behave = Callable[[Seen], Reply]


def chat(text: Any = "ok", n: int = 1, usage: tuple[int, int] | None = (10, 5), **more: Any) -> dict[str, Any]:
    """Return the JSON of a valid answer: `n` choices of `text`; `more`: fields of each message, and `finish_reason`."""
    finish = more.pop("finish_reason", "stop")
    message = {"role": "assistant", "content": text, **more}
    choices = [{"index": i, "message": message, "finish_reason": finish} for i in range(n)]
    body: dict[str, Any] = {"id": "x", "object": "chat.completion", "model": "served", "choices": choices}
    return body | ({"usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}} if usage else {})


def solved(seen: Seen) -> dict[str, Any]:
    """Return a valid answer that depends on the question only, with as many choices as requested."""
    size = sum(map(ord, seen.text)) % 1000
    text = f"<think>\nIt is {size}.\n</think>\n<answer>\n\\boxed{{{size}}}\n</answer>"
    n = seen.body.get("n", 1)
    return chat(text, n=n, usage=(len(seen.text), 40 * n))


class Server:
    """Answers in its own thread; `seen` has every request, `answered` counts the valid answers sent completely."""

    def __init__(self, behave: Behave) -> None:
        self.behave = behave
        self.seen: list[Seen] = []
        self.answered: list[Seen] = []
        self._open = 0
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """The address for `base_url`."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._one(reader, writer):
                pass
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
        raw = await reader.readexactly(int(headers["content-length"]))
        assert head[0].startswith("POST /v1/chat/completions "), head[0]
        self._open += 1
        seen = Seen(len(self.seen), time.monotonic(), json.loads(raw), headers, self._open)
        self.seen.append(seen)
        try:
            reply = self.behave(seen)
            await asyncio.sleep(reply.delay_s)
        finally:
            self._open -= 1
        if reply.reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        lines = [f"HTTP/1.1 {reply.status} x", f"Content-Length: {len(body)}", "Content-Type: application/json"]
        lines += [f"{key}: {value}" for key, value in reply.headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body[: reply.cut_at])
        await writer.drain()
        if reply.status == 200 and reply.cut_at is None:
            self.answered.append(seen)
        return reply.cut_at is None

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512))
        self.port = self._server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        self._server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    @contextmanager
    def running(self) -> Iterator[Server]:
        """Run the server until the block ends."""
        ready = threading.Event()
        thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        thread.start()
        assert ready.wait(10)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(10)


def serve(behave: Behave) -> contextlib.AbstractContextManager[Server]:
    """`with serve(behave) as server:`"""
    return Server(behave).running()


def each(*replies: Reply | Behave) -> Behave:
    """Send these replies in order, then the last one repeatedly."""

    def behave(seen: Seen) -> Reply:
        reply = replies[min(seen.number, len(replies) - 1)]
        return reply(seen) if callable(reply) else reply

    return behave


def good(seen: Seen) -> Reply:
    """Always send a valid answer."""
    return Reply(body=solved(seen))


# What a server can do wrong; the last comes later than a timeout of 1 s.
WIRE_FAULTS = [
    Reply(500),
    Reply(429),
    Reply(429, headers={"Retry-After": "0.02"}),
    Reply(reset=True),
    Reply(body=chat("cut"), cut_at=40),
    Reply(body=b'{"choices": [{"mess'),
    Reply(body=chat("")),
    Reply(body=chat("x", n=0)),
    Reply(body=chat("late"), delay_s=1.5),
]
