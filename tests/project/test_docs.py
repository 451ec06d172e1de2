"""The documents are executed: their commands compose, the files they name exist, their example of a part works."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from finr1.cli.compose import compose, plain, typed
from finr1.cli.nodes import check_nodes
from finr1.core.types import Message, Question
from finr1.parts.reward.base import RewardItem
from finr1.run.stages import COMMANDS, chosen
from tests.helpers.runner import REPO

ROOT = REPO
ROOMS = (
    *("conf/README.md", "finr1/parts/README.md", "finr1/training/README.md", "finr1/evaluation/README.md"),
    *("finr1/cli/README.md", "experiments/README.md", "notebooks/README.md", "tests/README.md"),
)
STUDIES = tuple(sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("experiments/*/README.md")))
DOCS = ("README.md", "CONTRIBUTING.md", *ROOMS, *STUDIES)
MAX_LINES = {"README.md": 130, "CONTRIBUTING.md": 200}  # 150 for the others
TOP = ("conf/", "finr1/", "experiments/", "notebooks/", "tests/", ".ci/")
FILES = ("Makefile", "LICENSE", "constraints.txt", "pyproject.toml")
OPTIONS = {"--help": 0, "--multirun": 0, "-m": 0, "--cfg": 1}  # option -> number of values


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def words_after_finr1(line: str) -> list[str] | None:
    """What a shell line gives to finr1; None for a line that runs something else."""
    if "finr1" not in line:
        return None
    words = shlex.split(line, comments=True)
    for i, word in enumerate(words):
        if word == "finr1" and (i == 0 or words[i - 1] == "-m" or "=" in words[i - 1]):
            return words[i + 1 :]
    return None


def lines_of_code(text: str) -> list[str]:
    """The lines of bash blocks and the inline code of a document, without code that has placeholders."""
    lines = [line for block in blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += [code for code in re.findall(r"`([^`\n]+)`", prose) if "…" not in code and "<" not in code]
    return [line.strip() for line in lines]


def commands() -> list[tuple[str, str]]:
    """Every finr1 command of the documents, with its document."""
    pairs = [(name, line) for name in DOCS for line in lines_of_code(read(name))]
    return list(dict.fromkeys(pair for pair in pairs if words_after_finr1(pair[1]) is not None))


def jobs(words: list[str]) -> Iterator[list[str]]:
    """The override lists that a command runs: one, or one a job of a sweep."""
    overrides, rest = [], iter(words)
    for word in rest:
        if word.startswith("-"):
            assert word in OPTIONS, f"an option that the documents should not show: {word}"
            for _ in range(OPTIONS[word]):
                next(rest)
        else:
            overrides.append(word)
    parsed = OverridesParser.create().parse_overrides(overrides)
    choices = []
    for text, override in zip(overrides, parsed, strict=True):
        if override.is_sweep_override():
            assert {"--multirun", "-m"} & set(words), f"{text} needs --multirun"
            choices.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([text])
    for combination in itertools.product(*choices):
        yield list(combination)


def test_documents_show_the_commands_that_matter() -> None:
    shown = " ".join(line for _, line in commands())
    experiments = {path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")}
    table = re.search(r"^\| experiment .*?\n\n", read("README.md"), re.MULTILINE | re.DOTALL)
    assert table and experiments <= set(re.findall(r"`(\w+)`", table[0])), "every experiment is in README's table"
    for part in ("--help", "--multirun", "--cfg job", "stage=", "logger=wandb", "dry_run=true", "paths.data="):
        assert part in shown
    assert "make run" in read("README.md") and "make test" in read("README.md")


@pytest.mark.parametrize(("document", "line"), commands())
def test_command_composes(document: str, line: str) -> None:
    words = words_after_finr1(line)
    assert words is not None
    for overrides in jobs(words):
        cfg = compose(overrides)
        assert cfg.stage in COMMANDS or chosen(typed(cfg).stage)
        for group in ("source", "reward", "benchmark", "judge"):
            check_nodes(plain(cfg)[group], group)


def test_a_wrong_command_would_be_noticed() -> None:
    with pytest.raises(Exception, match="stpes"):
        compose(["grpo.stpes=10"])
    assert list(jobs(["--multirun", "a=1,2", "b=x"])) == [["a=1", "b=x"], ["a=2", "b=x"]]
    assert words_after_finr1("FINR1_DATA=/d python -m finr1 seed=1  # why") == ["seed=1"]
    assert words_after_finr1("pip install finr1-extra") is None


def in_this_repository(document: str, name: str) -> bool:
    """Whether a named file exists: seen from the root, from the document, or anywhere below the document's folder."""
    folder = (ROOT / document).parent
    return any((base / name).exists() for base in (ROOT, folder)) or name in TREE[str(folder.relative_to(ROOT))]


def tree(folder: str) -> set[str]:
    """The paths below a folder, each also by its last parts alone (`loss.py`, `grpo/loss.py`)."""
    paths = [path for top in TOP for path in (ROOT / top).rglob("*.*") if path.is_relative_to(ROOT / folder)]
    parts = [path.relative_to(ROOT).parts for path in paths]
    return {"/".join(path[i:]) for path in parts for i in range(len(path))}


TREE = {folder: tree(folder) for folder in {str((ROOT / name).parent.relative_to(ROOT)) for name in DOCS}}


@pytest.mark.parametrize("document", DOCS)
def test_named_files_exist(document: str) -> None:
    """Paths from the root, Python files, notebooks and documents in code; whatever a link leads to."""
    text = read(document)
    words = {word.strip("'\"") for line in lines_of_code(text) for word in line.split()}
    paths = {word for word in words if re.fullmatch(r"[\w./-]+", word) and word.startswith((*TOP, *FILES))}
    named = paths | {word for word in words if re.fullmatch(r"[\w/]+\.(py|md|ipynb)", word)}
    assert not [name for name in sorted(named) if not in_this_repository(document, name)]
    links = re.findall(r"\]\((?!http)([^)#]+)", text)
    assert not [link for link in links if not ((ROOT / document).parent / link).exists()]
    if document == "README.md":
        assert set(links) >= {*ROOMS, "CONTRIBUTING.md"}


@pytest.mark.parametrize("document", DOCS)
def test_documents_stay_short(document: str) -> None:
    assert len(read(document).splitlines()) <= MAX_LINES.get(document, 150)


def test_the_rooms_in_readme_are_the_tree() -> None:
    table = next(part for part in read("README.md").split("\n## ") if part.startswith("The code\n"))
    named = set(re.findall(r"`(?:finr1/)?(\w+)/?`", table))
    rooms = {path.name for path in (ROOT / "finr1").iterdir() if path.is_dir() and path.name[0] not in "._"}
    others = {path.parent.name for path in map(ROOT.joinpath, ROOMS) if path.parent.parent == ROOT}
    assert named == rooms | others


def test_every_benchmark_is_in_the_table() -> None:
    folder = ROOT / "experiments" / "benchmarks"
    table = read("experiments/README.md").split("\n## Benchmarks\n")[1]
    shared = {"figures", "served"}  # modules of the others
    for path in folder.iterdir():
        if path.suffix == ".py" and path.stem not in shared:
            assert f"`{path.name}`" in table, path.name


def test_example_of_a_part_works() -> None:
    """The reward that finr1/parts/README.md shows, built from the yaml that it shows."""
    text = read("finr1/parts/README.md")
    code, node = blocks(text, "python")[0], yaml.safe_load(blocks(text, "yaml")[0])["brevity"]
    space: dict[str, type] = {}
    exec(compile(code, "finr1/parts/README.md", "exec"), space)
    target = node.pop("_target_")
    assert target == "finr1.parts.reward.brevity.Brevity"
    reward = space["Brevity"](**node)
    question = Question(
        source="s", document_id="d", language="en", module="professional knowledge", kind="number",
        prompt=[Message(role="user", content="1 + 1?")], gold="2",
    )  # fmt: skip
    verdicts = reward.grade([RewardItem(question, "x" * 600, False), RewardItem(question, "x" * 601, False)])
    assert [v.value for v in verdicts] == [1.0, 0.0] and reward.weight == 0.2


def test_the_error_line_in_the_cli_readme_is_what_is_said() -> None:
    from finr1.cli.explain import explain

    shown = re.search(r"^error: (grpo\.stpes.*)$", read("finr1/cli/README.md"), re.MULTILINE)
    assert shown
    with pytest.raises(Exception) as caught:
        compose(["grpo.stpes=10"])
    assert explain(caught.value, ["grpo.stpes=10"]) == shown[1]
