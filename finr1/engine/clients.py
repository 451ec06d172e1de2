"""How `engine=http` sends a request: through aiohttp, the `openai` package, or `requests`; all say the same of it.

A client is told once where it posts to; `post` gives status, headers and body of whatever came back, or raises `Fault`
where nothing did. None of them tries again or follows a redirect: the engine decides that.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from finr1.engine.chat_reply import Fault

CONNECT_S = 30.0
PATH = "/chat/completions"
CLIENTS = ("aiohttp", "openai", "requests")


class Answer(NamedTuple):
    """What a server sent back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Address(NamedTuple):
    """Where requests go, and how long one may take from sending to the last byte."""

    base_url: str
    key: str  # empty: none is sent
    timeout_s: float
    concurrency: int

    @property
    def headers(self) -> dict[str, str]:
        """Of every request."""
        return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    @property
    def connect_s(self) -> float:
        """How long connecting may take."""
        return min(CONNECT_S, self.timeout_s)


class Client(Protocol):
    """Sends requests to one address."""

    async def post(self, body: Mapping[str, Any]) -> Answer:
        """Whatever the server answers; Fault where it does not, or not whole."""
        ...

    async def close(self) -> None:
        """Give the connections back."""
        ...


def installed(name: str) -> bool:
    """Whether the package of a client is there."""
    return importlib.util.find_spec(name) is not None


def make(name: str, address: Address) -> Client:
    """The client of this name, inside a running loop."""
    kinds: Mapping[str, Callable[[Address], Client]] = {
        "aiohttp": AiohttpClient,
        "openai": OpenAIClient,
        "requests": RequestsClient,
    }
    return kinds[name](address)


def _late(address: Address) -> Fault:
    return Fault(f"timed out after {address.timeout_s:g} s", lost=True)


def _broken(error: Exception, lost: bool) -> Fault:
    return Fault(f"connection failed ({type(error).__name__}: {error})", lost=lost)


class AiohttpClient:
    """The fastest: see experiments/benchmarks/distil_http.py."""

    def __init__(self, address: Address) -> None:
        self.address, self.url = address, address.base_url + PATH
        timeout = aiohttp.ClientTimeout(total=address.timeout_s, sock_connect=address.connect_s)
        connector = aiohttp.TCPConnector(limit=0)
        self.session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=address.headers, proxy=_proxy(self.url)
        )

    async def post(self, body: Mapping[str, Any]) -> Answer:
        """See `Client`."""
        sent = False
        try:
            async with self.session.post(self.url, data=json.dumps(body).encode(), allow_redirects=False) as response:
                sent = response.status == 200
                return Answer(response.status, response.headers, await response.read())
        except aiohttp.ConnectionTimeoutError as error:
            raise Fault("no connection in time") from error
        except TimeoutError as error:
            raise _late(self.address) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _broken(error, sent) from error

    async def close(self) -> None:
        """See `Client`."""
        await self.session.close()


class OpenAIClient:
    """`openai.AsyncOpenAI`, for who wants its connections, proxies and certificates."""

    def __init__(self, address: Address) -> None:
        import openai

        self.openai, self.address = openai, address
        # a header that is left out is said with every request; a client without a key would refuse to send any
        self.headers = {} if address.key else {"Authorization": openai.Omit()}
        self.client = openai.AsyncOpenAI(
            api_key=address.key or "none",
            base_url=address.base_url,
            max_retries=0,
            timeout=openai.Timeout(address.timeout_s, connect=address.connect_s),
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),
        )

    async def post(self, body: Mapping[str, Any]) -> Answer:
        """See `Client`. Its timeout is one of silence, so that the whole is timed here."""
        known = {key: body[key] for key in ("model", "messages")}
        rest = {key: value for key, value in body.items() if key not in known}
        raw: Any = self.client.chat.completions.with_raw_response
        send = raw.create(**known, extra_body=rest, extra_headers=self.headers)
        try:
            response = (await asyncio.wait_for(send, self.address.timeout_s)).http_response
        except self.openai.APIStatusError as error:
            response = error.response
        except (self.openai.APITimeoutError, TimeoutError) as error:
            if type(error.__cause__).__name__ == "ConnectTimeout":  # of httpx, or what a newer openai has in its place
                raise Fault("no connection in time") from error
            raise _late(self.address) from error
        except self.openai.APIConnectionError as error:
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise _broken(cause, type(cause).__name__ in ("ReadError", "RemoteProtocolError")) from error
        return Answer(response.status_code, response.headers, response.content)

    async def close(self) -> None:
        """See `Client`."""
        await self.client.close()


class RequestsClient:
    """`requests`, a thread a request in flight; for who wants its proxies and certificates."""

    def __init__(self, address: Address) -> None:
        import requests

        self.requests, self.address, self.url = requests, address, address.base_url + PATH
        self.session = requests.Session()
        adapter = requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=address.concurrency)
        self.session.mount("http://", adapter)
        self.session.mount("https://", adapter)

    async def post(self, body: Mapping[str, Any]) -> Answer:
        """See `Client`."""
        try:
            return await asyncio.wait_for(_in_thread(lambda: self._post(json.dumps(body))), self.address.timeout_s)
        except TimeoutError as error:
            raise _late(self.address) from error

    def _post(self, data: str) -> Answer:
        sent = False
        try:
            with self.session.post(
                self.url,
                data=data,
                auth=self._authorise,
                timeout=(self.address.connect_s, self.address.timeout_s),
                allow_redirects=False,
                stream=True,
            ) as response:
                sent = response.status_code == 200
                return Answer(response.status_code, response.headers, response.content)
        except self.requests.exceptions.ConnectTimeout as error:
            raise Fault("no connection in time") from error
        except self.requests.exceptions.Timeout as error:
            raise _late(self.address) from error
        except self.requests.exceptions.RequestException as error:
            raise _broken(error, sent) from error

    def _authorise(self, request: Any) -> Any:
        """Ours alone: without this a password in ~/.netrc would go in the key's place."""
        request.headers.update(self.address.headers)
        return request

    async def close(self) -> None:
        """See `Client`."""
        self.session.close()


async def _in_thread(work: Callable[[], Answer]) -> Answer:
    """Run in a thread that does not keep the process alive, as one of a pool would while a server hangs."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Answer] = loop.create_future()

    def settle(answer: Answer | None, error: Exception | None) -> None:
        if future.done():  # cancelled, or too late
            return
        if answer is None:
            assert error is not None
            future.set_exception(error)
        else:
            future.set_result(answer)

    def run() -> None:
        answer, error = None, None
        try:
            answer = work()
        except Exception as caught:
            error = caught
        try:
            loop.call_soon_threadsafe(settle, answer, error)
        except RuntimeError:  # the loop has closed meanwhile: nobody waits
            return

    threading.Thread(target=run, daemon=True).start()
    return await future


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for this address."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
