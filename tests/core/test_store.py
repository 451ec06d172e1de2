"""Files of a run: rows survive kills, manifests decide what is done, one process at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from finr1.core.errors import BusyError, DataError
from finr1.core.files import digest, hash_files, read_json, replacing, write_json
from finr1.core.jsonl import (
    JsonlWriter,
    count_lines,
    raw_rows,
    read_jsonl,
    sort_jsonl,
    write_jsonl,
)
from finr1.core.lock import RunLock
from finr1.core.stage_folder import SPENT, Spent, StageKey, begin, check_rows_whole, finish, note_spent, spent
from finr1.core.types import Question, Trace
from tests.helpers.runner import REPO

KEY = StageKey("filter", {"criteria": 7, "scale": True}, {"distil": "aa"}, "c0de")


def test_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    rows = [{"a": 1, "文": "增长 11.8%\n\u2028 end"}, {"a": None}]
    with JsonlWriter(path) as writer:
        writer.write(rows[0])
    with JsonlWriter(path) as writer:
        writer.write(rows[1])
    assert list(read_jsonl(path)) == rows


HALF = "a\ud800b"  # half of a surrogate pair, as an escape in JSON may leave it


def test_half_a_surrogate_pair_is_replaced_wherever_a_text_is_hashed_written_or_read(tmp_path: Path) -> None:
    question = Question("s", "d", "en", "reasoning business", "number", [{"role": "user", "content": HALF}], HALF)
    assert question.id == Question.from_json({**question.to_json(), "id": ""}).id
    assert digest(HALF) == digest("a?b") and Trace(question.id, 0, "t", HALF, HALF, HALF).id
    write_json(tmp_path / "x.json", {HALF: HALF})
    assert read_json(tmp_path / "x.json") == {"a?b": "a?b"}
    write_jsonl(tmp_path / "x.jsonl", [question.to_json()])
    with JsonlWriter(tmp_path / "x.jsonl") as writer:
        writer.write({"gold": HALF})
    with (tmp_path / "x.jsonl").open("a") as file:  # escapes of another program: half a pair, a pair, a backslash
        file.write('{"gold": "a\\uD800b"}\n{"gold": "\\ud83d\\ude00 \\\\ud800"}\n')
    assert [row["gold"] for row in read_jsonl(tmp_path / "x.jsonl")] == ["a?b", "a?b", "a?b", "\U0001f600 \\ud800"]


def test_questions_and_traces_round_trip_through_a_file(tmp_path: Path) -> None:
    question = Question(
        "s", "d", "zh", "financial code", "choice", [{"role": "user", "content": "问"}], "A", choices={"A": "x"}
    )
    trace = Trace(question.id, 2, "t", "r", "a", "text", sampling={"n": 1})
    write_jsonl(tmp_path / "x.jsonl", [question.to_json(), trace.to_json()])
    first, second = read_jsonl(tmp_path / "x.jsonl")
    assert Question.from_json(first) == question and Trace.from_json(second) == trace


def test_a_torn_last_line_is_left_out_and_cut_off_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"i": 0}\n{"i": 1}\n{"i": 2, "te', encoding="utf-8")
    assert [row["i"] for row in read_jsonl(path)] == [0, 1]
    with JsonlWriter(path) as writer:
        writer.write({"i": 2})
    assert path.read_text() == '{"i": 0}\n{"i": 1}\n{"i": 2}\n'


def test_a_file_that_is_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"i"')
    with JsonlWriter(path):
        pass
    assert path.read_bytes() == b""


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"i": 0}\n{oops\n{"i": 2}\n')
    with pytest.raises(DataError, match="corrupt JSON in line 2"):
        list(read_jsonl(path))
    path.write_bytes(b'{"i": 0}\n"\xff"\n')
    with pytest.raises(DataError, match="corrupt JSON in line 2"):
        list(read_jsonl(path))
    with pytest.raises(DataError, match="no such file"):
        list(read_jsonl(tmp_path / "none.jsonl"))


def test_read_jsonl_names_the_row_that_lacks_a_key(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "x.jsonl", [{"id": 1, "b": 2}, {"id": 2}])
    with pytest.raises(DataError, match="line 2 has no `b`"):
        list(read_jsonl(tmp_path / "x.jsonl", ["id", "b"]))
    write_jsonl(tmp_path / "x.jsonl", [{"a": {"b": 1}}, {"a": 1}])
    with pytest.raises(DataError, match=r"line 2 has no `a\.b`"):
        list(read_jsonl(tmp_path / "x.jsonl", ["a", "a.b"]))
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n["a"]\n')
    with pytest.raises(DataError, match="line 2 has no `a`"):
        list(read_jsonl(tmp_path / "x.jsonl", ["a"]))


def test_a_failed_write_leaves_the_old_file_and_nan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


_WRITER = """
import sys
from pathlib import Path
from finr1.core.jsonl import JsonlWriter
with JsonlWriter(Path(sys.argv[1])) as writer:
    for i in range(10**9):
        writer.write({"i": i, "text": "x" * 200})
        if i == 500:
            print("ready", flush=True)
"""


def test_no_written_row_is_lost_to_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    command = [sys.executable, "-c", _WRITER, str(path)]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.kill()
    numbers = [row["i"] for row in read_jsonl(path)]
    assert numbers == list(range(len(numbers))) and len(numbers) > 500


def test_a_stage_is_fresh_then_resumed_then_done(tmp_path: Path) -> None:
    folder = tmp_path / "3_filtered"
    assert begin(folder, KEY) == ("fresh", "")
    (folder / "good.jsonl").write_text("{}\n")
    assert begin(folder, KEY) == ("resume", "")
    assert (folder / "good.jsonl").exists()
    finish(folder, KEY, {"good": 1}, Spent(1.25, 0.5), {"python": "3"})
    assert begin(folder, KEY) == ("done", "")
    manifest = read_json(folder / "manifest.json")
    assert manifest["counts"] == {"good": 1} and (manifest["seconds"], manifest["memory_gib"]) == (1.25, 0.5)
    assert manifest["fingerprint"] == KEY.fingerprint and manifest["files"]["good.jsonl"] == 3
    assert not (folder / "begun.json").exists() and "begun.json" not in manifest["files"]


def test_rows_lost_after_a_stage_finished_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "1_questions"
    begin(folder, KEY)
    (folder / "rows.jsonl").write_text('{"i": 0}\n{"i": 1}\n')
    finish(folder, KEY, {}, Spent(1.0, 0.5), {})
    check_rows_whole(folder)
    (folder / "rows.jsonl").write_text('{"i": 0}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl: 9 bytes, but 18 when its stage finished; restore it, or delete"):
        check_rows_whole(folder)
    (folder / "manifest.json").unlink()
    check_rows_whole(folder)  # rows made by hand
    (folder / "rows.jsonl").write_text('{"i": 0}\n{"i": 1}')
    with pytest.raises(DataError, match=r"rows\.jsonl: its last line does not end"):
        check_rows_whole(folder)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (StageKey("filter", {"criteria": 6, "scale": True}, {"distil": "aa"}, "c0de"), "criteria"),
        (StageKey("filter", {"scale": True}, {"distil": "aa"}, "c0de"), "criteria"),
        (StageKey("filter", KEY.settings, {"distil": "bb"}, "c0de"), "input distil"),
        (StageKey("filter", KEY.settings, KEY.inputs, "ffff"), "its code"),
    ],
)
def test_a_change_is_named_and_the_old_folder_kept(tmp_path: Path, other: StageKey, words: str) -> None:
    folder = tmp_path / "3_filtered"
    begin(folder, KEY)
    (folder / "good.jsonl").write_text("old")
    finish(folder, KEY, {}, Spent(1.0, 0.5), {})
    assert begin(folder, other) == ("fresh", words)
    assert not (folder / "good.jsonl").exists()
    (old,) = (tmp_path / ".old").iterdir()
    assert (old / "good.jsonl").read_text() == "old" and (old / "manifest.json").exists()
    # and once more within the same second
    finish(folder, other, {}, Spent(1.0, 0.5), {})
    assert begin(folder, KEY)[0] == "fresh"
    assert len(list((tmp_path / ".old").iterdir())) == 2


def test_a_half_done_folder_with_other_settings_is_set_aside_too(tmp_path: Path) -> None:
    folder = tmp_path / "3_filtered"
    begin(folder, KEY)
    assert begin(folder, StageKey("filter", {}, {"distil": "aa"}, "c0de"))[0] == "fresh"
    assert len(list((tmp_path / ".old").iterdir())) == 1


def test_the_fingerprint_depends_on_values_not_on_their_order() -> None:
    turned = StageKey("filter", {"scale": True, "criteria": 7}, {"distil": "aa"}, "c0de")
    assert turned.fingerprint == KEY.fingerprint
    assert digest({"a": 1}) != digest({"a": "1"})


def test_what_killed_attempts_cost_is_kept(tmp_path: Path) -> None:
    assert spent(tmp_path) == Spent(0.0, 0.0)
    note_spent(tmp_path, Spent(12.5, 3.25))
    assert spent(tmp_path) == Spent(12.5, 3.25)
    for torn in ("nan 1", "12.5", "x"):
        (tmp_path / SPENT).write_text(torn)
        assert spent(tmp_path) == Spent(0.0, 0.0)


_HOLDER = """
import sys, time
from pathlib import Path
from finr1.core.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_second_process_is_kept_out_until_the_first_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        with (
            pytest.raises(BusyError, match=rf"name=run: another process \(pid {process.pid}\)"),
            RunLock(tmp_path / "run"),
        ):
            pass
        process.kill()
    with RunLock(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / ".lock").read_text()) > 0


def test_hash_files_sees_contents_not_times(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    before = hash_files([tmp_path / "b", tmp_path / "a"])
    (tmp_path / "a").write_text("1")
    assert hash_files([tmp_path / "a", tmp_path / "b"]) == before
    (tmp_path / "a").write_text("3")
    assert hash_files([tmp_path / "a", tmp_path / "b"]) != before


def test_rows_are_sorted_in_place_and_lines_stay_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"i": 2, "文": "b"}\n{"i":0}\n{"i": 1}\n', encoding="utf-8")
    sort_jsonl(path, lambda row: row["i"])
    assert path.read_text(encoding="utf-8") == '{"i":0}\n{"i": 1}\n{"i": 2, "文": "b"}\n'
    inode = path.stat().st_ino
    sort_jsonl(path, lambda row: row["i"])
    assert path.stat().st_ino == inode and [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("length", [0, 10, 65_535, 65_536, 200_000])
def test_a_torn_line_of_any_length_is_cut_off(tmp_path: Path, length: int) -> None:
    path = tmp_path / "rows.jsonl"
    for before in (b"", b'{"a": 1}\n', b"x" * 70_000 + b"\n"):
        path.write_bytes(before + b"y" * length)
        with JsonlWriter(path) as writer:
            writer.write({"b": 2})
        assert path.read_bytes() == before + b'{"b": 2}\n'


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), replacing(path) as file:
        file.write(b"half")
        raise RuntimeError("stop")
    assert path.read_text() == "old"
    with replacing(path) as file:
        file.write(b"new\n" * 3)
    assert path.read_text() == "new\n" * 3 and count_lines(path) == 3 and list(tmp_path.iterdir()) == [path]


def test_rows_come_with_their_lines_and_places(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with JsonlWriter(path) as writer:
        writer.write({"a": {"b": "亿"}}, {"a": {"c": 1}})
    first = next(raw_rows(path, ["a.b"]))
    assert first.values == {"a": {"b": "亿"}} and first.start == 0 and path.read_bytes().startswith(first.line)
    assert [row.start for row in raw_rows(path)] == [0, len(first.line)]
    with pytest.raises(DataError, match=r"line 2 has no `a.b`"):
        list(raw_rows(path, ["a", "a.b"]))
    path.write_text("[1]\n")
    with pytest.raises(DataError, match=r"line 1 has no `a`"):
        list(raw_rows(path, ["a"]))
