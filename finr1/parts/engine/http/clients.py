"""The HTTP clients of engine `http`: openai (asynchronous) and requests.

Each sends one request and returns the response; pacing, retries, spend ceilings and parsing belong to the engine.
Redirects are not followed (they would carry the key elsewhere), `.netrc` is ignored, and clients never retry by
themselves. Proxies come from the environment.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, Protocol

from finr1.parts.engine.http.replies import Fault
from finr1.settings.http import HttpSettings

CONNECT_S = 30.0  # longest time to connect
NO_CONNECTION = "no connection in time"
UNSENT = (
    "ConnectError",
    "ProxyError",
    "UnsupportedProtocol",
    "LocalProtocolError",
    "PoolTimeout",
    "WriteError",
)  # httpx


class Response(NamedTuple):
    """An HTTP response, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Client(Protocol):
    """Sends requests; used by many tasks of one event loop at once."""

    async def post(self, body: Mapping[str, Any]) -> Response:
        """Send one request. Fault without a complete response: `lost` if the server may charge for it anyway."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


def _timed_out(settings: HttpSettings) -> Fault:
    return Fault(f"timed out after {settings.timeout_s:g} s", lost=True)


def _broken(error: BaseException, sent: bool) -> Fault:
    """`sent`: the request had reached the server, which may charge for the answer that did not come back."""
    return Fault(f"connection failed ({type(error).__name__}: {error})", lost=sent)


class OpenAIClient:
    """The asynchronous client of the `openai` library."""

    def __init__(self, settings: HttpSettings) -> None:
        import httpx2
        import openai

        self._timeout_s = settings.timeout_s
        self._timed_out = partial(_timed_out, settings)
        self._headers: dict[str, Any] = {} if settings.api_key else {"Authorization": openai.Omit()}
        self._client = openai.AsyncOpenAI(
            base_url=settings.base_url.rstrip("/"),
            api_key=settings.api_key or "none",
            max_retries=0,
            timeout=openai.Timeout(settings.timeout_s, connect=min(CONNECT_S, settings.timeout_s)),
            http_client=openai.DefaultAsyncHttpxClient(
                follow_redirects=False, limits=httpx2.Limits(max_connections=None)
            ),
        )
        self._create: Any = self._client.chat.completions.with_raw_response.create  # imports much: before any timing

    async def post(self, body: Mapping[str, Any]) -> Response:
        """See `Client`."""
        import openai

        more = {key: value for key, value in body.items() if key not in ("model", "messages")}
        try:
            async with asyncio.timeout(self._timeout_s):
                raw = await self._create(
                    model=body["model"], messages=body["messages"], extra_body=more, extra_headers=self._headers
                )
            response: Any = raw.http_response
        except openai.APIStatusError as error:
            response = error.response
        except (TimeoutError, openai.APITimeoutError) as error:
            if type(error.__cause__).__name__ == "ConnectTimeout":
                raise Fault(NO_CONNECTION) from error
            raise self._timed_out() from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise _broken(cause, sent=type(cause).__name__ not in UNSENT) from error
        return Response(response.status_code, response.headers, response.content)

    async def close(self) -> None:
        """See `Client`."""
        await self._client.close()


class RequestsClient:
    """`requests`, one thread per request: for the certificates and proxies that it takes from the environment."""

    def __init__(self, settings: HttpSettings) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        self._url, self._timeout_s = settings.url, settings.timeout_s
        self._timed_out = partial(_timed_out, settings)
        self._session = requests.Session()
        self._session.headers["Content-Type"] = "application/json"
        if settings.api_key:
            self._session.headers["Authorization"] = f"Bearer {settings.api_key}"
        self._session.auth = lambda request: request  # otherwise .netrc overrides the key
        adapter = HTTPAdapter(pool_maxsize=1024)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    async def post(self, body: Mapping[str, Any]) -> Response:
        """See `Client`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await _in_a_thread(lambda: self._post(body))
        except TimeoutError as error:
            raise self._timed_out() from error

    def _post(self, body: Mapping[str, Any]) -> Response:
        import requests

        limits = (min(CONNECT_S, self._timeout_s), self._timeout_s)  # to connect; between two bytes
        try:
            data = json.dumps(body).encode()
            with self._session.post(
                self._url, data=data, timeout=limits, allow_redirects=False, stream=True
            ) as response:
                return Response(response.status_code, response.headers, response.content)
        except requests.ConnectTimeout as error:
            raise Fault(NO_CONNECTION) from error
        except requests.Timeout as error:
            raise self._timed_out() from error
        except (requests.RequestException, OSError) as error:
            connecting = error.args and type(error.args[0]).__name__ == "MaxRetryError"  # urllib3 retries nothing else
            broken = isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError)
            raise _broken(error, sent=broken and not connecting) from error

    async def close(self) -> None:
        """See `Client`."""
        self._session.close()


async def _in_a_thread(work: Callable[[], Response]) -> Response:
    """The result of a daemon thread: one that hangs on a server does not delay the exit of the process."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Response] = loop.create_future()

    def settle(done: Callable[[], None]) -> None:
        if not result.done():
            done()

    def run() -> None:
        try:
            response = work()
            done = partial(result.set_result, response)
        except Exception as caught:
            done = partial(result.set_exception, caught)
        with suppress(RuntimeError):  # the loop is closed, and the result not needed
            loop.call_soon_threadsafe(settle, done)

    threading.Thread(target=run, daemon=True).start()
    return await result


CLIENTS: Mapping[str, Callable[[HttpSettings], Client]] = {"openai": OpenAIClient, "requests": RequestsClient}
