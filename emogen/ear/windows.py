"""Windows: pieces are heard in parts of one length, so that short and long ones are comparable."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from emogen.music.notes import Ints, Piece

MOST_WINDOWS = 600
"""An hour of music in windows that begin 6 s apart; what is longer is heard in parts, so hearing stays quick."""


def windows(piece: Piece, length_s: int, every_s: float) -> Iterator[Piece]:
    """The windows of ``length_s`` that cover a piece from its first onset to its last, with at least one note.

    They are evenly spread, as few as begin at most ``every_s`` apart, but no more than MOST_WINDOWS. A piece shorter
    than a window is one by itself. Put the piece on the grid first (``tokens.on_grid``): long silences are then cut,
    so no window is empty.
    """
    first, last = int(piece.onset_ms[0]), int(piece.onset_ms[-1]) + 1
    length_ms = 1000 * length_s
    number = min(max(1 - int((last - first - length_ms) // (-1000 * every_s)), 1), MOST_WINDOWS)
    for start_ms in np.linspace(first, max(last - length_ms, first), number).astype(int).tolist():
        yield piece.crop(start_ms, start_ms + length_ms)


def chord_starts(piece: Piece) -> Ints:
    """Index (C,) of the lowest note of each chord of a piece on the grid, where a chord's notes have one onset."""
    return np.flatnonzero(np.diff(piece.onset_ms, prepend=-1))
