"""Who may import whom (CONTRIBUTING.md), read from the syntax trees; and what stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from finr1.pipeline import STAGES, TRAINING, source_files

PACKAGE = Path(__file__).parents[1] / "finr1"
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))

HEAVY = {"torch", "transformers", "vllm", "wandb", "pytorch_lightning", "pandas", "datasets", "scipy", "peft"}
MAY_BE_HEAVY = ("model/", "data/", "sft/", "grpo/")  # but for their settings
PLUGINS = ("source", "judge", "reward", "benchmark", "engine")
GROUND = {"errors", "types"}
BASES = {
    *GROUND,
    "answer",
    "prompt",
    "store",
    "clock",
    "ranks",
    "tracking",
    "stats",
    "kappa",
    "model.settings",
    *(f"{p}.base" for p in PLUGINS),
}
SHARED = {*BASES, "model", "data", "cache", "context", "scoring"}
TOP = {
    *("__main__", "check", "cli", "compose", "config", "dryrun", "follow", "guard", "launch", "pipeline", "summary"),
    "sweep",
}
STAGE_OF = {
    **{f"{name}.py": name for name in ("questions", "distil", "filter", "evaluate", "report", "serve", "chat")},
    **{f"{name}/": name for name in ("sft", "grpo", "export", "reporting")},
    "overlap.py": "questions",
    "audit.py": "filter",
    "index.py": "filter",
    "asking.py": "evaluate",
    "breakdown.py": "evaluate",
    "judging.py": "evaluate",
    "leakage.py": "evaluate",
}
PARTS = {
    "report": ("reporting",),
    "questions": ("overlap",),
    "filter": ("audit", "index"),
    "sft": ("source.reading",),  # reads files of chats; no plug-in
    "evaluate": ("asking", "breakdown", "judging", "leakage"),
}


def allowed(module: str) -> set[str] | None:
    """What this file may import of finr1, as dotted prefixes; None: everything."""
    first = module.split("/")[0].removesuffix(".py")
    if first in TOP:
        return None
    if module == "__init__.py" or first in GROUND:
        return GROUND
    if first == "kappa":
        return {*GROUND, "stats"}
    if first in ("answer", "prompt", "ranks", "stats"):
        return {*GROUND, "answer", "prompt"} if first in ("answer", "prompt") else GROUND
    if (
        first in ("store", "clock", "tracking", "cache", "wandb_sink")
        or module.endswith("/base.py")
        or module.endswith("/settings.py")
    ):
        return BASES
    if first in PLUGINS:
        own = {f"{first}.{Path(m).stem}" for m in MODULES if m.startswith(f"{first}/") and "/_" in m}
        families = {f"{first}.{p.name}" for p in (PACKAGE / first).iterdir() if p.is_dir()}
        families |= {f"{first}.{name}" for name in helpers(first)}
        return {*BASES, *own, *families, *({"model"} if first == "engine" else set())}
    if first in ("model", "data"):
        return {*BASES, first} if first == "model" else {*BASES, "model", "data", "context"}  # `context.build`
    if first in ("context", "scoring"):
        return {*SHARED, "config"}
    for prefix, name in STAGE_OF.items():
        if module.startswith(prefix):
            return {*SHARED, "config", name, *PARTS.get(name, ())}
    raise AssertionError(f"{module} belongs to no layer: give it one here and in CONTRIBUTING.md")


def helpers(group: str) -> set[str]:
    """Modules of a plug-in group that are not plug-ins: no yaml of any group names them."""
    targets = {
        line.split("_target_:")[1].split("#")[0].strip()
        for path in (PACKAGE.parent / "conf").rglob("*.yaml")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "_target_:" in line
    }
    named = {target.split(".")[2] for target in targets if target.startswith(f"finr1.{group}.")}
    return {path.stem for path in (PACKAGE / group).glob("*.py")} - named


class _Imports(ast.NodeVisitor):
    """Modules imported for real (not under TYPE_CHECKING), and those imported at the top of the file."""

    def __init__(self) -> None:
        self.all: set[str] = set()
        self.top: set[str] = set()
        self._depth = 0

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.orelse:
                self.visit(child)
        else:
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

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
            self._add(module if path_of(module) or node.module == "finr1" else str(node.module))


def path_of(module: str) -> Path | None:
    """The file of a module of finr1."""
    base = PACKAGE.parent / module.replace(".", "/")
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


@cache
def imports(module: str) -> _Imports:
    """What a file of the package imports."""
    visitor = _Imports()
    visitor.visit(ast.parse((PACKAGE / module).read_text(encoding="utf-8")))
    return visitor


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_the_layers_below_it(module: str) -> None:
    permitted = allowed(module)
    if permitted is None:
        return
    for name in sorted(imports(module).all):
        if name.startswith("finr1."):
            inner = name.removeprefix("finr1.")
            fits = any(inner == layer or inner.startswith(f"{layer}.") for layer in permitted)
            assert fits or inner.startswith("__"), f"{module} imports {name}"


@pytest.mark.parametrize("module", [m for m in MODULES if not m.startswith(MAY_BE_HEAVY) or m.endswith("settings.py")])
def test_heavy_packages_are_not_imported_at_the_top(module: str) -> None:
    heavy = {name for name in imports(module).top if name.split(".")[0] in HEAVY}
    assert not heavy, f"{module} imports {heavy} at its top: move it into the function that needs it"


def test_the_command_line_starts_without_the_heavy_packages() -> None:
    code = "import sys, finr1.__main__, finr1.dryrun; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True, timeout=60
    )
    assert not HEAVY & set(done.stdout.split())


def closure(path: Path) -> Iterator[Path]:
    """The file and all of finr1 that it imports, directly or not; what belongs to no stage is not followed."""
    seen: set[Path] = set()
    todo = [path]
    while todo:
        here = todo.pop()
        if here in seen or str(here.relative_to(PACKAGE)) in INFRASTRUCTURE:
            continue
        seen.add(here)
        yield here
        todo += filter(None, map(path_of, imports(str(here.relative_to(PACKAGE))).all))


# Changes here do not make a stage's results stale; those of `ranks.py` only in stages that train, which name it.
INFRASTRUCTURE = (
    "__init__.py",
    "clock.py",
    "config.py",
    "context.py",
    "errors.py",
    "ranks.py",
    "store.py",
    "tracking.py",
)


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_a_stages_code_version_covers_all_it_imports(stage) -> None:  # type: ignore[no-untyped-def]
    assert all((PACKAGE / name).exists() for name in stage.sources)
    hashed = set(source_files(stage))
    start = path_of(stage.run.rpartition(".")[0])
    assert start is not None
    used = set(closure(start))
    for path in hashed:
        if path.suffix == ".py":
            used |= set(closure(path))
    missing = sorted(str(path.relative_to(PACKAGE)) for path in used - hashed)
    assert not missing, f"add them to STAGES[{stage.name!r}].sources"
    assert ("ranks.py" in stage.sources) == (stage.name in TRAINING)


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    long = {m: n for m in MODULES if (n := len((PACKAGE / m).read_text(encoding="utf-8").splitlines())) > 420}
    assert not long
