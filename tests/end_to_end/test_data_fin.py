"""`+experiment=data_fin` on real rows of every source available, with a local server as teacher, up to the export."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from finr1.cli.compose import CONF, compose, plain, typed
from finr1.core.files import read_json
from finr1.core.jsonl import read_jsonl
from finr1.core.types import CRITERIA
from finr1.run.fingerprints import subtree
from tests.helpers import runner
from tests.helpers.fault_server import Reply, Seen, chat, serve

SOURCES = list(compose(["+experiment=data_fin"]).source)
PER_SOURCE = 4
JUDGE, WRONG = "Qwen/Qwen2.5-72B-Instruct", "-987654321"


def test_its_settings_are_those_published_by_fin_r1() -> None:
    ten = [
        *("finqa", "convfinqa", "tfns", "financeiq", "ant_finance"),
        *("fincuge", "fincorpus", "finance_instruct_500k", "finance_qt", "finpee"),
    ]
    assert ten == SOURCES
    values = plain(compose(["+experiment=data_fin"]))
    assert subtree(values, "distil.sampling.temperature") == 0.6 and values["prompt"]["teacher_system"] is None
    assert values["distil"]["boxed"] and values["engine"]["teacher"]["lead_in"] == "vllm"
    assert values["distil"]["sampling"]["max_new_tokens"] == 16384 and values["filter"]["criteria_needed"] == 7
    assert list(values["judge"]["reasoning"]) and typed(compose(["+experiment=data_fin"])).stage == "data"
    sources = compose([f"source=[{','.join(SOURCES)}]"]).source
    for name in SOURCES:
        assert sources[name].licence, f"{CONF}/source/{name}.yaml states no licence"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "source.finqa.path={0}/finqa: no such file or folder; set paths.data=<folder> or FINR1_DATA, or leave out "
             "what is missing: '~source.finqa' '~source.convfinqa' "),
        (tuple(f"~source.{name}" for name in SOURCES if name not in ("finpee", "tfns")),
         "source.tfns.path={0}/tfns: no such file or folder; set paths.data=<folder> or FINR1_DATA, or leave out what "
         "is missing: '~source.tfns' '~benchmark.finqa' '~benchmark.convfinqa' '~benchmark.ant_finance' "
         "'~benchmark.tfns' '~benchmark.finance_instruct'\n"),
        ((*(f"~source.{name}" for name in SOURCES if name != "finpee"), "benchmark=[]"),
         "source.finpee.path=None: no file to read; set source.finpee.path=<file, folder or hub:owner/name>, or leave "
         "it out: '~source.finpee'\n"),
    ],
)  # fmt: skip
def test_missing_data_is_one_line_that_says_how_to_leave_it_out(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    nowhere = tmp_path / "nowhere"
    done = runner.run(tmp_path, "+experiment=data_fin", f"paths.data={nowhere}", *arguments)
    assert (done.returncode, len(done.stderr.splitlines()), list(tmp_path.iterdir())) == (2, 1, [])
    assert done.stderr.startswith("error: " + words.format(nowhere))


class Server:
    """Teacher and judge. The teacher knows the gold answers; its replies are in turn right, wrong, right with the
    reasoning in a separate field, and truncated. The judge accepts every reasoning and every answer but `WRONG`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, dict[str, Any]] = {}

    def __call__(self, seen: Seen) -> Reply:
        if seen.body["model"] == JUDGE:
            if all(name in seen.text for name in CRITERIA):
                return Reply(body=chat("\n".join(f"{name}: \\boxed{{1}}" for name in CRITERIA)))
            return Reply(body=chat(f"\\boxed{{{int(WRONG not in seen.text)}}}"))
        if not self.known:
            self.known = {row["prompt"][-1]["content"]: row for row in read_jsonl(self.path)}
        row = next(row for text, row in self.known.items() if seen.text.startswith(text))
        place = list(self.known).index(row["prompt"][-1]["content"])
        words = " ".join(row["prompt"][-1]["content"].split())[-160:]
        reasoning = (
            f"First I read what is asked: {words}\nSecond I look for what decides it, and compare it with the question."
            f"\nThird I check this once more. So the answer is {row['gold']}."
        )
        right = f"\\boxed{{{row['gold']}}}"
        if place % 4 == 1:
            return Reply(body=chat(f"{reasoning}\n</think>\n\\boxed{{{WRONG}}}"))
        if place % 4 == 2:
            return Reply(body=chat(right, reasoning_content=reasoning))
        if place % 4 == 3:
            return Reply(body=chat(reasoning, finish_reason="length"))
        return Reply(body=chat(f"{reasoning}\n</think>\n{right}"))


@pytest.mark.slow
def test_it_dry_runs_without_data(tmp_path: Path) -> None:
    done = runner.run(tmp_path, "+experiment=data_fin", "dry_run=true", "~source.finpee", f"paths.data={tmp_path}/none")
    assert done.returncode == 0, done.stderr
    assert "source: finqa, convfinqa, tfns, financeiq, ant_finance, fincuge, fincorpus, finance_instruct" in done.stdout
    assert "a real run would stop: source.finqa.path=" in done.stdout and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_real_rows_become_a_data_set_that_loads(tmp_path: Path) -> None:
    there = [name for name in SOURCES if (runner.DATA / name).is_dir()]
    if not there:
        pytest.skip(f"no real data sets in {runner.DATA}: set FINR1_DATA")
    mine = tmp_path / "mine.jsonl"
    mine.write_text(json.dumps({"question": "求10%利率下100元一年的利息。", "answer": "10"}) + "\n", encoding="utf-8")
    run = tmp_path / "runs" / "data_fin"
    arguments = [
        "+experiment=data_fin",
        f"paths.data={runner.DATA}",
        *(f"~source.{name}" for name in SOURCES if name not in (*there, "finpee")),
        *(f"~benchmark.{name}" for name in ("finqa", "convfinqa", "ant_finance", "tfns") if name not in there),
        "~benchmark.finance_instruct",  # of the one row at hand its tenth is that row
        f"source.finpee.path={mine}",
        f"questions.limit_per_source={PER_SOURCE}",
        "engine.teacher.backoff_s=0.01",
        "export.outcomes=[good,bad,undecided]",
    ]
    with serve(Server(run / "1_questions" / "questions.jsonl")) as server:
        urls = (f"engine.teacher.base_url={server.url}", f"engine.judge.base_url={server.url}")
        done = runner.run(tmp_path, *arguments, *urls)
        assert done.returncode == 0, done.stderr
        n_requests = len(server.seen)
        again = runner.run(tmp_path, *arguments, *urls)
    assert again.stderr.count("done before") == 5 and len(server.seen) == n_requests
    taught = [seen for seen in server.seen if seen.body["model"] != JUDGE]
    asked = len(taught)
    assert any(all(name in seen.text for name in CRITERIA) for seen in server.seen), "no reasoning was judged"
    assert not (run / "4_sft").exists() and (run / "7_report" / "report.html").is_file()
    counts = {name: read_json(run / name / "manifest.json")["counts"] for name in ("1_questions", "3_filtered")}
    questions = {row["id"]: row for row in read_jsonl(run / "1_questions" / "questions.jsonl")}
    by_source = Counter(row["source"] for row in questions.values())
    assert by_source.keys() == {*there, "finpee"} and max(by_source.values()) <= PER_SOURCE
    assert asked == len(questions) == sum(counts["3_filtered"][name] for name in ("good", "bad", "undecided"))
    body = taught[0].body
    assert (body["temperature"], body["max_tokens"], body["model"]) == (0.6, 16384, "deepseek-ai/DeepSeek-R1")
    assert [message["role"] for message in body["messages"]] == ["user", "assistant"], "no system prompt"
    assert body["messages"][-1]["content"] == "<think>\n" and body["continue_final_message"]
    assert all("boxed" in seen.text for seen in taught)

    from datasets import load_dataset

    data = load_dataset(str(run / "export"), "fin_r1", cache_dir=str(tmp_path / "cache"))
    rows = [row for split in data.values() for row in split]
    assert Counter(row["outcome"] for row in rows) == {k: v for k, v in counts["3_filtered"].items() if v and k in
                                                       ("good", "bad", "undecided")}  # fmt: skip
    assert {row["question_id"] for row in rows} == questions.keys()
    for row in rows:
        question = questions[row["question_id"]]
        assert row["input"] == question["prompt"][-1]["content"] and row["repo_name"] == question["source"]
    place = {question_id: number % 4 for number, question_id in enumerate(questions)}
    scores = Counter((place[row["question_id"]], row["score"]) for row in rows)
    assert scores[0, 1.0] and scores[2, 1.0] and not scores[0, 0.0] and not scores[2, 0.0], "rejected a right answer"
    assert scores[1, 0.0] and not scores[1, 1.0], "accepted a wrong answer"
    assert {row["outcome"] for row in rows if place[row["question_id"]] == 3} == {"bad"}, "truncated"
    assert {"tfns", "fincuge"} & {row["repo_name"] for row in data["train"]}
    text = (run / "export" / "README.md").read_text(encoding="utf-8")
    assert str(runner.DATA) not in text and str(tmp_path) not in text
    assert "| financeiq | CC-BY-NC-SA-4.0 |" in text or "financeiq" not in there
