"""Runs of notes that pieces have in common, in any key.

``Melodies`` recognises songs in other performances by runs of their melody; ``Memory`` measures how much of a piece is
copied from others note for note. Runs are compared by 64-bit hashes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emogen.data.corpus import Corpus
from emogen.music.notes import Ints
from emogen.music.tokens import COLUMN, SHIFT_MS, Tokens

Hashes = npt.NDArray[np.uint64]

MELODY_NOTES = 13
"""Length in notes of a melody run."""
MELODY_INTERVALS = 4
"""Smallest number of different intervals in a melody run: repeated notes, trills and plain scales do not count."""
MELODY_MS, MELODY_SEMITONES = 400, 5
"""The melody consists of the top notes at most MELODY_SEMITONES below the highest one within MELODY_MS either way."""
COPY_NOTES = 12
"""Length in notes of the runs in ``note_runs``."""
MOST_PLACES = 64
"""Largest number of places of one run that ``Memory.longest`` considers: a more frequent figure is common property."""


def every_run(symbols: Ints, length: int) -> Ints:
    """Each run of ``length`` consecutive symbols of (N,): (N - length + 1, length), a read-only view, may be empty."""
    if len(symbols) < length:
        return np.zeros((0, length), dtype=np.int64)
    return np.lib.stride_tricks.sliding_window_view(symbols, length)


def run_hashes(symbols: Ints) -> Hashes:
    """Hash (R,) of each row of (R, length)."""
    hashed = np.zeros(len(symbols), dtype=np.uint64)
    for column in symbols.T:  # FNV-1a's prime over words, then the finisher of splitmix64
        hashed = (hashed ^ column.astype(np.uint64)) * np.uint64(0x100000001B3)
        hashed ^= hashed >> np.uint64(29)
    hashed *= np.uint64(0xBF58476D1CE4E5B9)
    return hashed ^ (hashed >> np.uint64(32))


def melody(notes: Tokens) -> Ints:
    """Pitches (M,) of the melody of notes (N, 4): the top notes of chords, without those far below their neighbours."""
    struck = np.flatnonzero((notes[:, COLUMN.shift] > 0) | (np.arange(len(notes)) == 0))
    if not len(struck):
        return np.zeros(0, dtype=np.int64)
    top = np.maximum.reduceat(notes[:, COLUMN.pitch].astype(np.int64), struck)
    onset_ms = SHIFT_MS[notes[:, COLUMN.shift]].cumsum()[struck]
    first = np.searchsorted(onset_ms, onset_ms - MELODY_MS)
    last = np.searchsorted(onset_ms, onset_ms + MELODY_MS, side="right")
    bounds = np.stack([first, last], axis=1).ravel()  # highest of each [first, last): reduceat over pairs of bounds
    highest = np.maximum.reduceat(np.append(top, 0), bounds)[::2]
    return top[top >= highest - MELODY_SEMITONES]


def melody_runs(notes: Tokens) -> Hashes:
    """Hashes of the different melody runs of notes (N, 4), independent of the key."""
    top = melody(notes)
    intervals = every_run(top[1:] - top[:-1], MELODY_NOTES - 1)
    kinds = 1 + (np.diff(np.sort(intervals, axis=1), axis=1) != 0).sum(axis=1)
    found: Hashes = np.unique(run_hashes(intervals[kinds >= MELODY_INTERVALS]))
    return found


def note_runs(notes: Tokens) -> Hashes:
    """Hash of each run of COPY_NOTES notes of (N, 4), by intervals and rhythm: (N - COPY_NOTES + 1,), or empty.

    Key, loudness and articulation are ignored. The rhythm is which notes are struck together, and the ratio of each gap
    between onsets to the gap before it, rounded to whole doublings; so it hardly depends on the tempo. It changes with
    the tempo where notes become or cease to be a chord (35 ms), or where a ratio, rounded to the grid (10 ms), crosses
    the middle between two doublings. Of EMOPIA's runs, 83 to 88 % are found again in a piece made 2 to 8 % longer or
    shorter, 98 % in one twice as long, 70 % in one half as long.
    """
    pitch = notes[:, COLUMN.pitch].astype(np.int64)
    gap_ms = SHIFT_MS[notes[1:, COLUMN.shift]]
    struck = np.flatnonzero(gap_ms)
    rhythm = np.zeros(len(gap_ms), dtype=np.int64)
    rhythm[struck[1:]] = 128 + np.rint(np.diff(np.log2(gap_ms[struck])))
    length = COPY_NOTES - 1
    rhythms = every_run(rhythm, length).copy()
    gaps = every_run(gap_ms, length)
    every, first = np.arange(len(gaps)), (gaps > 0).argmax(axis=1)
    rhythms[every, first] = gaps[every, first] > 0  # the gap before the run is not part of it
    return run_hashes((every_run(pitch[1:] - pitch[:-1], length) + 128) * 256 + rhythms)


@dataclass(frozen=True, slots=True)
class Melodies:
    """The melody runs of some songs, to be searched for."""

    runs: Hashes
    """(R,), sorted."""
    song: npt.NDArray[np.int32]
    """(R,): index into ``names`` of a song that has the run."""
    names: list[str]

    @classmethod
    def held_out(cls, corpus: Corpus) -> Melodies:
        """The melodies of a corpus's valid and test songs."""
        clips = np.concatenate([corpus.clips("valid"), corpus.clips("test")])
        found = [melody_runs(corpus.notes(clip)) for clip in clips.tolist()]
        song = np.repeat(corpus.song[clips], [len(one) for one in found])
        together, first = np.unique(np.concatenate([*found, np.zeros(0, dtype=np.uint64)]), return_index=True)
        return cls(together, song[first], corpus.manifest.songs)

    def find(self, notes: Tokens) -> str:
        """Name of a song that shares a melody run with notes (N, 4); empty if there is none."""
        shared = np.flatnonzero(np.isin(self.runs, melody_runs(notes)))
        return self.names[self.song[shared[0]]] if len(shared) else ""


@dataclass(frozen=True, slots=True)
class Memory:
    """Every run of notes of some clips, to find what was copied from them."""

    runs: Hashes
    """(R,), sorted."""
    clip: npt.NDArray[np.int32]
    """(R,): index of the clip that each run is in."""
    position: npt.NDArray[np.int32]
    """(R,): the run's first note in its clip."""

    @classmethod
    def training(cls, corpus: Corpus) -> Memory:
        """The runs of a corpus's training clips; 16 bytes per note."""
        clips = corpus.clips("train")
        found = [note_runs(corpus.notes(clip)) for clip in clips.tolist()]
        together = np.concatenate([*found, np.zeros(0, dtype=np.uint64)])
        clip = np.repeat(clips, [len(one) for one in found]).astype(np.int32)
        position = np.concatenate([np.arange(len(one), dtype=np.int32) for one in [*found, together[:0]]])
        order = np.argsort(together, kind="stable")
        return cls(together[order], clip[order], position[order])

    def share(self, notes: Tokens) -> float:
        """Share, 0..1, of the runs of notes (N, 4) that occur in these clips; 0 for fewer than COPY_NOTES notes."""
        first, last = self._places(note_runs(notes))
        return float((first < last).mean()) if len(first) else 0.0

    def longest(self, notes: Tokens) -> tuple[int, int]:
        """Length in notes of the longest stretch of notes (N, 4) that is copied from one clip, and that clip.

        A stretch is a chain of runs that also follow each other in the clip, so it has at least COPY_NOTES notes; (0,
        -1) if there is none. Of equally long ones the first is returned. Of a run found in more than MOST_PLACES
        places only the first of them count, which bounds the time; a stretch through such a run may come out too
        short.
        """
        first, last = self._places(note_runs(notes))
        count = np.minimum(last - first, MOST_PLACES)
        if not count.any():
            return 0, -1
        own = np.repeat(np.arange(len(count)), count)  # one entry per pair of a run and a place where it is found
        place = np.arange(len(own)) + np.repeat(first - (count.cumsum() - count), count)
        clip, offset = self.clip[place], self.position[place] - own  # runs that follow each other have one offset
        order = np.lexsort((own, offset, clip))
        clip, offset, own = clip[order], offset[order], own[order]
        broken = (np.diff(clip) != 0) | (np.diff(offset) != 0) | (np.diff(own) != 1)
        starts = np.concatenate([[0], np.flatnonzero(broken) + 1])
        lengths = np.diff(starts, append=len(own))
        best = int(lengths.argmax())
        return int(lengths[best]) + COPY_NOTES - 1, int(clip[starts[best]])

    def _places(self, wanted: Hashes) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """First and last position of each of ``wanted`` in ``runs``."""
        return np.searchsorted(self.runs, wanted), np.searchsorted(self.runs, wanted, side="right")
