"""The libraries that carry the requests of engine `http`: aiohttp (the fastest), openai, requests.

Each sends one request and says what came back; pace, retries, ceiling and reading are the engine's own, the same for
all. Redirects are not followed (they would carry the key elsewhere), a `.netrc` is not asked, and no client tries again
by itself. Proxies are those of the environment.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from finr1.parts.engine.http.replies import Fault

CONNECT_S = 30.0  # at most, of a request's time
NO_CONNECTION = "no connection in time"


class Answer(NamedTuple):
    """What a server answered, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Client(Protocol):
    """Used inside one running loop, by many tasks at once."""

    async def post(self, body: Mapping[str, Any]) -> Answer:
        """Send one request. Fault where no whole answer came: `lost` where it may be charged for all the same."""
        ...

    async def close(self) -> None:
        """Let the connections go."""
        ...


class Address(NamedTuple):
    """Where to ask, and as whom. `url` is the whole address, `base_url` without `/chat/completions`."""

    base_url: str
    key: str
    timeout_s: float

    @property
    def url(self) -> str:
        """Where a request goes."""
        return self.base_url + "/chat/completions"

    @property
    def headers(self) -> dict[str, str]:
        """Of every request."""
        return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    @property
    def connect_s(self) -> float:
        """Seconds that a connection may take."""
        return min(CONNECT_S, self.timeout_s)

    def too_late(self) -> Fault:
        """The whole time is over."""
        return Fault(f"timed out after {self.timeout_s:g} s", lost=True)


def _broken(error: BaseException, begun: bool) -> Fault:
    """`begun`: the answer had begun to come, so it is charged for."""
    return Fault(f"connection failed ({type(error).__name__}: {error})", lost=begun)


class AiohttpClient:
    """One process's thousands of requests a second."""

    def __init__(self, address: Address) -> None:
        import aiohttp

        self._address = address
        timeout = aiohttp.ClientTimeout(total=address.timeout_s, sock_connect=address.connect_s)
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=address.headers, proxy=_proxy(address.url)
        )

    async def post(self, body: Mapping[str, Any]) -> Answer:
        """See `Client`."""
        import aiohttp

        begun = False
        try:
            data = json.dumps(body).encode()
            async with self._session.post(self._address.url, data=data, allow_redirects=False) as response:
                begun = response.status == 200
                return Answer(response.status, response.headers, await response.read())
        except aiohttp.ConnectionTimeoutError as error:
            raise Fault(NO_CONNECTION) from error
        except TimeoutError as error:
            raise self._address.too_late() from error
        except (aiohttp.ClientError, OSError) as error:
            raise _broken(error, begun) from error

    async def close(self) -> None:
        """See `Client`."""
        await self._session.close()


class OpenAIClient:
    """OpenAI's own library, for servers that expect just its headers."""

    def __init__(self, address: Address) -> None:
        import openai

        self._address = address
        self._headers: dict[str, Any] = {} if address.key else {"Authorization": openai.Omit()}
        self._client = openai.AsyncOpenAI(
            base_url=address.base_url,
            api_key=address.key or "none",
            max_retries=0,
            timeout=openai.Timeout(address.timeout_s, connect=address.connect_s),
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),
        )

    async def post(self, body: Mapping[str, Any]) -> Answer:
        """See `Client`."""
        import openai

        more = {key: value for key, value in body.items() if key not in ("model", "messages")}
        ask = self._client.chat.completions.with_raw_response.create
        try:
            async with asyncio.timeout(self._address.timeout_s):
                given = await ask(
                    model=body["model"], messages=body["messages"], extra_body=more, extra_headers=self._headers
                )
            response: Any = given.http_response
        except openai.APIStatusError as error:
            response = error.response
        except (TimeoutError, openai.APITimeoutError) as error:
            if type(error.__cause__).__name__ == "ConnectTimeout":
                raise Fault(NO_CONNECTION) from error
            raise self._address.too_late() from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise _broken(cause, "complete message body" in str(cause)) from error
        return Answer(response.status_code, response.headers, response.content)

    async def close(self) -> None:
        """See `Client`."""
        await self._client.close()


class RequestsClient:
    """`requests`, a thread a request: for the certificates and proxies that it takes from the environment."""

    def __init__(self, address: Address) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        self._address = address
        self._session = requests.Session()
        self._session.headers.update(address.headers)
        self._session.auth = lambda request: request  # else a .netrc takes the place of the key
        adapter = HTTPAdapter(pool_maxsize=1024)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    async def post(self, body: Mapping[str, Any]) -> Answer:
        """See `Client`."""
        try:
            async with asyncio.timeout(self._address.timeout_s):
                return await _in_a_thread(lambda: self._post(body))
        except TimeoutError as error:
            raise self._address.too_late() from error

    def _post(self, body: Mapping[str, Any]) -> Answer:
        import requests

        limits = (self._address.connect_s, self._address.timeout_s)  # to connect; between two bytes
        begun = False
        try:
            data = json.dumps(body).encode()
            with self._session.post(
                self._address.url, data=data, timeout=limits, allow_redirects=False, stream=True
            ) as response:
                begun = response.status_code == 200
                return Answer(response.status_code, response.headers, response.content)
        except requests.ConnectTimeout as error:
            raise Fault(NO_CONNECTION) from error
        except requests.Timeout as error:
            raise self._address.too_late() from error
        except (requests.RequestException, OSError) as error:
            raise _broken(error, begun) from error

    async def close(self) -> None:
        """See `Client`."""
        self._session.close()


async def _in_a_thread(work: Callable[[], Answer]) -> Answer:
    """The result of a thread that nobody waits for at the end: one that a server keeps hanging holds up no exit."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Answer] = loop.create_future()

    def settle(done: Callable[[], None]) -> None:
        if not result.done():
            done()

    def run() -> None:
        try:
            answer = work()
            done = partial(result.set_result, answer)
        except Exception as caught:
            done = partial(result.set_exception, caught)
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(settle, done)

    threading.Thread(target=run, daemon=True).start()
    return await result


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for this address."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


CLIENTS: Mapping[str, Callable[[Address], Client]] = {
    "aiohttp": AiohttpClient,
    "openai": OpenAIClient,
    "requests": RequestsClient,
}
