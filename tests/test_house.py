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
    "errors": 0,
    "emotion": 0,
    "moods": 0,
    "settings": 0,
    "system": 0,
    "music": 1,
    "data": 2,
    "model": 2,
    "sound": 2,
    "ear": 3,
    "training": 3,
    "composing": 4,
    "evaluation": 5,
    "cli": 6,
    "__main__": 7,
}
"""The rooms, and the five files at the root. A room imports from itself and from the floors below, not from its
neighbours. ``emogen`` itself is below all of them, and reaches what it offers only when it is asked for."""

NEVER = {
    "ear": {"model", "composing"},  # the judge does not know whom it judges
    "music": {"torch"},
    "sound": {"torch"},
    "evaluation.sections": {"torch", "model", "composing"},  # whoever made the pieces
    "evaluation.yardstick": {"torch", "model", "composing"},
    "model": {"data", "sound", "ear", "training", "composing", "evaluation", "cli"},  # music, settings, system
}
"""What a room, or one module of it, never reaches, by way of others neither."""

TORCH_AT_ONCE = {
    "emogen.data.batches",
    "emogen.model.network",
    "emogen.model.growing",
    "emogen.model.pointer",
    "emogen.model.int8",
    "emogen.training.distributed",
    "emogen.training.optimizer",
    "emogen.training.restoring",
    "emogen.training.trainer",
    "emogen.evaluation.evaluate",
}
"""The modules that may import torch as soon as they are imported."""

TORCH_WHEN_CALLED = {
    "emogen.system.devices",
    "emogen.model.checkpoint",
    "emogen.model.opening",
    "emogen.composing.voice",
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


def room_of(module: str) -> str:
    """The room of a module, or the file at the root that it is; empty for ``emogen`` itself."""
    return [*module.split("."), ""][1]


def from_ours(name: str, early: bool = False) -> set[str]:
    """Modules of the package that one imports; with ``early`` only as soon as it is imported itself."""
    return {
        one.module
        for one in imports(TREES[name])
        if package_of(one.module) == "emogen" and not (early and (one.when_called or one.for_types))
    }


def test_every_module_is_in_a_room() -> None:
    assert {room_of(name) for name in TREES} - {""} == FLOORS.keys()
    too_deep = [name for name in TREES if name.count(".") > 2]
    assert not too_deep


@pytest.mark.parametrize("name", TREES)
def test_imports_run_downward_only(name: str) -> None:
    room = room_of(name)
    if not room:  # what it offers, it imports when it is asked for
        assert not from_ours(name, early=True)
        return
    upward = [
        f"line {one.line}: {name} (floor {FLOORS[room]}) imports {one.module} (floor {FLOORS[other]})"
        for one in imports(TREES[name])
        if package_of(one.module) == "emogen"
        and (other := room_of(one.module)) not in ("", room)
        and FLOORS[other] >= FLOORS[room]
        and not (FLOORS[room] == FLOORS[other] == 0 and other in ("errors", "emotion", "moods"))
    ]
    assert not upward


@pytest.mark.parametrize("room", NEVER)
def test_a_room_never_reaches_what_it_must_not_know(room: str) -> None:
    begins = {name for name in TREES if room_of(name) == room or name == f"emogen.{room}"}
    reached, waiting = set(begins), list(begins)
    while waiting:
        name = waiting.pop()
        if name not in TREES:
            continue
        # what another room imports when it is called is that room's affair; what it is made of is reached
        found = from_ours(name, early=name not in begins) - {"emogen"}
        if "torch" in NEVER[room]:
            found |= {one.module for one in imports(TREES[name]) if package_of(one.module) == "torch"}
        waiting += found - reached
        reached |= found
    rooms = {room_of(name) if package_of(name) == "emogen" else package_of(name) for name in reached}
    assert not rooms & NEVER[room]


def test_nothing_is_chosen_by_the_second_judge() -> None:
    """It is asked where figures are made, nowhere else; what asks it could be tuned to it."""
    for path in (*(ROOT / "emogen").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        asks = "emogen.ear.second" in {one.module for one in imports(tree)}
        asks |= any(
            node.attr == "second" and isinstance(node.value, ast.Name) and node.value.id in ("ear", "self")
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
        )
        assert not asks or path.parent.name in ("ear", "evaluation"), path


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {
        name: {one.module for one in imports(tree) if package_of(one.module) == "emogen"}
        for name, tree in TREES.items()
        if name != "emogen"  # it imports nothing itself; what it offers, it passes on
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


@pytest.mark.parametrize("name", [name for name in TREES if name.startswith("emogen.cli.")])
def test_a_command_speaks_through_the_consoles_alone(name: str) -> None:
    """They show what others wrote without obeying it, see ``cli.console``."""
    doors = {"print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write", "Console"}
    calls = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)]
    around = [call.lineno for call in calls if ast.unparse(call.func) in doors]
    assert not around or name == "emogen.cli.console"


@pytest.mark.parametrize("name", TREES)
def test_no_function_is_longer_than_60_lines(name: str) -> None:
    functions = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for one in functions:  # neither parameters nor docstrings count
        body = one.body[ast.get_docstring(one) is not None :] or one.body
        assert (one.end_lineno or 0) - body[0].lineno < 60, f"{one.name}, line {one.lineno}"


@pytest.mark.parametrize("name", [name for name in TREES if name.startswith("emogen.cli")])
def test_commands_make_their_tables_and_bars_in_one_place(name: str) -> None:
    calls = {ast.unparse(node.func) for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)}
    assert name == "emogen.cli.console" or "Table" not in calls
    may = ("emogen.cli.console", "emogen.cli.training_screen")  # a training's bar tells more
    assert name in may or "Progress" not in calls


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
