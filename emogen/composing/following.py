"""Following a chart: what a network receives of it at each note, and what was played at the same place before.

Only networks that know charts need it (``ModelSettings.chart``); for others ``Drafts.following`` is None.

Shapes: B drafts, F features of a moment (``position.WIDTH``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from emogen.composing.form import Form
from emogen.music import position, recall, relative
from emogen.music.chart import Chart
from emogen.music.notes import Floats, Ints
from emogen.music.tokens import COLUMN, SHIFT_MS, SILENCE, Tokens

SAME_PLACE_BEATS = 0.07
"""Onsets this near to each other in their sections are at the same place: 35 ms at 120 beats per minute, see
``tokens.CHORD_MS``."""


class Following:
    """The charts of B drafts, and where the drafts stand in them. Rows leave when a draft is done."""

    def __init__(self, forms: Sequence[Form], room: int) -> None:
        rows = len(forms)
        self.charts = [form.chart for form in forms]
        self.earlier = [form.earlier for form in forms]
        """Of each chart (K,) how many beats before each beat its section was heard last; 0 for never."""
        self.recall = recall.Recall(rows)
        self.place = np.zeros((rows, room, position.WIDTH), dtype=np.float32)
        """What the charts say of each note (B, room, F)."""
        self.followed = np.tile(np.append(SILENCE, [[0]], axis=1).astype(np.uint8), (rows, room, 1))
        """(B, room, 5): what followed each note's longest earlier match, see ``Batch.followed``."""
        self.beat = np.zeros((rows, room))
        """The beat (B, room) on which each note was struck, with its fraction."""
        self.top, self.bass, self.top_before, self.bass_before = np.full((4, rows), relative.KEYS)
        """Highest and lowest key (B,) of the last onset, and of the one before."""
        self.landing = np.zeros((rows, position.WIDTH), dtype=np.float32)
        """What the charts say of where the next note lands (B, F), see ``land``."""
        self.landed_ms = np.full(rows, -1)
        """When (B,) it lands."""
        self.landing_beat = np.zeros(rows)
        """The beat (B,) on which it lands."""
        self.root = np.full(rows, relative.NO_ROOT, dtype=np.uint8)
        """The root (B,) of the chord there."""

    def keep(self, rows: Ints) -> None:
        """Go on with some of the drafts (indices) only."""
        for name in ("place", "followed", "beat", "top", "bass", "top_before", "bass_before", "landing", "root"):
            setattr(self, name, getattr(self, name)[rows])
        self.landing_beat, self.landed_ms = self.landing_beat[rows], self.landed_ms[rows]
        self.charts, self.earlier = [self.charts[row] for row in rows], [self.earlier[row] for row in rows]
        self.recall.keep(rows)

    def add(self, notes: Tokens, length: int, onset_ms: Ints) -> None:
        """The drafts' notes (B, room, 4) have become ``length``, the last of them at ``onset_ms`` (B,)."""
        new = length - 1
        if new == self.place.shape[1]:
            self.place, self.followed, self.beat = (
                np.concatenate([a, a], axis=1) for a in (self.place, self.followed, self.beat)
            )
        if not np.array_equal(onset_ms, self.landed_ms):
            self.land(onset_ms)
        self.place[:, new], self.beat[:, new] = self.landing, self.landing_beat
        self.followed[:, new, :4], self.followed[:, new, 4] = SILENCE, 0
        if not new:  # the silence before the piece
            return
        pitch = notes[:, new, COLUMN.pitch].astype(np.int64)
        begins = (notes[:, new, COLUMN.shift] > 0) | (new == 1)
        self.top_before = np.where(begins, self.top, self.top_before)
        self.bass_before = np.where(begins, self.bass, self.bass_before)
        self.top, self.bass = pitch, np.where(begins, pitch, self.bass)
        self.recall.add(pitch)
        end, matched = self.recall.latest()
        known = np.flatnonzero(end >= 0)
        self.followed[known, new, :4] = notes[known, end[known] + 2]  # after the match; note 0 is the silence
        self.followed[known, new, 4] = recall.BUCKET[matched[known]]

    def bins(self, onset_ms: Ints) -> npt.NDArray[np.uint8]:
        """On which part of a beat each shift after the last onsets (B,) would land, (B, 145)."""
        return np.concatenate([position.bins(chart, onset_ms[row : row + 1]) for row, chart in enumerate(self.charts)])

    def land(self, at_ms: Ints) -> None:
        """The next notes land at these times (B,)."""
        self.landed_ms = at_ms
        for row, chart in enumerate(self.charts):
            moment = position.at(chart, at_ms[row : row + 1])
            self.landing[row], self.root[row] = moment.features[0], moment.root[0]
            self.landing_beat[row] = chart.beat_at(at_ms[row])

    @property
    def last_bar_ms(self) -> Ints:
        """How long (B,) the last bar of each chart lasts; 0 without bars."""
        return np.array(
            [chart.beats_ms[-1] - chart.beats_ms[_last_bar(chart)] if len(chart) else 0 for chart in self.charts]
        )

    def changes_ms(self, at_ms: Ints, pitch: Ints) -> Floats:
        """When, after times (B,), the first chord begins that a pitch (B,) does not belong to; infinity for never."""
        found = np.full(len(self.charts), np.inf)
        for row, chart in enumerate(self.charts):
            after = np.arange(int(chart.index_at(at_ms[row])) + 1, len(chart) - 1)
            classes = position.CLASSES[chart.quality[after], (pitch[row] - chart.root[after]) % 12]
            foreign = after[(classes == 0) & (chart.root[after] >= 0)]
            if len(foreign):
                found[row] = chart.beats_ms[foreign[0]]
        return found

    def references(self, shift: Ints, pitch: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """From what the next pitches are intervals and degrees (B, 4), after shifts (B,) and the last pitches (B,)."""
        begins = shift > 0
        top, bass = np.where(begins, self.top, self.top_before), np.where(begins, self.bass, self.bass_before)
        return np.stack([top, bass, pitch, self.root], axis=1).astype(np.uint8)

    def played_before(self, row: int, length: int) -> tuple[Floats, Ints]:
        """The beats of a draft's notes so far (N,), and how many beats before each beat of its chart (K,) the same
        section was heard."""
        return self.beat[row, 1:length], self.earlier[row]

    def returning_shifts(self, onset_ms: Ints, length: int) -> npt.NDArray[np.bool_]:
        """Which shifts (B, 145) land where, in the same section before, an onset was."""
        returning = np.zeros((len(self.charts), len(SHIFT_MS)), dtype=bool)
        for row, chart in enumerate(self.charts):
            beats, earlier = self.played_before(row, length)
            if not len(beats) or not earlier.any():
                continue
            landing = chart.beat_at(onset_ms[row] + SHIFT_MS)
            back = earlier[np.clip(landing.astype(np.int64), 0, len(earlier) - 1)]
            returning[row] = (back > 0) & (_distance(landing - back, beats) < SAME_PLACE_BEATS)
        returning[:, 0] = False
        return returning

    def returning_pitches(self, notes: Tokens, length: int) -> npt.NDArray[np.bool_]:
        """Which keys (B, 88) were struck where, in the same section before, the next note lands."""
        returning = np.zeros((len(self.charts), relative.KEYS), dtype=bool)
        for row in range(len(self.charts)):
            beats, earlier = self.played_before(row, length)
            back = earlier[min(max(int(self.landing_beat[row]), 0), len(earlier) - 1)] if len(earlier) else 0
            if back:
                there = np.abs(beats - (self.landing_beat[row] - back)) < SAME_PLACE_BEATS
                returning[row, notes[row, 1:length][there, COLUMN.pitch]] = True
        return returning


def _last_bar(chart: Chart) -> int:
    """The beat at which the last bar begins; a last beat that begins a bar only ends the one before."""
    begins = chart.bar_beats[chart.bar_beats < len(chart) - 1]
    return int(begins[-1])


def _distance(values: Floats, rising: Floats) -> Floats:
    """How far each value is from the nearest of some rising ones, at least one."""
    after = np.searchsorted(rising, values)
    above, below = np.minimum(after, len(rising) - 1), np.maximum(after - 1, 0)
    nearest: Floats = np.minimum(np.abs(rising[above] - values), np.abs(rising[below] - values))
    return nearest
