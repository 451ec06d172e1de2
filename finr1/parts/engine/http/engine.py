"""Engine `http`: calls an OpenAI-compatible server (`/chat/completions`), many requests at a time.

Errors of the server and of the network are retried with jittered exponential backoff, and Retry-After is honoured;
unusable replies (broken JSON, no text, too few choices) are requested again; a request that still fails becomes a
completion with `finish_reason="error"` and the reason. A spend ceiling ends the stream cleanly: every attempt is
reserved before it is sent, and lost answers are charged by the ledger's estimate. The key comes only from an
environment variable and is removed from every message.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential

from finr1.core.errors import ConfigError
from finr1.core.files import encodable
from finr1.core.types import Completion
from finr1.parts.engine.base import OnDone, Request
from finr1.parts.engine.http.clients import CLIENTS, Client
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
from finr1.parts.engine.ledger import NOTHING, Call, Ledger, Tokens
from finr1.settings.http import OPERATIONAL, HttpSettings
from finr1.settings.sampling import Sampling

LEAD_INS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {  # extra fields of the message, of the body
    "vllm": ({}, {"continue_final_message": True, "add_generation_prompt": False}),
    "deepseek": ({"prefix": True}, {}),
}
RETRIED = frozenset({408, 409, 425, 429, *range(500, 600)})
GATEWAY_TIMEOUTS = frozenset({504, 524})  # the server behind may have answered, and charges for it
MAX_BACKOFF_S = 60.0
MAX_RETRY_AFTER_S = 900.0  # a longer wait means that the quota is used up: the request fails with that reason


class _AtCeiling(Exception):
    """The missing answers of a question do not fit under the spend ceiling."""


@dataclass
class Line:
    """What the workers of one stream share: the client, a lock so that one waits for the next slot at a time, and the
    tokens of the first question that does not fit under the ceiling (0: none)."""

    client: Client
    turn: asyncio.Lock
    worst: int = 0


@dataclass(eq=False)
class Asked:
    """A request in progress: its sampling, and what is paid for it."""

    request: Request
    sampling: Sampling
    paid: Tokens = NOTHING


class HttpEngine:
    """See the module and `HttpSettings`. ConfigError for a setting that cannot work."""

    operational: ClassVar[frozenset[str]] = OPERATIONAL
    __signature__ = inspect.signature(HttpSettings)  # the config check compares a node's keys with it

    def __init__(self, **settings: Any) -> None:
        self.settings = cfg = HttpSettings(**settings)
        cfg.check("engine")
        self.name = str(cfg.model)
        self.pace = Pace(cfg.requests_per_minute, cfg.tokens_per_minute)
        self.budget = Budget(cfg.max_spend_tokens, cfg.max_spend_money, cfg.price_in, cfg.price_out)
        self._answered, self._key = False, cfg.api_key

    @staticmethod
    def check_settings(node: Mapping[str, Any], key: str) -> None:
        """Raise ConfigError for settings that cannot work, before the run starts."""
        HttpSettings(**{name: value for name, value in node.items() if not name.startswith("_")}).check(key)

    @property
    def ledger(self) -> Ledger:
        """See `StreamEngine`."""
        return self.budget.ledger

    @ledger.setter
    def ledger(self, ledger: Ledger) -> None:
        self.budget.ledger = ledger

    @property
    def money(self) -> float:
        """See `StreamEngine`."""
        return self.budget.money(self.ledger.account.paid)

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
        """Nothing to do: connections are closed at the end of each call."""

    async def _stream(self, requests: Iterator[tuple[int, Request]], sampling: Sampling, on_done: OnDone) -> None:
        async def worker(line: Line) -> None:
            while not line.worst and (drawn := next(requests, None)) is not None:
                index, asked = drawn[0], Asked(drawn[1], sampling)
                try:
                    completions = await self._complete(line, asked)
                except _AtCeiling:
                    return
                finally:
                    self.budget.release(asked)
                on_done(index, completions)

        client = CLIENTS[self.settings.client](self.settings)
        line = Line(client, asyncio.Lock())
        tasks = [asyncio.create_task(worker(line)) for _ in range(self.settings.concurrency)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await client.close()
        if line.worst:
            self._say_ceiling(line.worst)

    def _say_ceiling(self, worst: int) -> None:
        account, tokens = self.ledger.account, self.budget.max_tokens
        paid, at_most = sum(account.paid), sum(account.at_most)
        by_tokens = tokens is not None and at_most + worst > tokens
        name, ceiling = ("max_spend_tokens", tokens) if by_tokens else ("max_spend_money", self.budget.max_money)
        spent = f"{paid:,} tokens" + (f" ({self.money:.4f})" if self.money else "") + " are spent"
        spent += f", lost answers may have cost {at_most - paid:,} more" if at_most > paid else ""
        raise ConfigError(
            f"engine.{name}",
            ceiling,
            f"{spent}, and the next question may take {worst:,} more; completions so far are kept",
            "raise it and start again to continue",
        )

    async def _complete(self, line: Line, asked: Asked) -> list[Completion]:
        """The `sampling.n` completions of one request, in as many calls as it takes; failed ones where calls fail."""
        completions: list[Completion] = []
        error = ""
        while (missing := asked.sampling.n - len(completions)) and not error:
            n = missing if self.settings.n_in_one_request else 1
            attempts = 1
            try:
                async for attempt in self._retrying():
                    attempts = attempt.retry_state.attempt_number
                    with attempt:
                        await self._reserve(line, asked, missing)
                        completions += (await self._attempt(line, asked, n)).choices[:n]
            except Fault as fault:
                error = f"{self._clean(str(fault))} ({attempts} attempts)" if attempts > 1 else self._clean(str(fault))
            except _AtCeiling:
                if not completions:
                    raise
                error = "the spend ceiling was reached"
        completions += [Completion("", "error", error=error) for _ in range(missing)]
        completions[0] = with_meta(completions[0], paid=list(asked.paid))
        return completions

    async def _reserve(self, line: Line, asked: Asked, missing: int) -> None:
        """Reserve the longest answers that are missing, waiting for others to finish; _AtCeiling if they never fit."""
        prompt = missing * prompt_tokens_at_most(asked.request.messages)
        tokens = Tokens(prompt, missing * asked.sampling.max_new_tokens)
        while not self.budget.reserve(asked, tokens):
            if line.worst or self.budget.idle:
                line.worst = line.worst or sum(tokens)
                raise _AtCeiling
            await asyncio.sleep(0.02)

    def _retrying(self) -> AsyncRetrying:
        backoff = wait_exponential(self.settings.backoff_s, max=MAX_BACKOFF_S)

        def wait_s(state: RetryCallState) -> float:
            fault = state.outcome and state.outcome.exception()
            after_s = fault.after_s if isinstance(fault, Fault) else None
            return max(backoff(state) * random.uniform(0.5, 1.0), after_s or 0.0)

        return AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, Fault) and error.again),
            stop=stop_after_attempt(self.settings.retries + 1),
            wait=wait_s,
            reraise=True,
        )

    async def _attempt(self, line: Line, asked: Asked, n: int) -> Reply:
        """Send one request for `n` choices when its slot comes; Fault where no choice is usable."""
        call = Call(n, prompt_tokens(asked.request.messages), n * asked.sampling.max_new_tokens)
        guess = sum(self.ledger.account.expected(call))
        async with line.turn:  # one waits at a time, so that corrections meanwhile move the slots of the others
            while (wait_s := self.pace.take(guess)) > 0:
                await asyncio.sleep(wait_s)
                if not self.pace.held:
                    break
                self.pace.correct(-guess)
        cost: Tokens | None = None  # unknown
        self.ledger.send(call)
        try:
            body = self.body(asked.request, asked.sampling, n)
            reply = read_reply(await self._post(line.client, body), bool(self.settings.lead_in))
            usage = Tokens(*(reply.usage or (call.prompt, sum(map(text_tokens, reply.choices)))))
            cost = self.ledger.answered(call, usage, len(reply.choices))
            self._answered = True
            if not reply.choices:
                raise reply.fault or Fault("no choices in the answer")
            return reply._replace(choices=share(reply.choices, cost.completion))
        except Fault as fault:
            if cost is None and not fault.lost:
                cost = self.ledger.refused(call)
            self._end_if_hopeless(fault.status, self._clean(str(fault)))
            if fault.status == 429:
                self.pace.hold(fault.after_s or 0.0)
            raise
        finally:
            if cost is None:  # also of a call that is cancelled
                cost = self.ledger.lost(call)
            asked.paid = Tokens(asked.paid.prompt + cost.prompt, asked.paid.completion + cost.completion)
            self.pace.correct(sum(cost) - guess)

    def _end_if_hopeless(self, status: int, why: str) -> None:
        """Raise ConfigError for a wrong key or address before anything was answered: every request would fail."""
        if status == 401 and not self._answered:
            variable = self.settings.api_key_env
            raise ConfigError("engine.api_key_env", variable, f"the server says {why}", "export a valid key")
        if status == 404 and not self._answered:
            remedy = f"correct it, or the model's name ({self.name})"
            raise ConfigError("engine.base_url", self.settings.url, f"the server says {why}", remedy)

    def body(self, request: Request, sampling: Sampling, n: int) -> dict[str, Any]:
        """The JSON of a request. `top_k`, `regex` and the penalty are vLLM extensions, sent only when set."""
        messages: list[dict[str, Any]] = [dict(message) for message in request.messages]
        body: dict[str, Any] = {"model": self.name, "messages": messages, "temperature": sampling.temperature}
        body |= {"max_tokens": sampling.max_new_tokens}
        body |= {"n": n} if n > 1 else {}
        body |= {"top_p": sampling.top_p} if sampling.top_p < 1 else {}
        body |= {"top_k": sampling.top_k} if sampling.top_k > 0 else {}
        body |= {"repetition_penalty": sampling.repetition_penalty} if sampling.repetition_penalty != 1 else {}
        body |= {"structured_outputs": {"regex": sampling.regex}} if sampling.regex else {}
        if self.settings.lead_in:
            in_message, in_body = LEAD_INS[self.settings.lead_in]
            messages.append({"role": "assistant", "content": THINK, **in_message})
            body |= in_body
        body |= self.settings.extra_body or {}
        return {key: value for key, value in body.items() if value is not None}

    async def _post(self, client: Client, body: Mapping[str, Any]) -> bytes:
        """The body of a 200; Fault for anything else."""
        status, headers, raw = await client.post(body)
        if status == 200:
            return raw
        after_s, why = retry_after_s(headers.get("Retry-After", "")), f"HTTP {status}: {error_words(raw)}"
        if after_s is not None and after_s > MAX_RETRY_AFTER_S:
            raise Fault(f"the server asks to wait {after_s:.0f} s; {why}", again=False)
        raise Fault(why, status in RETRIED, status, after_s, lost=status in GATEWAY_TIMEOUTS)

    def _clean(self, text: str) -> str:
        """One short line, without the key."""
        text = text.replace(self._key, "…") if self._key else text
        return " ".join(encodable(text).split())[:200]


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run to completion, also in a notebook, whose thread already runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()
