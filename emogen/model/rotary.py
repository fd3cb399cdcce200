"""Fixed (not learned) tables: the angles by which attention rotates, and the waves over the time remaining.

Attention rotates a quarter of each query and key by the number of the note, half by its onset in seconds and a quarter
by its pitch (Su et al., "RoFormer", 2021); ``network`` says what for.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from emogen.music.tokens import COLUMN, SIZES

Floats32 = npt.NDArray[np.float32]

BEATS_S, INTERVALS = (0.2, 120.0), (3.0, 176.0)
"""Shortest and longest period of the rotation by time, in seconds, and by pitch, in semitones."""
FAR_S = 32.0
"""All times farther than this from the end look the same, so pieces of any length begin alike."""
WAVES = 8
"""Number of waves over the time remaining, each twice as fast as the one before."""


class Angles(NamedTuple):
    """The angles by which attention rotates the pairs of a head."""

    by_number: Floats32
    """(context_notes, a quarter of the pairs)"""
    by_second: Floats32
    """Per second (half of the pairs,)."""
    by_pitch: Floats32
    """Of the 88 pitches and of "no note" (89, a quarter of the pairs)."""


def angles(head_width: int, context_notes: int, halved: bool = False) -> Angles:
    """The angles for heads of a width. With ``halved`` every other pair is not turned.

    Pairs that are not turned compare notes as they are, however far apart: Barbero et al., "Round and round we go!
    What makes rotary positional encodings useful?" (2025).
    """
    quarter = head_width // 8
    number = np.outer(np.arange(context_notes), 1e4 ** -(np.arange(quarter) / quarter))
    second = frequencies(BEATS_S, head_width // 2 - 2 * quarter)
    pitch = np.outer(np.arange(SIZES[COLUMN.pitch] + 1), frequencies(INTERVALS, quarter))
    if halved:
        for table in (number, second, pitch):
            table[..., 1::2] = 0
    return Angles(number.astype(np.float32), second.astype(np.float32), pitch.astype(np.float32))


def frequencies(periods: tuple[float, float], count: int) -> npt.NDArray[np.float64]:
    """Angular frequencies (count,) of periods spread evenly on a logarithmic scale, the shortest first."""
    return 2 * math.pi / np.geomspace(*periods, count)


OCTAVES = (math.pi * 2.0 ** np.arange(WAVES)).astype(np.float32)
"""Angles (WAVES,) of the waves at the farthest time; at the end of the piece all are 0."""
