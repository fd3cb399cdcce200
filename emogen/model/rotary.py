"""The angles by which attention turns, and what the network is told of the time remaining: numbers that no one learns.

Attention turns a quarter of each query and key by the note's number, half by its onset in seconds and a quarter by its
pitch (Su et al., "RoFormer", 2021); ``model`` says what for.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from emogen.music.tokens import COLUMN, SIZES

Floats32 = npt.NDArray[np.float32]

BEATS_S, INTERVALS = (0.2, 120.0), (3.0, 176.0)
"""Shortest and longest period of the rotation by time, in seconds, and by pitch, in semitones."""
FAR_S = 32.0
"""Beyond so many seconds from the end all times are one: "far". Pieces of any length look the same until then."""
WAVES = 8
"""Waves over the time remaining, each twice as fast as the one before."""


def by_number(head_width: int, context_notes: int) -> Floats32:
    """Angles of the notes in their order (context_notes, quarter of the pairs)."""
    quarter = head_width // 8
    return np.outer(np.arange(context_notes), 1e4 ** -(np.arange(quarter) / quarter)).astype(np.float32)


def by_second(head_width: int) -> Floats32:
    """Angles a second (half of the pairs)."""
    return frequencies(BEATS_S, head_width // 2 - 2 * (head_width // 8)).astype(np.float32)


def by_pitch(head_width: int) -> Floats32:
    """Angles of the pitches and of none (89, quarter of the pairs)."""
    return np.outer(np.arange(SIZES[COLUMN.pitch] + 1), frequencies(INTERVALS, head_width // 8)).astype(np.float32)


def frequencies(periods: tuple[float, float], count: int) -> npt.NDArray[np.float64]:
    """Angular frequencies (count,) of periods spread evenly on a logarithmic scale, the shortest first."""
    return 2 * math.pi / np.geomspace(*periods, count)


OCTAVES = (math.pi * 2.0 ** np.arange(WAVES)).astype(np.float32)
"""Angles of the waves at the farthest time; at the end all are 0."""
