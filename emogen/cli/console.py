"""The one door to the terminal: ``console`` (standard error) for progress, messages and reports, ``output`` and
``echo`` (standard output) for what was asked for.

Standard output stays free for what a program may want to read. rich leaves out colour and movement by itself where
NO_COLOR is set or standard error is no terminal. Names, labels and errors are other people's words: what in them would
command a terminal is shown as escapes, whoever prints it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import typer
from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from emogen.system.files import shown


def lines(text: str) -> str:
    """Text of several lines, each as ``shown``."""
    return "\n".join(map(shown, text.split("\n")))


class Door(Console):
    """A console through which no control character passes but rich's own."""

    def render_str(self, text: str, *args: Any, **how: Any) -> Text:
        """A string as rich lays it out: escaped first, so that the columns of a table fit."""
        return super().render_str(lines(text), *args, **how)

    def render(self, *args: Any, **how: Any) -> Iterable[Segment]:
        """All that is printed passes here; what others made into a text is escaped at last."""
        for segment in super().render(*args, **how):
            yield segment if segment.control else segment._replace(text=lines(segment.text))


console = Door(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 120)
"""Escape names that people chose (``rich.markup.escape``): a file may well be called ``song [live].mid``."""

output = Door(highlight=False, width=None if sys.stdout.isatty() else 120)
"""Standard output: the lists and facts of the commands that exist to show them."""


def echo(text: str) -> None:
    """Lines on standard output as they are, neither folded nor coloured: above all JSON."""
    typer.echo(lines(text))
