"""`stage=chat`: a terminal client of any OpenAI-compatible server that streams thinking and answer apart."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from finr1.core.errors import ConfigError, Finr1Error
from finr1.core.prompt import load
from finr1.settings.chat import ChatSettings

if TYPE_CHECKING:
    from finr1.settings.root import RootConfig

Part = Literal["thinking", "answer", "text"]
_TAGS: Mapping[str, Part] = {"<think>": "thinking", "</think>": "text", "<answer>": "answer", "</answer>": "text"}
HELP = "/new begins anew, /example asks the preset's example, /quit ends"


class Piece(NamedTuple):
    """A piece of a reply as it came."""

    part: Part
    text: str


class Splitter:
    """Tells thinking from answer in a stream of text, whose tags may come in halves."""

    def __init__(self) -> None:
        self.part: Part = "text"
        self._held = ""

    def feed(self, text: str) -> Iterator[Piece]:
        """The pieces that are certain by now; the beginning of a tag is held back."""
        self._held += text
        while self._held:
            start = self._held.find("<")
            if start < 0:
                yield Piece(self.part, self._held)
                self._held = ""
            elif start > 0:
                yield Piece(self.part, self._held[:start])
                self._held = self._held[start:]
            elif tag := next((tag for tag in _TAGS if self._held.startswith(tag)), None):
                self.part, self._held = _TAGS[tag], self._held[len(tag) :]
            elif any(tag.startswith(self._held) for tag in _TAGS):
                return
            else:
                yield Piece(self.part, "<")
                self._held = self._held[1:]

    def end(self) -> Iterator[Piece]:
        """What was held back and has become no tag."""
        if self._held:
            yield Piece(self.part, self._held)
        self._held = ""


class Client:
    """Asks one server; the key is read from the environment and sent in the header alone."""

    def __init__(self, settings: ChatSettings) -> None:
        self.settings = settings
        self.url = settings.base_url.rstrip("/")
        self._key = os.environ.get(settings.api_key_env or "", "").strip()
        if settings.api_key_env and not self._key:
            why = "no such environment variable, or it is empty"
            raise ConfigError("chat.api_key_env", settings.api_key_env, why, "export it, or set it to null")
        self.model = settings.model or self._first_model()

    def stream(self, messages: Sequence[Mapping[str, str]]) -> Iterator[Piece]:
        """The reply in pieces, as it comes. Reasoning that the server sends apart is thinking."""
        settings = self.settings
        body = {"model": self.model, "messages": list(messages), "stream": True, "temperature": settings.temperature}
        body |= {"top_p": settings.top_p, "max_tokens": settings.max_new_tokens}
        splitter = Splitter()
        with self._open("/chat/completions", body) as response:
            for delta in deltas(response):
                if apart := delta.get("reasoning_content") or delta.get("reasoning"):
                    yield Piece("thinking", str(apart))
                if content := delta.get("content"):
                    yield from splitter.feed(str(content))
        yield from splitter.end()

    def _first_model(self) -> str:
        with self._open("/models") as response:
            try:
                return str(json.load(response)["data"][0]["id"])
            except (ValueError, LookupError, TypeError) as error:
                raise ConfigError("chat.model", None, "the server names none", "set it to the server's name") from error

    def _open(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        data = None if body is None else json.dumps(body).encode()
        try:
            return urlopen(Request(self.url + path, data, headers), timeout=self.settings.timeout_s)
        except HTTPError as error:
            words = " ".join(error.read(400).decode("utf-8", "replace").split())
            words = words.replace(self._key, "…") if self._key else words
            raise Finr1Error(f"chat.base_url={self.url}: HTTP {error.code}: {words}; mend the request") from error
        except (URLError, OSError) as error:
            why = f"no answer ({getattr(error, 'reason', error)})"
            raise ConfigError("chat.base_url", self.url, why, "start it: python -m finr1 stage=serve") from error


def deltas(lines: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    """The deltas of a stream of server-sent events, up to `[DONE]`. Finr1Error for an error event."""
    for line in lines:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            raise Finr1Error(f"chat: the server says {str(event['error'])[:200]}; ask again")
        for choice in event.get("choices") or ():
            yield choice.get("delta") or {}


class Screen:
    """Writes thinking dim on a terminal, and each part under its name."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.colour = out, out.isatty()

    def show(self, pieces: Iterable[Piece]) -> str:
        """Write the pieces as they come; returns the reply in its form, for the history."""
        said: dict[Part, str] = {"thinking": "", "answer": "", "text": ""}
        part: Part | None = None
        for piece in pieces:
            if not said[piece.part] and not piece.text.strip():  # line breaks between the tags
                continue
            text = piece.text if said[piece.part] else piece.text.lstrip()
            if piece.part != part:
                part = piece.part
                self._write(("\n\n" if any(said.values()) else "") + self._style(f"[{part}]\n", "1"))
            said[piece.part] += text
            self._write(self._style(text, "2") if part == "thinking" else text)
        self._write("\n")
        return said["answer"].strip() or said["text"].strip()

    def _style(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()


def run(cfg: RootConfig) -> None:
    """A conversation until /quit or the end of the input, or one answer to `chat.ask`."""
    settings = cfg.chat
    system = f"scenario_{settings.preset}.v1" if settings.preset else cfg.prompt.system
    head = [{"role": "system", "content": load(system)}] if system else []
    client, screen = Client(settings), Screen(sys.stdout)
    example = load(f"scenario_{settings.preset}_example.v1") if settings.preset else ""
    if settings.ask is not None:
        screen.show(client.stream([*head, {"role": "user", "content": settings.ask}]))
        return
    print(f"{client.model} at {client.url}. {HELP}." + (f"\nExample: {example}" if example else ""))
    history: list[dict[str, str]] = []
    for line in _lines():
        if line == "/quit":
            return
        if line == "/new":
            history.clear()
            continue
        text = example if line == "/example" and example else line
        history.append({"role": "user", "content": text})
        history.append({"role": "assistant", "content": screen.show(client.stream([*head, *history]))})


def _lines() -> Iterator[str]:
    """What the user types, without blank lines, up to the end of the input."""
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            return
        if line:
            yield line
