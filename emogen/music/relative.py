"""Pitch in relative coordinates: an interval means the same in every key.

Of the next note's 88 possible pitches each lies at some interval from the top and the bass of the last onset and from
the note before, and is some degree above the chord's root. A network gives scores to these intervals and degrees;
``TABLE`` says which of the scores each pitch gets.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from emogen.music.notes import LOWEST_KEY
from emogen.music.tokens import COLUMN, SIZES, Tokens

KEYS = SIZES[COLUMN.pitch]
REACH = 36
"""Widest interval in semitones that has a score for itself; wider ones share the outermost."""
INTERVALS, DEGREES = 2 * REACH + 2, 13
"""Scores of one interval, and of the degree. The last is for what is not known: it tells no pitch from another."""
NO_ROOT = 12
REFERENCES = 4
"""Top and bass of the last onset before the note's, the note before, the root of the chord."""
NOTHING = (KEYS, KEYS, KEYS, NO_ROOT)
"""References that are not known."""
SCORES = 3 * INTERVALS + DEGREES


def _table() -> npt.NDArray[np.int64]:
    pitch = np.arange(KEYS)
    interval = np.clip(pitch - pitch[:, None], -REACH, REACH) + REACH  # (reference, pitch)
    interval = np.concatenate([interval, np.full((1, KEYS), INTERVALS - 1)])
    degree = (pitch + LOWEST_KEY - np.arange(12)[:, None]) % 12
    degree = np.concatenate([degree, np.full((1, KEYS), DEGREES - 1)])
    padded = np.full((len(interval), KEYS), 0)
    padded[: len(degree)] = degree
    return np.stack([interval, interval + INTERVALS, interval + 2 * INTERVALS, padded + 3 * INTERVALS])


TABLE = _table()
"""(4, 89, 88): for each reference (a key, or none: 88; a root, or none: 12) the score of each pitch."""


def references(notes: Tokens) -> npt.NDArray[np.uint8]:
    """For the notes (T) after the first of rows (T + 1, 4): top and bass of the last onset, the note before, (T, 3).

    Rows without a pitch (the silence before a piece) have no interval: KEYS.
    """
    pitch, count = notes[:, COLUMN.pitch].astype(np.int64), len(notes)
    begins = notes[:, COLUMN.shift] > 0  # of an onset
    begins[0] = True
    first = np.maximum.accumulate(np.where(begins, np.arange(count), 0))  # of the onset of each row
    # a note that begins an onset refers to the onset of the row before; one inside refers to the onset before its own
    last = first[1:] - 1
    known = last >= 0
    last = np.maximum(last, 0)
    top, bass = pitch[last], pitch[first[last]]
    return np.stack([np.where(known, top, KEYS), np.where(known, bass, KEYS), pitch[:-1]], axis=1).astype(np.uint8)
