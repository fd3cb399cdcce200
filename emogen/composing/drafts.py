"""Drafts: pieces in the making, with their clocks and the keys that are down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from emogen.composing.following import Following
from emogen.composing.legs import form_for
from emogen.composing.originality import Originality
from emogen.composing.steering import Steering
from emogen.composing.wish import Wish
from emogen.music.chart import Chart
from emogen.music.notes import HIGHEST_KEY, LOWEST_KEY, Ints, Piece
from emogen.music.plan import PlanTable
from emogen.music.tokens import COLUMN, DURATION_MS, NO_NOTE, SHIFT_MS, SIZES, chords, decode, encode, nearest

ROOM = 512
"""Notes for which there is room at first; the room doubles when it is full."""
LAST_STRIKE_MS = 250
"""A shift that lands within this time before the end of a piece ends it: a note struck there would hardly sound."""
BEFORE_MS = 60
"""The same before music that is there already."""
AHEAD_MS = 20_000
"""How much longer the network takes a loop to last, so that it does not come to rest."""
RING_MS = 250
"""Notes released within this time before the last release are the last sound, which rings to the exact end."""


@dataclass(frozen=True, eq=False)
class Drawn(Piece):
    """A piece that was drawn, and the chart that it follows, if it follows one."""

    chart: Chart | None = None


class Drafts:
    """B pieces being drawn. After n steps each has n notes; rows leave when their piece is done."""

    BY_ROW = (
        "row", "end_ms", "counted_ms", "last_strike_ms", "notes", "remaining_s", "onset_ms", "release_ms", "held",
        "struck", "given_ms", "pitch",
    )  # fmt: skip
    """The arrays with a row per draft."""

    def __init__(
        self,
        wishes: Sequence[Wish],
        plans: PlanTable,
        opening: Piece | None = None,
        guidance: float = 1.0,
        charted: bool = False,
        known: Originality | None = None,
    ) -> None:  # six: what is wished, how the network that draws is told, and what it must not copy
        """Drafts for wishes, beginning with an opening if there is one.

        Args:
            guidance: see ``SampleSettings.guidance``.
            charted: whether the network knows charts.
            known: the songs that the network was trained on.
        """
        rows = len(wishes)
        self.wishes, self.opening, self.guidance, self.known = wishes, opening, guidance, known
        self.steering = Steering(wishes, plans, charted)
        self.row = np.arange(rows)
        """Which wish (B,) each draft is for."""
        self.end_ms = np.array([round((wish.window_s or (0, wish.seconds))[1] * 1000) for wish in wishes])
        """When each draft (B,) ends."""
        self.counted_ms = np.array([round(wish.seconds * 1000) + AHEAD_MS * wish.loop for wish in wishes])
        """When (B,) the network takes the music to end: a window lies within it, and a loop goes on."""
        self.last_strike_ms = np.array([LAST_STRIKE_MS if wish.window_s is None else BEFORE_MS for wish in wishes])
        self.rngs = [np.random.default_rng(wish.seed) for wish in wishes]
        self.notes = np.zeros((rows, ROOM, 4), dtype=np.uint8)
        """(B, room, 4), of which the first ``length`` are drawn; note 0 is the silence before the piece."""
        self.remaining_s = np.zeros((rows, ROOM), dtype=np.float32)
        """(B, room): at the onset of each of ``notes``."""
        self.length = 0
        self.onset_ms = np.zeros(rows, dtype=np.int64)
        """The onset (B,) of the last note."""
        self.pitch = np.full(rows, NO_NOTE[COLUMN.pitch])
        """The last note's pitch (B,), as an id."""
        self.release_ms = np.zeros((rows, SIZES[COLUMN.pitch]), dtype=np.int64)
        """When each key (B, 88) is released: striking it again ends the note before."""
        self.held = self.notes[:, :, COLUMN.duration].copy()
        """The durations (B, room) of ``notes`` after such endings, as ids."""
        self.struck = np.zeros((rows, SIZES[COLUMN.pitch]), dtype=np.int64)
        """Which of ``notes`` each key (B, 88) played last."""
        self.following: Following | None = None
        if charted:
            self.steering.renew(self.onset_ms, 1, self.rngs)
            self.following = Following(
                [
                    form_for(wish, sources, plans, rng)
                    for wish, sources, rng in zip(wishes, self.steering.sources, self.rngs, strict=True)
                ],
                ROOM,
            )
        self.add(np.full((rows, 4), NO_NOTE), np.zeros(rows, dtype=np.int64))
        self.given_ms = np.zeros((rows, SIZES[COLUMN.pitch]), dtype=np.int64)
        """When the opening releases each key (B, 88)."""
        if opening is not None:
            self._begin_with(opening)
        windows_ms = [round(wish.window_s[0] * 1000) for wish in wishes if wish.window_s]
        if windows_ms:  # all begin together, because the opening does
            self.onset_ms = np.maximum(self.onset_ms, windows_ms)
        self.has_markers = any(wish.markers_s for wish in wishes)
        self.drawn_from, self.drawn_from_ms = self.length, int(self.onset_ms.max(initial=0))
        """The first note that is drawn rather than given, and the onset from which its shift counts."""

    def __len__(self) -> int:
        return len(self.row)

    def _begin_with(self, opening: Piece) -> None:
        """Every draft begins with the same notes. The clock follows their exact onsets, not the grid of tokens."""
        np.maximum.at(self.given_ms.T, opening.pitch - LOWEST_KEY, (opening.onset_ms + opening.duration_ms)[:, None])
        notes, number = encode(opening), chords(opening.onset_ms)
        chord_ms = opening.onset_ms[np.flatnonzero(np.diff(number, prepend=-1))]
        begins_chord = notes[:, COLUMN.shift] > 0
        begins_chord[:1] = True
        onset_ms = chord_ms[begins_chord.cumsum() - 1]
        for note, shift_ms in zip(notes, np.diff(onset_ms, prepend=0), strict=True):
            self.add(np.tile(note, (len(self), 1)), np.full(len(self), shift_ms))

    def add(self, note: npt.NDArray[np.integer], shift_ms: Ints) -> None:
        """Add a note (B, 4) to each draft, ``shift_ms`` (B,) after the last one."""
        if self.length == self.notes.shape[1]:
            for name in ("notes", "remaining_s", "held"):
                full = getattr(self, name)
                setattr(self, name, np.concatenate([full, np.zeros_like(full)], axis=1))
        self.onset_ms = self.onset_ms + shift_ms
        self.pitch = note[:, COLUMN.pitch]
        self.notes[:, self.length] = note
        self.remaining_s[:, self.length] = (self.counted_ms - self.onset_ms) / 1000
        self.held[:, self.length] = note[:, COLUMN.duration]
        if self.length:
            key = np.arange(len(self)), self.pitch
            again = np.flatnonzero(self.release_ms[key] > self.onset_ms)
            before = self.struck[key][again]
            held_s = self.remaining_s[again, before] - self.remaining_s[again, self.length]
            self.held[again, before] = nearest(DURATION_MS, held_s * 1000)
            self.release_ms[key] = self.onset_ms + DURATION_MS[note[:, COLUMN.duration]]
            self.struck[key] = self.length
        self.length += 1
        if self.following:
            self.following.add(self.notes, self.length, self.onset_ms)

    def keep(self, rows: Ints) -> None:
        """Keep only some of the drafts (indices)."""
        for name in self.BY_ROW:
            setattr(self, name, getattr(self, name)[rows])
        self.rngs = [self.rngs[row] for row in rows]
        self.steering.keep(rows)
        if self.following:
            self.following.keep(rows)

    def steer(self) -> None:
        """Renew the plans of passages, and correct them by what the passages lack."""
        self.steering.renew(self.onset_ms, self.length, self.rngs)
        self.steering.correct(self.notes, self.held, self.length)

    @property
    def near_end(self) -> bool:
        """Whether the longest shift would end a draft."""
        return bool((self.onset_ms + SHIFT_MS[-1] > self.end_ms - self.last_strike_ms).any())

    def ends(self, shift_ms: Ints) -> npt.NDArray[np.bool_]:
        """Whether each draft would end with shifts (N,) or (B, 1), as (B, N): they land too late for a sound."""
        return self.onset_ms[:, None] + shift_ms > (self.end_ms - self.last_strike_ms)[:, None]

    def piece(self, row: int) -> Drawn:
        """The finished piece: the opening as it was given, then the drawn notes, the last of which ring to the end."""
        notes = self._notes(row)
        return Drawn(*notes.columns, chart=self.following.charts[row] if self.following else None)

    def _notes(self, row: int) -> Piece:
        drawn = decode(self.notes[row, self.drawn_from : self.length], spread_seed=self.wishes[self.row[row]].seed)
        drawn = replace(drawn, onset_ms=drawn.onset_ms + self.drawn_from_ms)
        end_ms = int(self.end_ms[row])
        if self.wishes[self.row[row]].window_s:
            return beside(drawn.crop(0, end_ms), self.opening) if self.opening else drawn.crop(0, end_ms)
        if self.opening is None:
            return ring(drawn, end_ms)
        drawn = beside(drawn, self.opening)
        if not len(drawn):
            return ring(self.opening, end_ms)
        parts = zip(self.opening.columns, ring(drawn, end_ms).columns, strict=True)
        return Piece.of(*map(np.concatenate, parts))


def beside(drawn: Piece, given: Piece) -> Piece:
    """The drawn notes that leave given ones as they are: no key is struck that a given note still holds."""
    held_ms = np.zeros(HIGHEST_KEY + 1, dtype=np.int64)
    np.maximum.at(held_ms, given.pitch, given.onset_ms + given.duration_ms)
    free = drawn.onset_ms >= held_ms[drawn.pitch]
    return Piece(*(column[free] for column in drawn.columns))


def ring(piece: Piece, end_ms: int) -> Piece:
    """The piece cut at ``end_ms``, with its last sound lengthened to exactly there."""
    release_ms = np.minimum(piece.onset_ms + piece.duration_ms, end_ms)
    release_ms[release_ms >= release_ms.max() - RING_MS] = end_ms
    return Piece.of(piece.onset_ms, piece.pitch, piece.velocity, release_ms - piece.onset_ms)
