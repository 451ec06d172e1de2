"""Who may import whom (CONTRIBUTING.md), read from the syntax trees; which modules import no heavy package."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

import pytest

from finr1.run.fingerprints import INFRASTRUCTURE, ROOT, code_hash, path_of, source_files, targets
from finr1.run.stages import STAGES
from tests.helpers.runner import REPO

PACKAGE = REPO / "finr1"
MODULES = sorted(path.relative_to(REPO).with_suffix("").as_posix().replace("/", ".") for path in PACKAGE.rglob("*.py"))

# What each room may import of finr1 beside itself; imports under TYPE_CHECKING count.
LAYERS = {
    "core": (),
    "answer": ("core",),
    "settings": ("core",),
    "parts": ("core", "answer", "settings"),
    "run": ("core", "settings", "parts"),
    "data": ("core", "answer", "settings", "parts", "run"),
    "evaluation": ("core", "answer", "settings", "parts", "run"),
    "training": ("core", "answer", "settings", "parts", "run", "evaluation"),
    "cli": ("core", "settings", "parts", "run"),
}
HEAVY = {"torch", "transformers", "vllm", "wandb", "pytorch_lightning", "peft"}
HEAVY |= {"pandas", "datasets", "scipy", "statsmodels"}
MAY_BE_HEAVY = ("finr1.training.", "finr1.parts.engine.vllm.require_key")  # the latter is loaded by the server alone


class Import(ast.NodeVisitor):
    """The modules that a file imports: anywhere, and at its top level outside TYPE_CHECKING."""

    def __init__(self) -> None:
        self.all: set[str] = set()
        self.top: set[str] = set()
        self._depth = 0

    def visit_If(self, node: ast.If) -> None:
        self._within(node, "TYPE_CHECKING" in ast.dump(node.test))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._within(node, True)

    def _within(self, node: ast.AST, deeper: bool) -> None:
        self._depth += deeper
        self.generic_visit(node)
        self._depth -= deeper

    def _add(self, *names: str) -> None:
        self.all.update(names)
        if not self._depth:
            self.top.update(names)

    def visit_Import(self, node: ast.Import) -> None:
        self._add(*(alias.name for alias in node.names))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, "imports are absolute"
        for alias in node.names:
            module = f"{node.module}.{alias.name}"
            self._add(module if path_of(module) else str(node.module))


@cache
def imports(module: str) -> Import:
    """The imports of a module of the package."""
    visitor = Import()
    path = path_of(module.removesuffix(".__init__"))
    assert path is not None
    visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
    return visitor


def room_of(module: str) -> str:
    return module.split(".")[1] if module.count(".") > 1 else ""


def test_the_package_has_only_these_rooms() -> None:
    kept = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert kept == {*LAYERS, "__init__.py", "__main__.py"}


@pytest.mark.parametrize("module", [m for m in MODULES if room_of(m)])
def test_a_module_imports_only_rooms_below_its_own(module: str) -> None:
    permitted = {*LAYERS[room_of(module)], room_of(module), ""}
    for name in sorted(name for name in imports(module).all if name.startswith("finr1.")):
        assert (room_of(name) or room_of(f"{name}.x")) in permitted, f"{module} imports {name}"


def test_there_are_no_import_circles() -> None:
    waiting = {m: {n for n in imports(m).all if n in MODULES and n != m} for m in MODULES}
    while free := [m for m, needs in waiting.items() if not needs & waiting.keys()]:
        for module in free:
            del waiting[module]
    assert not waiting


@pytest.mark.parametrize("module", [m for m in MODULES if not m.startswith(MAY_BE_HEAVY)])
def test_heavy_packages_are_not_imported_at_the_top(module: str) -> None:
    heavy = {name for name in imports(module).top if name.split(".")[0] in HEAVY}
    assert not heavy, f"{module} imports {heavy} at its top: move it into the function that needs it"


def test_the_command_line_starts_without_the_heavy_packages() -> None:
    code = "import sys, finr1.__main__, finr1.cli.dryrun; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True, timeout=60
    )
    assert not HEAVY & set(done.stdout.split())


def closure(module: str) -> Iterator[str]:
    """The modules of finr1 that importing this module loads: an independent check of `source_files`."""
    code = (
        "import importlib, sys; importlib.import_module(sys.argv[1]); "
        "print(*(m for m in sys.modules if m.startswith('finr1.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, module], cwd=REPO, capture_output=True, text=True, check=True, timeout=120
    )
    yield from done.stdout.split()


@pytest.mark.parametrize("name", ["questions", "filter", "report"])
def test_a_stages_code_hash_covers_all_modules_it_loads(name: str) -> None:
    module = STAGES[name].run.rpartition(".")[0]
    hashed = {path.relative_to(ROOT).as_posix() for path in source_files(module)}
    loaded = {path.relative_to(ROOT).as_posix() for m in closure(module) if (path := path_of(m))}
    assert not {path for path in loaded - hashed if not path.startswith(INFRASTRUCTURE)}
    assert not {path for path in hashed if path.startswith(INFRASTRUCTURE)}


def test_a_stages_code_hash_covers_its_parts_and_texts() -> None:
    sft, grpo = (STAGES[name].run.rpartition(".")[0] for name in ("sft", "grpo"))
    reward = {"reward": {"mine": {"_target_": "finr1.parts.reward.format.Format"}}}
    assert list(targets(reward)) == ["finr1.parts.reward.format"]
    files = {path.relative_to(ROOT).as_posix() for path in source_files(grpo)}
    assert {"finr1/core/ranks.py", "finr1/training/grpo/loss.py", "finr1/training/rows/logprobs.py"} <= files
    assert "finr1/core/prompt/question.v1.txt" in files
    assert "finr1/parts/reward/format.py" not in files
    assert "finr1/parts/reward/format.py" in {
        p.relative_to(ROOT).as_posix() for p in source_files(grpo, *targets(reward))
    }
    assert code_hash(STAGES["grpo"], {}) != code_hash(STAGES["grpo"], reward)
    assert not any("/grpo/" in path.as_posix() for path in source_files(sft))
    report = {path.name for path in source_files(STAGES["report"].run.rpartition(".")[0])}
    assert {"template.html", "style.css", "script.js", "page.py", "intervals.py"} <= report


def test_no_file_is_longer_than_400_lines() -> None:
    files = [path_of(m.removesuffix(".__init__")) for m in MODULES]
    assert not {str(f): n for f in files if f and (n := len(f.read_text(encoding="utf-8").splitlines())) > 400}
