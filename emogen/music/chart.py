"""The chart of a piece: where its beats, bars, chords and sections fall.

``Chart.of(piece)`` hears it from the notes alone, see ``pulse`` and ``harmony``. A chart made by hand or by
``composing`` says where notes shall fall.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from emogen.music.harmony import NO_CHORD, QUALITIES, bars, chords, downbeat_odds, sections, sounds
from emogen.music.measures import TONICS
from emogen.music.notes import Floats, Ints, Piece
from emogen.music.pulse import Onsets, clarity, track

Small = npt.NDArray[np.int8]

CLEAR = 0.3
"""Below this ``clarity`` the pulse counts as unclear: rubato, or a rhythm without beats. All songs of POP909 are above,
two of three clips of EMOPIA, and 30 % of EMOPIA's clips when the times between their onsets are shuffled."""

ROW = np.dtype([("ms", "<i8"), ("place", "i1"), ("root", "i1"), ("quality", "i1"), ("section", "i1")])
"""A beat as ``Chart.rows`` stores it."""


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """K beats of a piece; K is 0 or at least 2.

    The first beat is at or before the first onset, and so perhaps before 0; the last is after the last onset. A
    chord lasts from its beat to the next. Bars begin at downbeats, and at the first beat.
    """

    beats_ms: Ints
    """(K,), rising."""
    place: Small
    """(K,): of each beat in its bar, 0 on downbeats."""
    root: Small
    """(K,): pitch class 0..11 of the chord's root, or ``NO_CHORD`` (-1)."""
    quality: Small
    """(K,): index into ``QUALITIES``; 0 where there is no chord."""
    section: Small
    """(K,): the section of each beat's bar, 0 for A."""
    beats_per_bar: int = 4
    """3 or 4. A bar may be shorter or longer where the music is: see ``place``."""
    clarity: float = 1.0
    """0..1: how regularly notes fall within the beats; see ``CLEAR``."""

    @classmethod
    def of(cls, piece: Piece) -> Chart:
        """The chart heard in a piece; without beats where there are fewer than two onsets, or six hours of music."""
        onsets = Onsets.of(piece)
        beats_ms = track(onsets, piece.end_ms)
        if not len(beats_ms):
            return cls.none()
        chroma, bass = sounds(piece, onsets, beats_ms)
        root, quality = chords(chroma, bass)
        beats_per_bar, place = bars(downbeat_odds(onsets, beats_ms, bass, root, quality))
        section = sections(chroma, _bar_of(place))[_bar_of(place)]
        return cls(beats_ms, place, root, quality, section, beats_per_bar, clarity(piece.onset_ms, beats_ms))

    @classmethod
    def none(cls) -> Chart:
        """The chart of music without a pulse."""
        empty = np.zeros(0, dtype=np.int8)
        return cls(np.zeros(0, dtype=np.int64), empty, empty, empty, empty, 4, 0.0)

    def __len__(self) -> int:
        return len(self.beats_ms)

    @property
    def tempo_bpm(self) -> float:
        """Beats per minute, by the median period; 0 without beats."""
        return 60_000 / float(np.median(np.diff(self.beats_ms))) if len(self) else 0.0

    @property
    def is_clear(self) -> bool:
        """Whether the pulse is clear enough to count on."""
        return self.clarity >= CLEAR

    @property
    def first_downbeat(self) -> int:
        """Index of the first downbeat; K where there is none."""
        down = np.flatnonzero(self.place == 0)
        return int(down[0]) if len(down) else len(self)

    @property
    def bar_of_beat(self) -> Ints:
        """(K,): the bar of each beat, from 0; beats before the first downbeat are a bar too."""
        return _bar_of(self.place)

    @property
    def bar_beats(self) -> Ints:
        """(B,): the beat at which each bar begins."""
        return np.flatnonzero(np.diff(self.bar_of_beat, prepend=-1))

    @property
    def letters(self) -> str:
        """The section of each bar, as in "AABA"; a last beat that begins a bar only ends the one before."""
        begins = self.bar_beats[self.bar_beats < len(self) - 1]
        return "".join(chr(ord("A") + letter) for letter in self.section[begins].tolist())

    def beat_at(self, times_ms: npt.ArrayLike) -> Floats:
        """Position in beats of times of any shape: 2.5 is halfway from beat 2 to beat 3.

        Before the first and after the last beat it goes on with the nearest period. The phase within a beat is the
        position modulo 1. All 0 without beats.
        """
        times = np.asarray(times_ms, dtype=np.float64)
        if not len(self):
            return np.zeros(times.shape)
        beats = self.beats_ms.astype(np.float64)
        index = np.clip(np.searchsorted(beats, times, side="right") - 1, 0, len(beats) - 2)
        position: Floats = index + (times - beats[index]) / (beats[index + 1] - beats[index])
        return position

    def period_at(self, times_ms: npt.ArrayLike) -> Floats:
        """Length in ms of the beat in which each time falls, of any shape; 0 without beats."""
        times = np.asarray(times_ms, dtype=np.float64)
        if not len(self):
            return np.zeros(times.shape)
        index = np.clip(np.searchsorted(self.beats_ms, times, side="right") - 1, 0, len(self) - 2)
        return np.diff(self.beats_ms)[index].astype(np.float64)

    def time_at(self, beats: npt.ArrayLike) -> Floats:
        """Time in ms of positions in beats, of any shape: the inverse of ``beat_at``; 0 without beats."""
        position = np.asarray(beats, dtype=np.float64)
        if not len(self):
            return np.zeros(position.shape)
        index = np.clip(np.floor(position).astype(np.int64), 0, len(self) - 2)
        beats = self.beats_ms.astype(np.float64)
        time: Floats = beats[index] + (position - index) * (beats[index + 1] - beats[index])
        return time

    def index_at(self, times_ms: npt.ArrayLike) -> Ints:
        """The beat in which each time falls, 0..K - 1, of any shape; all 0 without beats."""
        index = np.searchsorted(self.beats_ms, np.asarray(times_ms), side="right") - 1
        return np.clip(index, 0, max(len(self) - 1, 0))

    def chord_at(self, times_ms: npt.ArrayLike) -> tuple[Small, Small]:
        """Root and quality of the chord at times of any shape; ``NO_CHORD`` and 0 without beats."""
        index = self.index_at(times_ms)
        if not len(self):
            return np.full(index.shape, NO_CHORD, dtype=np.int8), np.zeros(index.shape, dtype=np.int8)
        return self.root[index], self.quality[index]

    def transposed(self, semitones: int) -> Chart:
        """The chart in another key."""
        root = np.where(self.root == NO_CHORD, NO_CHORD, (self.root + semitones) % 12).astype(np.int8)
        return replace(self, root=root)

    def stretched(self, factor: float) -> Chart:
        """The chart played slower (``factor`` above 1) or faster, as ``Piece.stretch`` does.

        Raises:
            ValueError: so much faster that two beats fall on one millisecond.
        """
        beats_ms = np.rint(self.beats_ms * factor).astype(np.int64)
        if np.any(np.diff(beats_ms) < 1):
            raise ValueError(f"no beats are left at {factor} of their length")
        return replace(self, beats_ms=beats_ms)

    def crop(self, start_ms: int, end_ms: int) -> Chart:
        """The beats needed for [start_ms, end_ms), with ``start_ms`` as the new zero: at least two, if there are any.

        The first may be before the new zero and the last after the new end.
        """
        if not len(self):
            return self
        first = min(int(self.index_at(start_ms)), len(self) - 2)
        last = max(int(np.searchsorted(self.beats_ms, end_ms)), first + 1)
        kept = slice(first, last + 1)
        return replace(
            self,
            beats_ms=self.beats_ms[kept] - start_ms,
            place=self.place[kept],
            root=self.root[kept],
            quality=self.quality[kept],
            section=self.section[kept],
        )

    def names(self) -> list[str]:
        """The chord of each beat: "Am", "F", "G7", "Bdim", "N" for none."""
        return [
            chord_name(root, quality) for root, quality in zip(self.root.tolist(), self.quality.tolist(), strict=True)
        ]

    def lines(self, bars_per_line: int = 4) -> list[str]:
        """The chords as musicians write them, ``| Am | F | C G | G7 |``: in each bar the chords in their order.

        A chord is written where it begins, and again at the beginning of a bar. A last beat that begins a bar only
        ends the one before.
        """
        names, bar = self.names(), self.bar_of_beat.tolist()
        if len(self) and bar[-1] != bar[-2]:
            names.pop()
        words: list[list[str]] = []
        for beat, name in enumerate(names):
            if not beat or bar[beat] != bar[beat - 1]:
                words.append([name])
            elif name != names[beat - 1]:
                words[-1].append(name)
        cells = [" ".join(chords_of_bar) for chords_of_bar in words]
        return ["| " + " | ".join(cells[at : at + bars_per_line]) + " |" for at in range(0, len(cells), bars_per_line)]

    def rows(self) -> npt.NDArray[np.void]:
        """The beats as an array (K,) of ``ROW``, to be stored; with ``beats_per_bar`` and ``clarity`` it is whole."""
        rows = np.empty(len(self), dtype=ROW)
        columns = (self.beats_ms, self.place, self.root, self.quality, self.section)
        for name, column in zip(ROW.names or (), columns, strict=True):
            rows[name] = column
        return rows

    @classmethod
    def from_rows(cls, rows: npt.NDArray[np.void], beats_per_bar: int, clarity: float) -> Chart:
        """What ``rows`` stored."""
        place, root, quality, section = (np.ascontiguousarray(rows[name]) for name in (ROW.names or ())[1:])
        return cls(rows["ms"].astype(np.int64), place, root, quality, section, beats_per_bar, clarity)


def chord_name(root: int, quality: int) -> str:
    """A chord's name: "Am", "F", "G7", "Bdim"; "N" for none."""
    return "N" if root == NO_CHORD else TONICS[root] + tuple(QUALITIES)[quality]


def _bar_of(place: Small) -> Ints:
    """The bar (K,) of each beat, from 0."""
    bar = np.cumsum(place == 0)
    return bar - bar[0] if len(bar) else bar
