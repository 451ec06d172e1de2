"""Engine `http`: asks an OpenAI-compatible server (`/chat/completions`), many requests at a time.

What can go wrong between here and there is met here: errors of the server and of the network are tried again with
jittered backoff, Retry-After is honoured, answers that are no answers (broken JSON, no text, too few choices) are asked
for again, and what still fails becomes a completion with `finish_reason="error"` and its reason. A spend ceiling ends
the stream cleanly. The key comes from an environment variable alone and is cut out of every message.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

from finr1.core.errors import ConfigError
from finr1.core.types import Completion
from finr1.parts.engine.base import OnDone, Request, Spend
from finr1.parts.engine.http.clients import CLIENTS, Address, Client
from finr1.parts.engine.http.limits import Budget, Pace
from finr1.parts.engine.http.replies import (
    THINK,
    Fault,
    Reply,
    error_words,
    prompt_tokens,
    prompt_tokens_at_most,
    read_reply,
    retry_after_s,
    share,
    text_tokens,
    with_meta,
)
from finr1.settings.sampling import Sampling

LEAD_INS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {  # how a server is told: in the message, in the body
    "vllm": ({}, {"continue_final_message": True, "add_generation_prompt": False}),
    "deepseek": ({"prefix": True}, {}),
}
RETRIED = frozenset({408, 409, 425, 429, *range(500, 600)})
MAX_BACKOFF_S = 60.0
MAX_RETRY_AFTER_S = 900.0  # a server that wants a longer rest is out of quota: the call fails with that reason


class Line(NamedTuple):
    """What the workers of one stream share: the connections, and whose turn it is to wait for the next slot."""

    client: Client
    turn: asyncio.Lock


class HttpEngine:
    """See the module; `conf/engine/http.yaml` says what each setting means. ConfigError for one that cannot work."""

    operational: ClassVar[frozenset[str]] = frozenset(
        {
            "base_url",
            "client",
            "api_key_env",
            "concurrency",
            "requests_per_minute",
            "tokens_per_minute",
            "retries",
            "backoff_s",
        }
        | {"timeout_s", "max_spend_tokens", "max_spend_money", "price_in", "price_out"}
    )

    def __init__(
        self,
        model: str | None = None,
        n_in_one_request: bool = True,
        lead_in: str | None = None,
        extra_body: Mapping[str, Any] | None = None,
        base_url: str = "http://127.0.0.1:8000/v1",
        client: str = "aiohttp",
        api_key_env: str | None = None,
        concurrency: int = 64,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        retries: int = 6,
        backoff_s: float = 1.0,
        timeout_s: float = 600.0,
        max_spend_tokens: int | None = None,
        max_spend_money: float | None = None,
        price_in: float = 0.0,
        price_out: float = 0.0,
    ) -> None:
        self.check_settings({key: value for key, value in locals().items() if key != "self"}, "engine")
        self.name = self.model = str(model)
        self.n_in_one_request, self.lead_in, self.extra_body = n_in_one_request, lead_in, dict(extra_body or {})
        self.api_key_env, self._key = api_key_env, os.environ[api_key_env].strip() if api_key_env else ""
        self.client, self.address = client, Address(base_url.rstrip("/"), self._key, timeout_s)
        self.concurrency, self.retries, self.backoff_s = concurrency, retries, backoff_s
        self.pace = Pace(requests_per_minute, tokens_per_minute)
        self.budget = Budget(max_spend_tokens, max_spend_money, Spend(price_in=price_in, price_out=price_out))
        self._answered = False

    @staticmethod
    def check_settings(node: Mapping[str, Any], key: str) -> None:
        """ConfigError for settings that cannot work, `key` being where they stand; also asked before a run starts."""

        def refuse(name: str, why: str, remedy: str, value: object = None) -> None:
            raise ConfigError(f"{key}.{name}", node.get(name) if value is None else value, why, remedy)

        if not node.get("model"):
            refuse("model", "the server must be told which model to use", f"set {key}.model=<its name there>")
        url = urlsplit(str(node.get("base_url", "http://x")))
        if url.scheme not in ("http", "https") or not url.hostname:
            refuse("base_url", "not an address", "give one like https://host/v1")
        if url.username or url.password or url.query:
            refuse(
                "base_url", "it must hold no secret", f"put the key into a variable and name it: {key}.api_key_env", "…"
            )
        if variable := node.get("api_key_env"):
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(variable)):
                refuse("api_key_env", "not the name of an environment variable", "give its name, never the key", "…")
            if not os.environ.get(str(variable), "").strip():
                refuse("api_key_env", "no such environment variable, or it is empty", "export it, or set it to null")
        if node.get("client", "aiohttp") not in CLIENTS:
            refuse("client", "no such client", f"use one of {', '.join(CLIENTS)}")
        if node.get("lead_in") not in (None, *LEAD_INS):
            refuse("lead_in", "no such way", f"use null or one of {', '.join(LEAD_INS)}")
        for name, least in (("concurrency", 1), ("retries", 0), ("backoff_s", 0), ("price_in", 0), ("price_out", 0)):
            if node.get(name, 1) < least:
                refuse(name, "too small", f"use {least} or more")
        for name in ("requests_per_minute", "tokens_per_minute", "timeout_s", "max_spend_tokens", "max_spend_money"):
            if (value := node.get(name)) is not None and value <= 0:
                refuse(
                    name,
                    "nothing would be asked",
                    "use a value above 0" if name == "timeout_s" else "use null for no limit",
                )
        if node.get("max_spend_money") is not None and not (node.get("price_in") or node.get("price_out")):
            refuse(
                "max_spend_money", "without prices nothing costs anything", f"set {key}.price_in and {key}.price_out"
            )

    @property
    def spent(self) -> Spend:
        """Tokens paid for up to now."""
        return self.budget.spent

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        """Complete every request, in order; ConfigError when the spend ceiling leaves some unanswered."""
        results: list[list[Completion]] = [[] for _ in requests]

        def keep(index: int, completions: Sequence[Completion]) -> None:
            results[index] = list(completions)
            if on_done:
                on_done(index, completions)

        self.stream(requests, sampling, keep)
        return results

    def stream(self, requests: Iterable[Request], sampling: Sampling, on_done: OnDone) -> None:
        """See `StreamEngine`."""
        _run(self._stream(enumerate(requests), sampling, on_done))

    def close(self) -> None:
        """Connections live only as long as a call."""

    async def _stream(self, requests: Iterator[tuple[int, Request]], sampling: Sampling, on_done: OnDone) -> None:
        worst = 0  # of the first question that did not fit under the ceiling

        async def worker(line: Line) -> None:
            nonlocal worst
            while not worst:
                if (drawn := next(requests, None)) is None:
                    return
                index, request = drawn
                prompt = sampling.n * prompt_tokens_at_most(request.messages)
                completion = sampling.n * sampling.max_new_tokens
                while (number := self.budget.reserve(prompt, completion)) is None:
                    if worst or self.budget.idle:
                        worst = worst or prompt + completion
                        return
                    await asyncio.sleep(0.02)
                try:
                    completions = await self._complete(line, request, sampling)
                finally:
                    self.budget.release(number)
                on_done(index, completions)

        client = CLIENTS[self.client](self.address)
        line = Line(client, asyncio.Lock())
        tasks = [asyncio.create_task(worker(line)) for _ in range(self.concurrency)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await client.close()
        if worst:
            self._say_ceiling(worst)

    def _say_ceiling(self, worst: int) -> None:
        tokens = self.budget.max_tokens
        by_tokens = tokens is not None and self.spent.tokens + worst > tokens
        name, ceiling = ("max_spend_tokens", tokens) if by_tokens else ("max_spend_money", self.budget.max_money)
        spent = f"{self.spent.tokens:,} tokens" + (f" ({self.spent.money():.4f})" if self.spent.money() else "")
        raise ConfigError(
            f"engine.{name}",
            ceiling,
            f"{spent} are spent, and the next question may take {worst:,} more; what was answered is kept",
            "raise it and start again to go on",
        )

    async def _complete(self, line: Line, request: Request, sampling: Sampling) -> list[Completion]:
        """The `sampling.n` completions of one request, asked for as often as it takes."""
        got: list[Completion] = []
        paid = [0, 0]
        faults, error = 0, ""
        while len(got) < sampling.n and not error:
            asked = sampling.n - len(got) if self.n_in_one_request else 1
            try:
                reply = await self._attempt(line, request, sampling, asked, paid)
                got += reply.choices[:asked]
                if not reply.choices:
                    raise reply.fault or Fault("no choices in the answer")
                faults = 0
            except Fault as fault:
                faults += 1
                why = self._clean(str(fault))
                self._end_if_hopeless(fault.status, why)
                if not fault.again or faults > self.retries:
                    error = f"{why} ({faults} attempts)" if faults > 1 else why
                else:
                    backoff = min(MAX_BACKOFF_S, self.backoff_s * 2 ** (faults - 1)) * random.uniform(0.5, 1.0)
                    await asyncio.sleep(max(backoff, fault.after_s or 0.0))
        got += [Completion("", "error", error=error) for _ in range(sampling.n - len(got))]
        got[0] = with_meta(got[0], paid=paid)
        return got

    async def _attempt(self, line: Line, request: Request, sampling: Sampling, n: int, paid: list[int]) -> Reply:
        """One request for `n` choices, when its turn has come; Fault where it gave nothing readable."""
        prompt_guess = prompt_tokens(request.messages)
        guess = prompt_guess + n * self.budget.expected(sampling.max_new_tokens)
        async with line.turn:  # one waits at a time, so that what is learnt meanwhile moves the others' slots
            while (wait_s := self.pace.take(guess)) > 0:
                await asyncio.sleep(wait_s)
                if not self.pace.held:
                    break
                self.pace.correct(-guess)
        used = 0
        try:
            reply = read_reply(await self._post(line.client, self.body(request, sampling, n)), bool(self.lead_in))
            prompt, completion = reply.usage or (prompt_guess, sum(text_tokens(c) for c in reply.choices))
            used = prompt + completion
            self._answered = True
            self._pay(paid, prompt, completion, len(reply.choices))
            return reply._replace(choices=share(reply.choices, completion))
        except Fault as fault:
            if fault.lost:  # perhaps charged for: counted as an average answer
                used = guess if self._answered else prompt_guess
                self._pay(paid, prompt_guess, used - prompt_guess)
            if fault.status == 429:
                self.pace.hold(fault.after_s or 0.0)
            raise
        finally:
            self.pace.correct(used - guess)

    def _pay(self, paid: list[int], prompt: int, completion: int, answers: int = 0) -> None:
        self.budget.pay(prompt, completion, answers)
        paid[0] += prompt
        paid[1] += completion

    def _end_if_hopeless(self, status: int, why: str) -> None:
        """A wrong key or address fails every request: said once, before anything was answered."""
        if status == 401 and not self._answered:
            raise ConfigError("engine.api_key_env", self.api_key_env, f"the server says {why}", "export a valid key")
        if status == 404 and not self._answered:
            remedy = f"mend it, or the model's name ({self.model})"
            raise ConfigError("engine.base_url", self.address.url, f"the server says {why}", remedy)

    def body(self, request: Request, sampling: Sampling, n: int) -> dict[str, Any]:
        """The JSON of a request. `top_k`, `regex` and the penalty are vLLM's own, sent only where they are used."""
        messages: list[dict[str, Any]] = [dict(message) for message in request.messages]
        body: dict[str, Any] = {"model": self.model, "messages": messages, "temperature": sampling.temperature}
        body |= {"max_tokens": sampling.max_new_tokens}
        body |= {"n": n} if n > 1 else {}
        body |= {"top_p": sampling.top_p} if sampling.top_p < 1 else {}
        body |= {"top_k": sampling.top_k} if sampling.top_k > 0 else {}
        body |= {"repetition_penalty": sampling.repetition_penalty} if sampling.repetition_penalty != 1 else {}
        body |= {"structured_outputs": {"regex": sampling.regex}} if sampling.regex else {}
        if self.lead_in:
            in_message, in_body = LEAD_INS[self.lead_in]
            messages.append({"role": "assistant", "content": THINK, **in_message})
            body |= in_body
        body |= self.extra_body
        return {key: value for key, value in body.items() if value is not None}

    async def _post(self, client: Client, body: Mapping[str, Any]) -> bytes:
        """The body of a 200; Fault for anything else."""
        status, headers, raw = await client.post(body)
        if status == 200:
            return raw
        after_s, why = retry_after_s(headers.get("Retry-After", "")), f"HTTP {status}: {error_words(raw)}"
        if after_s is not None and after_s > MAX_RETRY_AFTER_S:
            raise Fault(f"it asks to wait {after_s:.0f} s; {why}", again=False)
        raise Fault(why, status in RETRIED, status, after_s)

    def _clean(self, text: str) -> str:
        """One short line of the server's words, without the key."""
        text = text.replace(self._key, "…") if self._key else text
        return " ".join(text.encode("utf-8", "replace").decode().split())[:200]


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, also inside a notebook, whose thread already has a running loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()
