"""A fake hub with one data set repository on 127.0.0.1: the endpoints that `datasets` needs to list and read files."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

BLOCK = 1 << 16  # bytes sent at once
SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves `files` of `repo` at revision `SHA`, also named `main`. `asked` lists the requests in order."""

    def __init__(self, repo: str, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repo, self.files, self.asked = repo, files, list[str]()
        self.sent = 0  # bytes of files

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def entry(self, name: str) -> dict[str, object]:
        return {"type": "file", "path": name, "size": len(self.files[name]), "oid": f"{len(name):040x}"}

    def tree(self, under: str) -> list[dict[str, object]]:
        """The entries of a folder: files and subfolders."""
        inside = [name for name in self.files if name.startswith(f"{under}/" if under else "")]
        depth = under.count("/") + 1 if under else 0
        folders = {"/".join(name.split("/")[: depth + 1]) for name in inside if name.count("/") > depth}
        entries = [self.entry(name) for name in inside if name.count("/") == depth]
        return [
            *entries,
            *({"type": "directory", "path": path, "size": 0, "oid": "f" * 40} for path in sorted(folders)),
        ]


@contextmanager
def serving(repo: str, files: dict[str, bytes]) -> Iterator[Hub]:
    """A running hub, shut down when the block ends."""
    hub = Hub(repo, files)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        """A client that has read enough hangs up."""
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        hub.asked.append(f"{self.command} {self.path}")
        api, files = f"/api/datasets/{hub.repo}", f"/datasets/{hub.repo}/resolve/"
        if path.startswith(files):
            revision, _, name = path.removeprefix(files).partition("/")
            return (
                self._file(name) if revision in ("main", SHA) and name in hub.files else self._missing("EntryNotFound")
            )
        if path.startswith(f"{api}/tree/"):
            return self._json(hub.tree(path.removeprefix(f"{api}/tree/").partition("/")[2]))
        if path.startswith(f"{api}/paths-info/"):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body).get("paths", [])
            return self._json([hub.entry(name) for name in wanted if name in hub.files])
        if path in (api, f"{api}/revision/main", f"{api}/revision/{SHA}"):
            names = [{"rfilename": name} for name in hub.files]
            return self._json(
                {"id": hub.repo, "sha": SHA, "private": False, "gated": False, "tags": [], "siblings": names}
            )
        return self._missing("RepoNotFound")

    do_HEAD = do_POST = do_GET

    def _file(self, name: str) -> None:
        data, status, place = self.server.files[name], 200, ""
        if span := self.headers.get("Range"):
            first, last = span.removeprefix("bytes=").split("-")
            end = min(int(last or len(data) - 1), len(data) - 1)
            place, status = f"bytes {first}-{end}/{len(data)}", 206
            data = data[int(first) : end + 1]
        self._send(status, data, {"ETag": f'"{len(name):040x}"', "X-Repo-Commit": SHA, "Content-Range": place})

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _missing(self, why: str) -> None:
        self._send(404, b"{}", {"X-Error-Code": why, "X-Error-Message": why})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        for at in range(0, len(data) if self.command != "HEAD" else 0, BLOCK):
            self.wfile.write(data[at : at + BLOCK])
            self.server.sent += len(data[at : at + BLOCK])

    def log_message(self, *_: object) -> None:
        """Silent."""
