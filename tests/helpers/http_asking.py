"""Query a fault-injecting server through the http engine."""

from __future__ import annotations

from typing import Any

from finr1.core.types import Completion, Message, Question
from finr1.parts.engine.base import Request
from finr1.parts.engine.http.engine import HttpEngine
from finr1.settings.sampling import Sampling
from tests.helpers.fault_server import Behave, Server, serve

ONE = Sampling(temperature=0.6, max_new_tokens=64)


def requests(n: int, text: str = "question") -> list[Request]:
    made = []
    for i in range(n):
        prompt = [Message(role="user", content=f"{text} {i}")]
        made.append(Request(prompt, Question("made", str(i), "en", "reasoning business", "number", prompt, str(i))))
    return made


def engine(server: Server, **settings: Any) -> HttpEngine:
    return HttpEngine(**{"model": "m", "base_url": server.url, "backoff_s": 0.01, "timeout_s": 5.0, **settings})


def ask(behave: Behave, n: int = 1, sampling: Sampling = ONE, **settings: Any) -> tuple[list[list[Completion]], Server]:
    """Ask `n` questions of a server with this behaviour; returns the completions and the server."""
    with serve(behave) as server:
        return engine(server, **settings).generate(requests(n), sampling), server
