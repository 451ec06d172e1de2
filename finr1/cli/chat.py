"""`stage=chat`: a terminal client of any OpenAI-compatible server that shows thinking and answer separately."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TextIO, cast

import httpx2
import openai

from finr1.core.errors import ConfigError, Finr1Error
from finr1.core.files import encodable
from finr1.core.prompt import load
from finr1.settings.chat import ChatSettings
from finr1.settings.http import api_key
from finr1.settings.root import RootConfig

Part = Literal["thinking", "answer", "text", "note"]
_TAGS: Mapping[str, Part] = {"<think>": "thinking", "</think>": "text", "<answer>": "answer", "</answer>": "text"}
HELP = "/new starts a new conversation, /example asks the preset's example, /quit exits"


class Piece(NamedTuple):
    """A streamed piece of a reply."""

    part: Part
    text: str


class Splitter:
    """Separates thinking from answer in streamed text, whose tags may be split across pieces."""

    def __init__(self) -> None:
        self.part: Part = "text"
        self._held = ""

    def feed(self, text: str) -> Iterator[Piece]:
        """Yield the pieces that are complete; what may be the start of a tag is held back."""
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
        """Yield the text held back that did not become a tag."""
        if self._held:
            yield Piece(self.part, self._held)
        self._held = ""


class Client:
    """Streams chat completions of one server; the key is read from the environment and sent in the header alone."""

    def __init__(self, settings: ChatSettings) -> None:
        self.settings = settings
        self.url = settings.base_url.rstrip("/")
        self._key = api_key(settings.api_key_env, "chat.api_key_env")
        self._headers: dict[str, Any] = {} if self._key else {"Authorization": openai.Omit()}
        self._client = openai.OpenAI(
            base_url=self.url,
            api_key=self._key or "none",
            max_retries=0,
            timeout=settings.timeout_s,
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
        )
        self.model = settings.model or self._first_model()

    def stream(self, messages: Sequence[Mapping[str, str]]) -> Iterator[Piece]:
        """Yield the reply piece by piece. Reasoning that the server sends in its own field is thinking."""
        import openai

        settings, splitter = self.settings, Splitter()
        with self._one_line_errors():
            events: Any = self._client.chat.completions.create(
                model=self.model,
                messages=cast(Any, list(messages)),
                stream=True,
                temperature=settings.temperature,
                top_p=settings.top_p,
                max_tokens=openai.omit if settings.max_new_tokens is None else settings.max_new_tokens,
                extra_headers=self._headers,
            )
            ended = False
            for choice in (choice for event in events for choice in getattr(event, "choices", None) or ()):
                delta = getattr(choice, "delta", None)
                ended = ended or bool(getattr(choice, "finish_reason", None))
                if reasoning := getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None):
                    yield Piece("thinking", encodable(str(reasoning)))
                if content := getattr(delta, "content", None):
                    yield from splitter.feed(encodable(str(content)))
        yield from splitter.end()
        if not ended:
            yield Piece("note", "the stream ended without a finish reason: the reply may be incomplete")

    def _first_model(self) -> str:
        with self._one_line_errors():
            models = self._client.models.list(extra_headers=self._headers).data
        if not models:
            raise ConfigError("chat.model", None, "the server lists no model", "set it to the server's name")
        return models[0].id

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        """Turn the client's errors into one line without the key."""
        try:
            yield
        except openai.APIStatusError as error:
            why = f"HTTP {error.status_code}: {self._clean(error.response.text)}"
            refused = "name the variable that holds its key: chat.api_key_env"
            remedy = refused if error.status_code in (401, 403) else "correct the request"
            raise Finr1Error(f"chat.base_url={self.url}: {why}; {remedy}") from error
        except (openai.APIConnectionError, httpx2.RequestError) as error:
            why = f"no answer ({self._clean(str(error.__cause__ or error))})"
            raise ConfigError("chat.base_url", self.url, why, "start it: python -m finr1 stage=serve") from error
        except (openai.APIError, ValueError) as error:
            raise Finr1Error(f"chat: the server says {self._clean(str(error))}; ask again") from error

    def _clean(self, text: str) -> str:
        text = text.replace(self._key, "…") if self._key else text
        return " ".join(text.split())[:400]


class Screen:
    """Writes thinking dim on a terminal, and each part under its name."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.colour = out, out.isatty()

    def show(self, pieces: Iterable[Piece]) -> str:
        """Write the pieces as they arrive; return the answer without its tags, for the history."""
        said: dict[Part, str] = {"thinking": "", "answer": "", "text": "", "note": ""}
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
    """Hold a conversation until /quit or end of input, or answer `chat.ask` once."""
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
        asked = {"role": "user", "content": encodable(text)}
        try:
            answer = screen.show(client.stream([*head, *history, asked]))
        except Finr1Error as error:  # the question is not part of what follows
            print(f"\nerror: {error}")
            continue
        history += [asked, {"role": "assistant", "content": answer}]


def _lines() -> Iterator[str]:
    """Yield the lines that the user types, without blank ones, until end of input."""
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            return
        if line:
            yield line
