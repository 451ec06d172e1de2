"""Sources on the hub: a server on 127.0.0.1 replaces it; `datasets` talks to it over HTTP as to the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import made
from tests.helpers.hub_server import SHA, Hub, serving
from tests.helpers.runner import REPO

pytestmark = pytest.mark.slow  # each reads in a process of its own

ROOT = REPO
CODE = """
import json, sys
from itertools import islice
from finr1.core.errors import Finr1Error
from finr1.parts.source.reading import find, read
path, pattern, most = sys.argv[1:]
try:
    (file,) = find(path, [pattern])
    rows = [[r.place, r.origin, r.values, r.fault] for r in islice(read(file), int(most) or None)]
    print(json.dumps({"at": file.at, "rows": rows}))
except Finr1Error as error:
    print(json.dumps({"error": str(error)}))
"""


def loaded(hub: Hub, home: Path, path: str, pattern: str, most: int = 0) -> dict[str, Any]:
    """What a process that knows this hub reads: `datasets` takes the address at its import."""
    online = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
    done = subprocess.run(
        [sys.executable, "-c", CODE, path, pattern, str(most)],
        cwd=ROOT,
        env=clean | online | {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def jsonl(n: int, more: str = "") -> bytes:
    return "".join(json.dumps({"q": f"question {i}{more}", "a": str(i)}) + "\n" for i in range(n)).encode()


@pytest.mark.parametrize("revision", ["", f"@{SHA}"], ids=["main", "by commit"])
def test_lines_of_a_hub_file_with_their_places(tmp_path: Path, revision: str) -> None:
    files = {
        "data/train.jsonl": jsonl(3) + b"{broken\n" + jsonl(1),
        "data/other.csv": b"q,a\nx,1\n",
        "README.md": b"#\n",
    }
    with serving("owner/rows", files) as hub:
        found = loaded(hub, tmp_path, f"hub:owner/rows{revision}", "data/*.jsonl")
        assert found["at"] == f"hf://datasets/owner/rows@{SHA}/data/train.jsonl"  # the commit: a run can be repeated
        assert [values.get("a") for _, _, values, _ in found["rows"]] == ["0", "1", "2", None, "0"]
        place, origin, _, fault = found["rows"][3]
        assert place == f"{found['at']} line 4" and origin == "data/train.jsonl:4" and "broken JSON" in fault
        assert not any("other.csv" in request for request in hub.asked)  # what no pattern names is not fetched


def test_parquet_and_csv_of_the_hub(tmp_path: Path) -> None:
    made.parquet(tmp_path / "a.parquet", [{"q": "x", "n": 3}])
    files = {"a.parquet": (tmp_path / "a.parquet").read_bytes(), "b.csv": b'q,a\n"two\nlines",-3.50\n'}
    with serving("owner/rows", files) as hub:
        (row,) = loaded(hub, tmp_path / "home", "hub:owner/rows", "*.parquet")["rows"]
        assert row[2] == {"q": "x", "n": 3}
        (row,) = loaded(hub, tmp_path / "home", "hub:owner/rows", "*.csv")["rows"]
        assert row[2] == {"q": "two\nlines", "a": "-3.50"}


def test_the_first_rows_of_a_large_file_do_not_wait_for_all_of_it(tmp_path: Path) -> None:
    data = jsonl(60_000, more=" x" * 400)
    with serving("owner/rows", {"train.jsonl": data}) as hub:
        found = loaded(hub, tmp_path, "hub:owner/rows", "*.jsonl", most=5)
        assert len(found["rows"]) == 5
        assert len(data) > 45e6 and hub.sent < len(data) / 2
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 1e6  # a stream: nothing is kept


@pytest.mark.parametrize("path", ["hub:owner/none", "hub:owner/rows@nowhere"])
def test_what_the_hub_does_not_have_is_one_line(tmp_path: Path, path: str) -> None:
    with serving("owner/rows", {"train.jsonl": jsonl(1)}) as hub:
        error = loaded(hub, tmp_path, path, "*.jsonl")["error"]
    assert error.startswith(f"path={path}: `datasets` cannot open it") and "\n" not in error
