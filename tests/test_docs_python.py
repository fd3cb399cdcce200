"""The Python of the pages does what they say, and so does the notebook."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from emogen import EMOTIONS
from tests.test_docs import PAGES, ROOT, blocks

NOTEBOOK = ROOT / "docs" / "emogen.ipynb"

WRITES = {
    "README.md": {"cue.mid", "cue.wav"},
    "docs/python.md": {
        "cue.mid",
        "higher.mid",
        "continued.mid",
        *(f"calm/{seed}.mid" for seed in range(100, 104)),
        *(f"music/{emotion}.ogg" for emotion in EMOTIONS),
    },
}
"""The files that the Python of each page writes."""


def run_block(block: str, names: dict[str, Any]) -> int:
    """Run a block; an expression followed by ``# -> value`` must have that value. Returns the number of such values."""
    lines, held = block.splitlines(), 0
    for statement in ast.parse(block).body:
        _, promised, value = lines[(statement.end_lineno or 0) - 1].partition("  # -> ")
        if promised:
            assert isinstance(statement, ast.Expr), "only an expression has a value"
            assert repr(eval(compile(ast.Expression(statement.value), "a page", "eval"), names)) == value
            held += 1
        else:
            exec(compile(ast.Module([statement], []), "a page", "exec"), names)
    return held


def test_a_value_that_does_not_hold_is_found() -> None:
    assert run_block("x = 1\nx  # -> 1\nx + 1  # -> 2", {}) == 2
    with pytest.raises(AssertionError):
        run_block("x = 1\nx  # -> 2", {})


def test_every_page_with_python_is_run() -> None:
    assert {name for name, text in PAGES.items() if blocks(text, "python")} == WRITES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITES)
def test_the_python_of_a_page_runs_and_writes_what_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    held = sum(run_block(block, names) for block in blocks(PAGES[name], "python"))
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")} == WRITES[name]
    told = capsys.readouterr().out
    if name == "docs/python.md":
        assert held == PAGES[name].count("  # -> ") == 4
        assert told.startswith("unknown emotion 'hapy': did you mean 'happy'?")
    else:
        assert not told


def test_the_notebook_holds_no_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) > 5
    assert not [cell.id for cell in cells if cell.outputs or cell.execution_count]


class ThisPython(AsyncKernelManager):
    """Starts the interpreter that runs the tests, whatever kernels are installed on this computer."""

    @property
    def kernel_spec(self) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="this Python", language="python")


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(tmp_path / "jupyter"))
    (tmp_path / "here").mkdir()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("import sys; sys.executable, emogen.__file__"))
    here = {"metadata": {"path": str(tmp_path / "here")}}
    NotebookClient(
        notebook, kernel_manager_class=ThisPython, startup_timeout=600, timeout=600, resources=here
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output.data for output in outputs if output.output_type == "execute_result"]
    players = [data["text/html"] for data in shown if "<audio controls" in data.get("text/html", "")]
    assert len(players) == 3
    assert all('<img alt="Piano roll: ' in html for html in players)
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert [line.split()[0] for line in printed.splitlines()[:6]] == list(EMOTIONS)
    assert "did you mean 'happy'?" in printed
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert shown[-2]["text/plain"] == "(True, 7)"
    assert eval(shown[-1]["text/plain"]) == (sys.executable, str(ROOT / "emogen" / "__init__.py"))
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"sad.mid", "sad.html"}
