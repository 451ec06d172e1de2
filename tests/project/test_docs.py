"""README and CONTRIBUTING are executed: their commands compose, their files exist, their example of a part works."""

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
DOCS = ("README.md", "CONTRIBUTING.md")
OPTIONS = {"--help": 0, "--multirun": 0, "-m": 0, "--cfg": 1}  # option -> number of values


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def words_after_finr1(line: str) -> list[str] | None:
    """What a shell line gives to finr1; None for a line that runs something else."""
    words = shlex.split(line, comments=True)
    for i, word in enumerate(words):
        if word == "finr1" and (i == 0 or words[i - 1] == "-m" or "=" in words[i - 1]):
            return words[i + 1 :]
    return None


def commands() -> list[tuple[str, str]]:
    """Every finr1 command of the documents: whole lines of bash blocks, and `python -m finr1 …` in running text."""
    found = []
    for name in DOCS:
        text = read(name)
        lines = [line for block in blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        lines += [code for code in re.findall(r"`([^`\n]+)`", prose) if "…" not in code and "<" not in code]
        found += [(name, line.strip()) for line in lines if words_after_finr1(line) is not None]
    return list(dict.fromkeys(found))


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


@pytest.mark.parametrize("document", DOCS)
def test_named_files_exist(document: str) -> None:
    text = read(document)
    named = set(re.findall(r"`([\w./-]+)`", text)) | set(re.findall(r"\]\((?!http)([^)#]+)", text))
    top = ("conf/", "finr1/", "experiments/", "notebooks/", "tests/", ".ci/")
    wanted = {
        n for n in named if n.startswith(top) or n in {"Makefile", "LICENSE", "constraints.txt"} or n.endswith(".md")
    }
    if document == "README.md":
        assert wanted >= {"CONTRIBUTING.md", "LICENSE", "conf/config.yaml", "notebooks/01_a_run_step_by_step.ipynb"}
    assert not [name for name in sorted(wanted) if not (ROOT / name).exists()]


def test_layout_in_contributing_is_the_tree() -> None:
    block = next(b for b in blocks(read("CONTRIBUTING.md"), "") if b.startswith("conf/ "))
    named: set[str] = set()
    for line in block.splitlines():
        indent, parts = line.startswith("  "), re.split(r"\s{2,}", line.strip())
        named |= {("finr1/" if indent else "") + word for word in parts[0].split()}
    assert not [name for name in sorted(named) if not (ROOT / name).exists()]
    package = {
        f"finr1/{p.name}{'/' if p.is_dir() else ''}" for p in (ROOT / "finr1").iterdir() if p.name[0] not in "._"
    }
    assert package - {"finr1/__pycache__/"} - named <= {"finr1/__init__.py"}


def test_example_of_a_part_works() -> None:
    """The reward that CONTRIBUTING shows, built from the yaml that it shows."""
    text = read("CONTRIBUTING.md")
    code, node = blocks(text, "python")[0], yaml.safe_load(blocks(text, "yaml")[0])["brevity"]
    space: dict[str, type] = {}
    exec(compile(code, "CONTRIBUTING.md", "exec"), space)
    target = node.pop("_target_")
    assert target == "finr1.parts.reward.brevity.Brevity"
    reward = space["Brevity"](**node)
    question = Question(
        source="s", document_id="d", language="en", module="professional knowledge", kind="number",
        prompt=[Message(role="user", content="1 + 1?")], gold="2",
    )  # fmt: skip
    verdicts = reward.grade([RewardItem(question, "x" * 600, False), RewardItem(question, "x" * 601, False)])
    assert [v.value for v in verdicts] == [1.0, 0.0] and reward.weight == 0.2


def test_error_line_in_readme_is_what_is_said() -> None:
    from finr1.cli.explain import explain

    shown = re.search(r"^error: (grpo\.stpes.*)$", read("README.md"), re.MULTILINE)
    assert shown
    with pytest.raises(Exception) as caught:
        compose(["grpo.stpes=10"])
    assert explain(caught.value, ["grpo.stpes=10"]) == shown[1]
