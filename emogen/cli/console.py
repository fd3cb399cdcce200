"""The one door to the terminal: ``console`` (standard error) for progress, messages and reports, ``output`` and
``echo`` (standard output) for what was asked for.

Standard output stays free for what a program may want to read. rich leaves out colour and movement by itself where
NO_COLOR is set or standard error is no terminal. Names, labels and errors are other people's words: what in them would
command a terminal is shown as escapes, whoever prints it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from emogen.system.files import shown


def lines(text: str) -> str:
    """Text of several lines, each as ``shown``."""
    return "\n".join(map(shown, text.split("\n")))


class Door(Console):
    """A console that lets no control character through except rich's own."""

    def render_str(self, text: str, *args: Any, **how: Any) -> Text:
        """A string as rich lays it out: escaped first, so that the columns of a table fit."""
        return super().render_str(lines(text), *args, **how)

    def render(self, *args: Any, **how: Any) -> Iterable[Segment]:
        """Everything printed passes here; control characters in the text are escaped."""
        for segment in super().render(*args, **how):
            yield segment if segment.control else segment._replace(text=lines(segment.text))


console = Door(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 120)
"""Escape names that users chose (``rich.markup.escape``): a file may be called ``song [live].mid``."""

output = Door(highlight=False, width=None if sys.stdout.isatty() else 120)
"""Standard output: the lists and facts of the commands that show them."""


class Step(Protocol):
    """Told how much of something is done, in any unit, and what it is called from now on."""

    def __call__(self, done: float, total: float, what: str = "") -> None:
        """Move the bar."""


@contextmanager
def bar(what: str, *amounts: ProgressColumn, say_once: bool = False) -> Iterator[Step]:
    """A function that shows how much of something is done: a bar on a terminal, nothing elsewhere.

    Nothing is shown before the first step (there may be none), and the bar's thread starts after any worker processes.

    Args:
        what: what is done.
        amounts: what stands to the right of the bar, before the time that remains.
        say_once: where there is no terminal, one line says ``what`` when it begins.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), *amounts, TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task, begun = progress.add_task(what, total=None), False

    def step(done: float, total: float, what: str = "") -> None:
        nonlocal begun
        progress.update(task, completed=done, total=total or None, description=what or None)
        if not begun:
            begun = True
            progress.start()
            if say_once and not console.is_terminal:
                console.print(f"{progress.tasks[0].description} ...")

    try:
        yield step
    finally:
        progress.stop()


def table(*columns: str, header: bool = True) -> Table:
    """A table without lines, columns two spaces apart; the cells of a column called ``>name`` stand to the right."""
    made = Table(box=None, padding=(0, 2, 0, 0), show_header=header)
    for column in columns:
        made.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    return made


def echo(text: str) -> None:
    """Print lines to standard output, neither folded nor coloured: above all JSON."""
    typer.echo(lines(text))
