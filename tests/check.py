"""``python -m tests.check``: everything that must hold before a change is kept, with the seconds each step took.

With ``--quick`` lint, types and the tests that are not marked slow: what one runs between two changes.
"""

# ruff: noqa: T201 - this is a command, and speaks to people

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable


def step(name: str, command: Sequence[str | Path], cwd: Path = ROOT, **environment: str) -> None:
    """Run one step; the first that fails ends the check with its exit code."""
    print(f"== {name}", flush=True)
    began_s = time.monotonic()
    code = subprocess.run(command, cwd=cwd, env=os.environ | environment, stdin=subprocess.DEVNULL).returncode
    print(f"== {name}: {'failed, ' * bool(code)}{time.monotonic() - began_s:.1f} s\n", flush=True)
    if code:
        sys.exit(code)


def main(quick: bool) -> None:
    """Lint, types, tests; unless ``quick``, the wheel is built then, installed by itself, and its command run."""
    module = [PYTHON, "-m"]
    step("lint", [*module, "ruff", "check", "."])
    step("format", [*module, "ruff", "format", "--check", "."])
    step("types", [*module, "mypy"])
    tests = [*module, "pytest", "-n", "auto", "--maxprocesses", "4", "--dist", "worksteal"]
    if quick:
        step("tests that are not slow", [*tests, "-m", "not slow"])
        return
    step("tests", tests)
    with TemporaryDirectory() as folder:
        wheels, target = Path(folder, "wheels"), Path(folder, "installed")
        step("wheel builds", [*module, "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, "."])
        (wheel,) = wheels.glob("emogen_piano-*.whl")
        step("wheel installs", [*module, "pip", "install", "--quiet", "--no-deps", "--target", target, wheel])
        # The dependencies come from this environment, emogen itself from the wheel: PYTHONPATH goes before.
        emogen = target / "bin" / "emogen"
        whence = "import emogen, pathlib; assert pathlib.Path(emogen.__file__).is_relative_to(pathlib.Path.cwd())"
        step("wheel is what runs", [PYTHON, "-c", whence], target, PYTHONPATH=str(target))
        step("wheel: emogen --version", [emogen, "--version"], target, PYTHONPATH=str(target))
        step("wheel: emogen --help", [emogen, "--help"], target, PYTHONPATH=str(target))
        compose: list[str | Path] = [emogen, "generate", "--emotion", "calm", "--seconds", "5"]
        step("wheel: a piece by the bundled voice", compose, target, PYTHONPATH=str(target))
        step("wheel: a piece by the open voice", [*compose, "--checkpoint", "open"], target, PYTHONPATH=str(target))
        licensed = (
            "import pathlib; assert pathlib.Path('emogen/voices/open/LICENSE').read_text().startswith('MIT License')"
        )
        step("wheel: the licence of the open voice", [PYTHON, "-c", licensed], target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.check", description="Everything that must hold.")
    parser.add_argument("--quick", action="store_true", help="lint, types, and the tests that are not slow")
    main(parser.parse_args().quick)
