"""Engine `http`: calls an OpenAI-compatible server (`/chat/completions`), many requests at a time.

Errors of the server and of the network are retried with jittered exponential backoff, and Retry-After is honoured;
unusable replies (broken JSON, no text, too few choices) are requested again; a request that still fails becomes a
completion with `finish_reason="error"` and the reason. A spend ceiling ends the stream cleanly. The key comes only
from an environment variable and is removed from every message.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, NamedTuple

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential

from finr1.core.errors import ConfigError
from finr1.core.types import Completion
from finr1.parts.engine.base import OnDone, Request, Spend
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
from finr1.settings.http import OPERATIONAL, HttpSettings
from finr1.settings.sampling import Sampling

LEAD_INS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {  # extra fields of the message, of the body
    "vllm": ({}, {"continue_final_message": True, "add_generation_prompt": False}),
    "deepseek": ({"prefix": True}, {}),
}
RETRIED = frozenset({408, 409, 425, 429, *range(500, 600)})
MAX_BACKOFF_S = 60.0
MAX_RETRY_AFTER_S = 900.0  # a longer wait means that the quota is used up: the request fails with that reason


class Line(NamedTuple):
    """What the workers of one stream share: the client, and a lock so that one waits for the next slot at a time."""

    client: Client
    turn: asyncio.Lock


class HttpEngine:
    """See the module and `HttpSettings`. ConfigError for a setting that cannot work."""

    operational: ClassVar[frozenset[str]] = OPERATIONAL
    __signature__ = inspect.signature(HttpSettings)  # the config check compares a node's keys with it

    def __init__(self, **settings: Any) -> None:
        self.settings = cfg = HttpSettings(**settings)
        cfg.check("engine")
        self.name = str(cfg.model)
        self.pace = Pace(cfg.requests_per_minute, cfg.tokens_per_minute)
        prices = Spend(price_in=cfg.price_in, price_out=cfg.price_out)
        self.budget = Budget(cfg.max_spend_tokens, cfg.max_spend_money, prices)
        self._answered, self._key = False, cfg.api_key

    @staticmethod
    def check_settings(node: Mapping[str, Any], key: str) -> None:
        """Raise ConfigError for settings that cannot work, before the run starts."""
        HttpSettings(**{name: value for name, value in node.items() if not name.startswith("_")}).check(key)

    @property
    def spent(self) -> Spend:
        """Tokens paid for so far."""
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
        """Nothing to do: connections are closed at the end of each call."""

    async def _stream(self, requests: Iterator[tuple[int, Request]], sampling: Sampling, on_done: OnDone) -> None:
        worst = 0  # tokens of the first question that does not fit under the ceiling

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
            f"{spent} are spent, and the next question may take {worst:,} more; completions so far are kept",
            "raise it and start again to continue",
        )

    async def _complete(self, line: Line, request: Request, sampling: Sampling) -> list[Completion]:
        """The `sampling.n` completions of one request, in as many calls as it takes; failed ones where calls fail."""
        completions: list[Completion] = []
        paid = [0, 0]
        error = ""
        while len(completions) < sampling.n and not error:
            n = sampling.n - len(completions) if self.settings.n_in_one_request else 1
            attempts = 1
            try:
                async for attempt in self._retrying():
                    attempts = attempt.retry_state.attempt_number
                    with attempt:
                        completions += (await self._attempt(line, request, sampling, n, paid)).choices[:n]
            except Fault as fault:
                error = f"{self._clean(str(fault))} ({attempts} attempts)" if attempts > 1 else self._clean(str(fault))
        completions += [Completion("", "error", error=error) for _ in range(sampling.n - len(completions))]
        completions[0] = with_meta(completions[0], paid=paid)
        return completions

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

    async def _attempt(self, line: Line, request: Request, sampling: Sampling, n: int, paid: list[int]) -> Reply:
        """Send one request for `n` choices when its slot comes; Fault where no choice is usable."""
        prompt_guess = prompt_tokens(request.messages)
        guess = prompt_guess + n * self.budget.expected(sampling.max_new_tokens)
        async with line.turn:  # one waits at a time, so that corrections meanwhile move the slots of the others
            while (wait_s := self.pace.take(guess)) > 0:
                await asyncio.sleep(wait_s)
                if not self.pace.held:
                    break
                self.pace.correct(-guess)
        used = 0
        try:
            reply = read_reply(
                await self._post(line.client, self.body(request, sampling, n)), bool(self.settings.lead_in)
            )
            prompt, completion = reply.usage or (prompt_guess, sum(text_tokens(c) for c in reply.choices))
            used = prompt + completion
            self._answered = True
            self._pay(paid, prompt, completion, len(reply.choices))
            if not reply.choices:
                raise reply.fault or Fault("no choices in the answer")
            return reply._replace(choices=share(reply.choices, completion))
        except Fault as fault:
            self._end_if_hopeless(fault.status, self._clean(str(fault)))
            if fault.lost:  # perhaps charged for: count an average answer
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
        raise Fault(why, status in RETRIED, status, after_s)

    def _clean(self, text: str) -> str:
        """One short line, without the key."""
        text = text.replace(self._key, "…") if self._key else text
        return " ".join(text.encode("utf-8", "replace").decode().split())[:200]


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run to completion, also in a notebook, whose thread already runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()
