"""What every test finds: one thread, and a person without settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emogen import settings
from emogen.cli import main
from emogen.settings import OPTIONS

os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when it is imported, here and in the processes we start

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Undo what a command has set, where torch is imported at all."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person without settings, in the empty folder ``here``; the user's config would be in ``config``."""
    for option in OPTIONS:
        monkeypatch.delenv(settings.variable(option), raising=False)
    monkeypatch.delenv("EMOGEN_HOME", raising=False)
    monkeypatch.setattr(settings, "user_config_path", lambda *_, **__: tmp_path / "config")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    for folder in ("config", "here"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def run(nobody: None, capfd: pytest.CaptureFixture[str]) -> Run:
    """``emogen`` for a person without settings, in an empty folder: exit code, standard output, standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        out, err = capfd.readouterr()
        return int(caught.value.code or 0), out, err

    return call
