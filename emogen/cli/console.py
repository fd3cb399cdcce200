"""Two consoles: ``console`` (standard error) for progress, messages and reports, ``output`` for what was asked for.

Standard output stays free for what a program may want to read. rich leaves out colour and movement by itself where
NO_COLOR is set or standard error is no terminal.
"""

from __future__ import annotations

import sys

from rich.console import Console

console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 120)
"""Escape names that people chose (``rich.markup.escape``): a file may well be called ``song [live].mid``."""

output = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
"""Standard output: the lists and facts of the commands that exist to show them."""
