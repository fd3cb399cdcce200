"""A piece of piano music in memory: notes in milliseconds, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LOWEST_KEY, HIGHEST_KEY = 21, 108
"""The lowest and highest MIDI pitch of a piano."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """N notes ordered by onset, then pitch; no two notes of one pitch sound at once.

    Every array is int64 of shape (N,). A piece begins at 0 ms, whether or not a note does.
    Make one with ``Piece.of``, which brings loose notes into this form. Pieces with the same notes are equal.
    """

    onset_ms: Ints
    pitch: Ints
    """MIDI pitch, 21..108 on a piano."""
    velocity: Ints
    """1..127."""
    duration_ms: Ints
    """At least 1."""

    @classmethod
    def of(
        cls, onset_ms: npt.ArrayLike, pitch: npt.ArrayLike, velocity: npt.ArrayLike, duration_ms: npt.ArrayLike
    ) -> Self:
        """A piece made of loose notes: sorted, and a note that still sounds when its key is struck again ends there.

        Of several notes with the same pitch and onset the longest is kept (of equally long ones the loudest).
        """
        onset, key, loud, length = (
            np.asarray(a, dtype=np.int64).ravel() for a in (onset_ms, pitch, velocity, duration_ms)
        )
        order = np.lexsort((-loud, -length, onset, key))
        onset, key, loud, length = onset[order], key[order], loud[order], np.maximum(length[order], 1)
        same_key = key[1:] == key[:-1]
        keep = np.ones(len(onset), dtype=bool)
        keep[1:] = ~(same_key & (onset[1:] == onset[:-1]))
        onset, key, loud, length = onset[keep], key[keep], loud[keep], length[keep]
        gap = np.where(key[1:] == key[:-1], onset[1:] - onset[:-1], np.iinfo(np.int64).max)
        length[:-1] = np.minimum(length[:-1], gap)
        order = np.lexsort((key, onset))
        return cls(onset[order], key[order], loud[order], length[order])

    def __len__(self) -> int:
        return len(self.onset_ms)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Piece):
            return NotImplemented
        return all(map(np.array_equal, self.columns, other.columns))

    def __hash__(self) -> int:
        return hash(tuple(column.tobytes() for column in self.columns))

    @property
    def columns(self) -> tuple[Ints, Ints, Ints, Ints]:
        """The four arrays (N,): onset in ms, pitch, velocity, duration in ms."""
        return self.onset_ms, self.pitch, self.velocity, self.duration_ms

    @property
    def end_ms(self) -> int:
        """When the last note is released; 0 for a piece without notes."""
        return int((self.onset_ms + self.duration_ms).max(initial=0))

    def transpose(self, semitones: int) -> Self:
        """The piece in another key; the caller ensures that every pitch stays on the piano."""
        return type(self)(self.onset_ms, self.pitch + semitones, self.velocity, self.duration_ms)

    def stretch(self, factor: float) -> Self:
        """The piece played slower (``factor`` above 1) or faster, onsets and releases alike."""
        onset = np.rint(self.onset_ms * factor).astype(np.int64)
        release = np.rint((self.onset_ms + self.duration_ms) * factor).astype(np.int64)
        return self.of(onset, self.pitch, self.velocity, release - onset)

    def crop(self, start_ms: int, end_ms: int) -> Self:
        """The notes struck in [start_ms, end_ms), released by ``end_ms``, with ``start_ms`` as the new zero."""
        inside = slice(*np.searchsorted(self.onset_ms, (start_ms, end_ms)).tolist())
        onset = self.onset_ms[inside]
        duration = np.minimum(self.duration_ms[inside], end_ms - onset)
        return type(self)(onset - start_ms, self.pitch[inside].copy(), self.velocity[inside].copy(), duration)
