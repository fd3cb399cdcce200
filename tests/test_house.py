"""The laws of the house, read from the syntax trees: nothing is imported here but the standard library."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = {
    "emogen": 0,
    "emogen.errors": 0,
    "emogen.emotion": 0,
    "emogen.files": 0,
    "emogen.notes": 1,
    "emogen.settings": 1,
    "emogen.midi": 2,
    "emogen.tokens": 2,
    "emogen.musicality": 2,
    "emogen.plan": 2,
    "emogen.classifier": 2,
    "emogen.features": 2,
    "emogen.soundfont": 2,
    "emogen.picture": 2,
    "emogen.curves": 3,
    "emogen.render": 3,
    "emogen.download": 3,
    "emogen.sources": 3,
    "emogen.corpus": 3,
    "emogen.split": 3,
    "emogen.compute": 3,
    "emogen.copies": 3,
    "emogen.judge": 3,
    "emogen.coherence": 3,
    "emogen.team": 3,
    "emogen.page": 3,
    "emogen.batches": 3,
    "emogen.angles": 3,
    "emogen.model": 3,
    "emogen.numpy_model": 3,
    "emogen.int8": 3,
    "emogen.workers": 3,
    "emogen.prepare": 4,
    "emogen.checkpoint": 4,
    "emogen.progress": 4,
    "emogen.run": 4,
    "emogen.ear": 4,
    "emogen.listening": 4,
    "emogen.train": 5,
    "emogen.networks": 5,
    "emogen.generate": 5,
    "emogen.many": 5,
    "emogen.evaluate": 6,
    "emogen.cli.console": 7,
    "emogen.cli.options": 7,
    "emogen.cli.made_by": 7,
    "emogen.cli.roll": 7,
    "emogen.cli.extras": 7,
    "emogen.cli.prepare": 7,
    "emogen.cli.train": 7,
    "emogen.cli.generate": 7,
    "emogen.cli.evaluate": 7,
    "emogen.cli.judge": 7,
    "emogen.cli.render": 7,
    "emogen.cli.listening_test": 7,
    "emogen.cli.doctor": 7,
    "emogen.cli.show": 7,
    "emogen.cli.ckpt": 7,
    "emogen.cli.config": 7,
    "emogen.cli": 8,
    "emogen.__main__": 9,
}
"""Where each module lives. A module imports from its own floor and those below."""

TORCH_AT_ONCE = {
    "emogen.batches",
    "emogen.model",
    "emogen.int8",
    "emogen.team",
    "emogen.train",
    "emogen.evaluate",
}
"""The modules that may import torch as soon as they are imported."""

TORCH_WHEN_CALLED = {
    "emogen.compute",
    "emogen.checkpoint",
    "emogen.generate",
    "emogen.networks",
    "emogen.many",
    "emogen.cli.train",
    "emogen.cli.generate",
    "emogen.cli.evaluate",
    "emogen.cli.doctor",
}
"""The modules that may import torch inside a function."""


@dataclass(frozen=True)
class Import:
    """One import: of what, on which line, and whether it waits for a call or is for the type checker alone."""

    module: str
    line: int
    when_called: bool = False
    for_types: bool = False


def modules() -> dict[str, ast.Module]:
    """Every module of the package with its syntax tree."""
    trees = {}
    for path in sorted((ROOT / "emogen").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        trees[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return trees


TREES = modules()


def imports(tree: ast.AST, when_called: bool = False, for_types: bool = False) -> Iterator[Import]:
    """All imports of a tree, also those inside functions and under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, when_called, for_types)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: imports are written in full"
            for alias in node.names:  # a name may be a module itself
                whole = f"{node.module}.{alias.name}"
                yield Import(whole if whole in TREES else str(node.module), node.lineno, when_called, for_types)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.body:
                yield from imports(ast.Module([child], []), when_called, for_types=True)
            for child in node.orelse:
                yield from imports(ast.Module([child], []), when_called, for_types)
        else:
            called = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(node, when_called or called, for_types)


def package_of(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_has_its_floor() -> None:
    unplaced = sorted(TREES.keys() - FLOORS.keys())
    assert not unplaced, f"give these modules a floor in FLOORS (tests/test_house.py): {unplaced}"


@pytest.mark.parametrize("name", TREES)
def test_imports_run_downward_only(name: str) -> None:
    upward = [
        f"line {one.line}: {name} (floor {FLOORS[name]}) imports {one.module} (floor {FLOORS[one.module]})"
        for one in imports(TREES[name])
        if package_of(one.module) == "emogen" and FLOORS[one.module] > FLOORS[name]
    ]
    assert not upward


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {
        name: {one.module for one in imports(tree) if package_of(one.module) == "emogen"}
        for name, tree in TREES.items()
    }
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle
    assert set(order) == TREES.keys()


@pytest.mark.parametrize("name", TREES)
def test_torch_is_imported_only_where_it_computes(name: str) -> None:
    late_is_fine = name in TORCH_WHEN_CALLED
    early = [
        one.line
        for one in imports(TREES[name])
        if package_of(one.module) == "torch" and not (late_is_fine and (one.when_called or one.for_types))
    ]
    assert name in TORCH_AT_ONCE or not early, f"{name} imports torch in lines {early}"


@pytest.mark.parametrize("name", [name for name in TREES if name.startswith("emogen.cli")])
def test_commands_import_the_heavy_only_when_called(name: str) -> None:
    heavy = TORCH_AT_ONCE | {"numpy", "miditoolkit", "pretty_midi", "safetensors", "PIL", "soundfile"}
    early = [
        f"line {one.line}: {one.module}"
        for one in imports(TREES[name])
        if (one.module in heavy or package_of(one.module) in heavy) and not one.when_called and not one.for_types
    ]
    assert not early


@pytest.mark.parametrize("name", [name for name in TREES if not name.startswith("emogen.cli")])
def test_only_the_command_line_speaks_to_people(name: str) -> None:
    tree = TREES[name]
    assert not [one.line for one in imports(tree) if package_of(one.module) in {"rich", "typer"}]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [
        call.lineno for call in calls if ast.unparse(call.func) in {"print", "sys.stdout.write", "sys.stderr.write"}
    ]


@pytest.mark.parametrize("name", TREES)
def test_every_module_says_what_it_is_for(name: str) -> None:
    assert ast.get_docstring(TREES[name])


def version() -> str:
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / "emogen" / "__init__.py").read_text(), re.MULTILINE)
    assert found
    return found[1]


def test_the_version_stands_in_one_place() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in project
    copies = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in [ROOT / "pyproject.toml", *sorted((ROOT / "emogen").rglob("*.py"))]
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(rf"^_*version_* *=|[\"']{re.escape(version())}[\"']", line)
    ]
    assert copies == [f'emogen/__init__.py: __version__ = "{version()}"']


def test_the_changelog_begins_with_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (.+)$", changelog, re.MULTILINE)
    assert newest
    assert re.fullmatch(rf"{re.escape(version())} - \d{{4}}-\d{{2}}-\d{{2}}", newest[1])
