from __future__ import annotations

import io

import pytest
from rich.console import Console

from emogen.cli import console as door
from emogen.cli.console import Door, bar, table


@pytest.fixture
def shown(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a console prints; it is a terminal if the fixture's parameter says so."""
    written = io.StringIO()
    monkeypatch.setattr(door, "console", Door(file=written, force_terminal=request.param, width=80, _environ={}))
    return written


@pytest.mark.parametrize("shown", [True], indirect=True)
def test_on_a_terminal_a_bar_shows_what_is_done(shown: io.StringIO) -> None:
    with bar("reading files") as step:
        step(1, 4)
        step(2, 4, "writing files")
    assert "writing files" in shown.getvalue()
    assert "━" in shown.getvalue()


@pytest.mark.parametrize("shown", [False], indirect=True)
def test_elsewhere_one_line_says_what_is_done_where_that_is_wanted(shown: io.StringIO) -> None:
    for say_once in (False, True):
        with bar("reading files", say_once=say_once) as step:
            for done in range(3):
                step(done, 3)
    assert shown.getvalue() == "reading files ...\n"


@pytest.mark.parametrize("shown", [True, False], indirect=True)
def test_nothing_is_shown_of_what_never_begins(shown: io.StringIO) -> None:
    with bar("reading files", say_once=True):
        pass
    assert shown.getvalue() == ""


def test_numbers_stand_to_the_right() -> None:
    made = table("name", ">notes")
    made.add_row("a", "7")
    made.add_row("b", "1,000")
    written = io.StringIO()
    Console(file=written, width=40).print(made)
    assert [line.rstrip() for line in written.getvalue().splitlines()] == ["name  notes", "a         7", "b     1,000"]
