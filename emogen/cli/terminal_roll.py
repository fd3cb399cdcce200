"""A piano roll for the terminal: two keys or more per line, as wide as the window."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console
from rich.style import Style
from rich.text import Text

from emogen.errors import EmogenError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from emogen.music.notes import Piece

HALVES = " ▄▀█"
"""The characters for neither key, the lower key, the upper key, both."""
ASCII_HALVES = " .':"
FEWEST_LINES, MOST_LINES = 6, 36
NARROW = 30
"""In narrower windows the octaves are not named."""


def roll(piece: Piece, console: Console, beside_lines: int = 0) -> Text:
    """The roll of a piece, octaves on the left and seconds below, for a console and what it can show.

    It leaves ``beside_lines`` lines of the window free where that is possible.

    Raises:
        EmogenError: the piece has no notes.
    """
    if not len(piece):
        raise EmogenError("a piece without notes has no picture")
    from emogen.sound.picture import key_range

    width = max(1, min(console.width, 160) - 1)  # the last column stays free: some terminals would wrap the line
    gutter = 4 if console.width >= NARROW else 0
    low, high = key_range(piece)
    room = console.height - beside_lines - 2 if console.is_terminal else MOST_LINES
    most = max(FEWEST_LINES, min(MOST_LINES, room))
    keys_a_half = -(-(high - low + 1) // (2 * most))
    halves = -(-(high - low + 1) // keys_a_half)
    grid = _grid(piece, low, keys_a_half, halves + halves % 2, width - gutter)
    symbols = HALVES if _can_show(console, HALVES) else ASCII_HALVES
    coloured = console.color_system is not None and not console.no_color
    text = Text(no_wrap=True, overflow="crop")
    for line in range(len(grid) // 2 - 1, -1, -1):
        if gutter:
            first, last = (low + keys_a_half * half for half in (2 * line, 2 * line + 2))
            octave = next((f"C{key // 12 - 1}" for key in range(first, last) if key % 12 == 0), "")
            text.append(f"{octave:<{gutter}}", "dim" if coloured else "")
        halves_of = zip(grid[2 * line].tolist(), grid[2 * line + 1].tolist(), strict=True)
        for (lower, upper), same in groupby(halves_of):
            symbol, style = _cell(lower, upper, symbols, coloured)
            text.append(symbol * len(list(same)), style)
        text.append("\n")
    text.append(" " * gutter + _seconds(piece.end_ms / 1000, width - gutter), "dim" if coloured else "")
    return text


def _can_show(console: Console, symbols: str) -> bool:
    try:
        symbols.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _grid(piece: Piece, low: int, keys_a_half: int, halves: int, columns: int) -> npt.NDArray[np.int64]:
    """The loudest velocity (halves, columns) that sounds in each half of a character, from the lowest keys up; else 0.

    The last of three columns or more that a note takes stays free, so that a key struck again is seen to be.
    """
    import numpy as np

    grid = np.zeros((halves, columns), dtype=np.int64)
    start = np.minimum(piece.onset_ms * columns // piece.end_ms, columns - 1)
    stop = np.maximum((piece.onset_ms + piece.duration_ms) * columns // piece.end_ms, start + 1)
    stop -= stop - start > 2
    half = (piece.pitch - low) // keys_a_half
    for row, left, right, velocity in zip(
        half.tolist(), start.tolist(), stop.tolist(), piece.velocity.tolist(), strict=True
    ):
        cells = grid[row, left:right]
        np.maximum(cells, velocity, out=cells)
    return grid


def _cell(lower: int, upper: int, symbols: str, coloured: bool) -> tuple[str, Style | None]:
    """One character: the velocities of its two halves, 0 where nothing sounds."""
    symbol = symbols[(lower > 0) + 2 * (upper > 0)]
    if not coloured or not (lower or upper):
        return symbol, None
    if lower and upper and symbols == HALVES:
        return symbols[2], Style.parse(f"{_colour(upper)} on {_colour(lower)}")
    return symbol, Style.parse(_colour(max(lower, upper)))


def _colour(velocity: int) -> str:
    """The colour of a velocity, as rich writes it."""
    from emogen.sound.picture import velocity_colour

    return "#" + "".join(f"{part:02x}" for part in velocity_colour(velocity))


def _seconds(end_s: float, columns: int) -> str:
    """The marks below a roll of that many columns."""
    from emogen.sound.picture import time_ticks

    line = ""
    for mark_s, words in time_ticks(end_s, most=max(1, columns // 10)):
        at = int(mark_s / end_s * columns)
        if at >= len(line) + bool(line) and at + len(words) <= columns:
            line = line.ljust(at) + words
    return line + " s" if end_s <= 120 and len(line) + 2 <= columns else line
