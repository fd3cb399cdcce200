"""What every test finds, whoever starts it: one thread, no settings of a person, a terminal's signals."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emogen import settings
from emogen.cli import main
from emogen.system.signals import ENDING

os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when it is imported, here and in the processes we start
for _name in list(os.environ):  # what rich and Typer take for a terminal, and what a person or torchrun has set
    if _name in {"FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "TERMINAL_WIDTH",
                 "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"} or (
        _name.startswith("EMOGEN_") and _name != settings.TEST_DATA
    ):  # fmt: skip
        del os.environ[_name]

_NO_SOUNDFONTS = str(Path(__file__).with_name("no-soundfonts"))
os.environ.update(XDG_DATA_DIRS=_NO_SOUNDFONTS, XDG_DATA_HOME=_NO_SOUNDFONTS)  # nor those that are installed here
os.environ.pop("HOMEBREW_PREFIX", None)

Run = Callable[..., tuple[int, str, str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow tests come first: where several processes share the tests, none is left with a long one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


USUAL_SIGNALS: dict[int, Any] = {signal.SIGINT: signal.default_int_handler} | dict.fromkeys(ENDING, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Undo what a command has set, where torch is imported at all."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def signals_of_a_terminal() -> Iterator[None]:
    """A job in the background is born with Ctrl-C ignored, and what it starts inherits that. Of the whole session, so
    that fixtures of modules find them too."""
    before = {number: signal.signal(number, handler) for number, handler in USUAL_SIGNALS.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def signals_of_a_terminal_again() -> None:
    """Undo what a command of the test before has set."""
    for number, handler in USUAL_SIGNALS.items():
        signal.signal(number, handler)


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person without settings, in the empty folder ``here``; the user's config would be in ``config``."""
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
