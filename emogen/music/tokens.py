"""A note is four bytes: piece <-> tokens.

A piece becomes an array (N, 4) of uint8, one row per note, one column per family:

==========  ===============================================  =======================================================
family      meaning                                          grid
==========  ===============================================  =======================================================
shift       time since the previous onset                    10 ms to 1 s, 50 ms to 2 s, 250 ms to 8 s: 145 values
pitch       piano key                                        MIDI 21..108: 88 values
velocity    loudness                                         steps of 4: 32 values
duration    from striking the key to its release             10 ms to 0.3 s, then geometric to 16 s: 95 values
==========  ===============================================  =======================================================

Notes struck together are one onset: onsets within ``CHORD_MS`` of a chord's first note are read as that onset, and
the notes of a chord are ordered from bass to top. (The order inside a chord is an accident of the player's fingers
and the transcriber; a model should not have to learn it.) Silences above 8 s are shortened to 8 s. The first shift
counts from the beginning of the piece.

What a network reads is a *window*: rows of a piece, one after the other. Its first row is the note before the window,
or ``SILENCE`` where the window begins the piece; then come its notes; where the piece ends with it, an ``end_row``
follows: the shift that leads to the end of the piece, and no note there. Shorter windows of a batch are filled up with
``SILENCE``. ``is_note`` tells notes from the other two; in these a column without a value has the id ``NO_NOTE``, one
past the last of its family: as an input it has its own embedding, as a target it is ignored.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from emogen.music.notes import HIGHEST_KEY, LOWEST_KEY, Ints, Piece

Tokens = npt.NDArray[np.uint8]
"""(N, 4), columns in the order of ``FAMILIES``."""

CHORD_MS = 35
"""Longest time from a chord's first onset to its others. That the value is best was not measured."""
SPREAD_MS = 6
"""Largest delay of a chord's notes after its first that ``decode`` adds."""

GRID_MS = 10
SHIFT_MS: Ints = np.concatenate([np.arange(0, 1001, GRID_MS), np.arange(1050, 2001, 50), np.arange(2250, 8001, 250)])
DURATION_MS: Ints = np.concatenate(
    [np.arange(10, 301, 10), np.rint(300 * (16_000 / 300) ** (np.arange(1, 66) / 65)).astype(np.int64)]
)
VELOCITY_STEP = 4
VELOCITY: Ints = np.arange(32) * VELOCITY_STEP + VELOCITY_STEP // 2
CATCH_UP = 0.1
"""Largest fraction of a gap used to correct accumulated rounding."""


class Columns(NamedTuple):
    """The column of each family."""

    shift: int = 0
    pitch: int = 1
    velocity: int = 2
    duration: int = 3


COLUMN = Columns()
FAMILIES = COLUMN._fields
SIZES = (len(SHIFT_MS), HIGHEST_KEY - LOWEST_KEY + 1, len(VELOCITY), len(DURATION_MS))
"""Values of each family: (145, 88, 32, 95)."""
NO_NOTE = SIZES
"""The id (of each family) that stands for no value, one past the last."""
SILENCE: Tokens = np.array([NO_NOTE], dtype=np.uint8)
"""The row (1, 4) before a piece's first note, and after a window's last row."""


def end_row(left_ms: float) -> Tokens:
    """The row (1, 4) after a piece's last note: the first shift that reaches the piece's end, ``left_ms`` away.

    An end farther away than the longest shift gets the longest.
    """
    return np.array([[np.searchsorted(SHIFT_MS[:-1], left_ms), *NO_NOTE[1:]]], dtype=np.uint8)


def is_note(rows: Any) -> Any:
    """Which rows (..., 4) of a window are notes, as booleans (...): not silence, not an end; for arrays and tensors."""
    return rows[..., COLUMN.pitch] != NO_NOTE[COLUMN.pitch]


def fingerprint() -> str:
    """Sixteen hex digits that change whenever the meaning of a token changes."""
    parts = [SHIFT_MS, DURATION_MS, VELOCITY, np.array([CHORD_MS, LOWEST_KEY, VELOCITY_STEP, *SIZES])]
    return hashlib.sha256(b"|".join(part.astype("<i8").tobytes() for part in parts)).hexdigest()[:16]


def nearest(grid: Ints, values: npt.ArrayLike) -> Ints:
    """Index of the grid value nearest to each of ``values`` (the lower one in the middle)."""
    return np.searchsorted((grid[1:] + grid[:-1]) / 2, np.asarray(values), side="left")


def encode(piece: Piece) -> Tokens:
    """Tokens (N, 4) of a piece; N is smaller than the piece's where a chord strikes one key twice.

    Quantisation carries its error forward (see ``_shifts``), so onsets never drift.
    """
    if not len(piece):
        return np.zeros((0, 4), dtype=np.uint8)
    chord = chords(piece.onset_ms)
    first = np.flatnonzero(np.diff(chord, prepend=-1))
    order = np.lexsort((-piece.duration_ms, piece.pitch, chord))
    chord, pitch = chord[order], piece.pitch[order]
    keep = np.ones(len(chord), dtype=bool)
    keep[1:] = (chord[1:] != chord[:-1]) | (pitch[1:] != pitch[:-1])
    kept = order[keep]
    chord = chord[keep]

    tokens = np.zeros((len(kept), 4), dtype=np.uint8)
    starts = np.flatnonzero(np.diff(chord, prepend=-1))
    tokens[starts, COLUMN.shift] = _shifts(piece.onset_ms[first])
    tokens[:, COLUMN.pitch] = piece.pitch[kept] - LOWEST_KEY
    tokens[:, COLUMN.velocity] = piece.velocity[kept] // VELOCITY_STEP
    tokens[:, COLUMN.duration] = nearest(DURATION_MS, piece.duration_ms[kept])
    return tokens


def chords(onset_ms: Ints) -> Ints:
    """Index (N,) of the chord of each note: a chord holds the notes struck within CHORD_MS of its first note."""
    after = np.searchsorted(onset_ms, onset_ms + CHORD_MS, side="right").data  # as fast as a list, and smaller
    starts = []
    note = 0
    while note < len(after):  # one step per chord: where one begins depends on where the last one began
        starts.append(note)
        note = after[note]
    chord = np.zeros(len(after), dtype=np.int64)
    chord[starts[1:]] = 1
    return chord.cumsum()


def _shifts(onset_ms: Ints) -> list[int]:
    """Shift of each chord onset (C,).

    The rounding error of a shift is corrected by the next ones, so onsets never drift; after a long silence, whose grid
    is coarse, gradually: an intact rhythm is worth more than its exact position.
    """
    grid, middles = SHIFT_MS.tolist(), ((SHIFT_MS[1:] + SHIFT_MS[:-1]) / 2).tolist()
    late = 0.0  # written minus played
    shifts: list[int] = []
    for gap in np.diff(onset_ms, prepend=0).tolist():
        most = max(GRID_MS / 2, CATCH_UP * gap)
        wanted = gap - min(max(late, -most), most)
        index = bisect_left(middles, wanted)  # 0 for the first chord only: the others are more than CHORD_MS later
        late += grid[index] - min(gap, grid[-1])  # silence beyond the grid is cut
        shifts.append(index)
    return shifts


def onsets_ms(tokens: Tokens) -> Ints:
    """Onset of each note (N,) from the beginning of the tokens."""
    return SHIFT_MS[tokens[:, COLUMN.shift]].cumsum()


def releases_ms(tokens: Tokens) -> Ints:
    """Release of each note (N,) from the beginning of the tokens."""
    return onsets_ms(tokens) + DURATION_MS[tokens[:, COLUMN.duration]]


def decode(tokens: Tokens, spread_seed: int | None = None) -> Piece:
    """The piece that tokens stand for.

    With ``spread_seed`` the notes of a chord after its first are struck up to SPREAD_MS late, as by fingers; their
    releases stay. Velocities then fall anywhere in their step of 4 rather than on its middle.
    """
    onset, release = onsets_ms(tokens), releases_ms(tokens)
    velocity = VELOCITY[tokens[:, COLUMN.velocity]]
    if spread_seed is not None and len(tokens):
        rng = np.random.default_rng(spread_seed)
        late = rng.integers(0, SPREAD_MS + 1, len(tokens))
        late[tokens[:, COLUMN.shift] > 0] = 0
        late[0] = 0
        onset = onset + late
        half = VELOCITY_STEP // 2
        velocity = np.clip(velocity + rng.integers(-half, half, len(tokens)), 1, 127)
    return Piece.of(onset, tokens[:, COLUMN.pitch].astype(np.int64) + LOWEST_KEY, velocity, release - onset)


def on_grid(piece: Piece) -> Piece:
    """The piece as its tokens say it: what was played, transcribed or generated is then alike, chord by chord."""
    return decode(encode(piece))
