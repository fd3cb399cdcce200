"""Following a chart: what a network receives of it at each note, and what was played at the same place before.

Only networks that know charts need it (``ModelSettings.chart``); for others ``Drafts.following`` is None.

Shapes: B drafts, F features of a moment (``position.WIDTH``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from emogen.composing.form import Form
from emogen.music import position, recall, relative
from emogen.music.chart import Chart
from emogen.music.harmony import NO_CHORD
from emogen.music.notes import Floats, Ints
from emogen.music.tokens import COLUMN, SHIFT_MS, SILENCE, Tokens

SAME_PLACE_BEATS = 0.07
"""Onsets this near to each other in their sections are at the same place: 35 ms at 120 beats per minute, see
``tokens.CHORD_MS``."""


FAR_MS = 10**9
"""Longer than any piece: the beats of one draft and of the next are that far apart where they are searched together."""
UNHEARD = replace(
    Chart.none(), beats_ms=np.array([0, 1]), place=np.zeros(2, np.int8), root=np.full(2, NO_CHORD, np.int8),
    quality=np.zeros(2, np.int8), section=np.zeros(2, np.int8),
)  # fmt: skip
"""What stands for a chart without beats: its clarity of 0 says nothing."""


class Charts:
    """The charts of B drafts side by side: K beats, of which those beyond a chart's last are copies of it."""

    BY_ROW = ("beats_ms", "count", "place", "root", "chords", "earlier", "per_bar", "clarity", "known", "last_bar_ms")
    """The arrays with a row per draft."""

    def __init__(self, forms: Sequence[Form]) -> None:
        charts = [form.chart if len(form.chart) else UNHEARD for form in forms]
        longest = max(map(len, charts), default=2)

        def padded(rows: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
            return np.stack([row[np.minimum(np.arange(longest), len(row) - 1)] for row in rows])

        self.beats_ms = padded([chart.beats_ms for chart in charts])
        self.count = np.array([len(chart) for chart in charts])
        self.place, self.root = padded([chart.place for chart in charts]), padded([chart.root for chart in charts])
        self.chords = padded([position.chords_around(chart) for chart in charts])
        """(B, K, 2 * position.CHORD)."""
        self.earlier = padded([form.earlier if len(form.earlier) else np.zeros(1, dtype=np.int64) for form in forms])
        """How many beats before each beat (B, K) its section was heard last; 0 for never."""
        self.per_bar = np.array([chart.beats_per_bar for chart in charts])
        self.clarity = np.array([chart.clarity for chart in charts])
        self.known = self.clarity >= position.LEAST_CLARITY
        """Which charts (B,) say something."""
        self.last_bar_ms = np.array(
            [chart.beats_ms[-1] - chart.beats_ms[_last_bar(chart)] if len(chart) else 0 for chart in charts]
        )
        """How long (B,) the last bar of each chart lasts; 0 without bars."""
        self._align()

    def _align(self) -> None:
        """Lay out the beats of all charts in one row, so that they are searched together."""
        rows, beats = self.beats_ms.shape
        self.row = np.arange(rows)[:, None]
        self.apart_ms, self.begins = self.row * FAR_MS, self.row * beats
        self.flat = (self.beats_ms + self.apart_ms).ravel()
        self.last = self.count[:, None] - 2

    def keep(self, rows: Ints) -> None:
        """Go on with some of the charts (indices) only."""
        for name in self.BY_ROW:
            setattr(self, name, getattr(self, name)[rows])
        self._align()

    def index_at(self, times_ms: Floats | Ints) -> Ints:
        """The beat (B, N) from which each time (B, N) is counted, as ``Chart.beat_at`` has it."""
        index = self.flat.searchsorted(times_ms + self.apart_ms, side="right") - 1 - self.begins
        return np.minimum(np.maximum(index, 0), self.last)

    def beat_at(self, times_ms: Floats | Ints, index: Ints | None = None) -> Floats:
        """The beat (B, N), with its fraction, of each time (B, N), as ``Chart.beat_at`` has it; ``index`` if known."""
        index = self.index_at(times_ms) if index is None else index
        start_ms = self.beats_ms[self.row, index].astype(np.float64)
        beat: Floats = index + (times_ms - start_ms) / (self.beats_ms[self.row, index + 1] - start_ms)
        return beat


class Following:
    """The charts of B drafts, and where the drafts stand in them. Rows leave when a draft is done."""

    BY_ROW = (
        "place", "followed", "beat", "top", "bass", "top_before", "bass_before", "landing", "landed_ms", "landing_beat",
        "root", "reach", "reach_ms",
    )  # fmt: skip
    """The arrays with a row per draft."""

    def __init__(self, forms: Sequence[Form], room: int) -> None:
        rows = len(forms)
        self.charts = [form.chart for form in forms]
        self.beside = Charts(forms)
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
        self.reach, self.reach_ms = np.zeros((rows, len(SHIFT_MS))), np.full(rows, -1)
        """The beats (B, 145) on which each shift would land, and the onsets (B,) from which these were found."""

    def keep(self, rows: Ints) -> None:
        """Go on with some of the drafts (indices) only."""
        for name in self.BY_ROW:
            setattr(self, name, getattr(self, name)[rows])
        self.charts = [self.charts[row] for row in rows]
        self.beside.keep(rows)
        self.recall.keep(rows)

    def add(self, notes: Tokens, length: int, onset_ms: Ints) -> None:
        """The drafts' notes (B, room, 4) have become ``length``, the last of them at ``onset_ms`` (B,)."""
        new = length - 1
        if new == self.place.shape[1]:
            self.place, self.followed, self.beat = (
                np.concatenate([a, a], axis=1) for a in (self.place, self.followed, self.beat)
            )
        if (onset_ms != self.landed_ms).any():
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

    def reached(self, onset_ms: Ints) -> Floats:
        """The beats (B, 145) on which each shift after the last onsets (B,) would land."""
        if (onset_ms != self.reach_ms).any():
            self.reach, self.reach_ms = self.beside.beat_at(onset_ms[:, None] + SHIFT_MS), onset_ms
        return self.reach

    def bins(self, onset_ms: Ints) -> npt.NDArray[np.uint8]:
        """On which part of a beat each shift after the last onsets (B,) would land, (B, 145)."""
        reach = self.reached(onset_ms)
        parts = ((reach - np.floor(reach)) * position.PARTS).astype(np.uint8) % position.PARTS
        parts[~self.beside.known] = position.UNKNOWN
        return parts

    def land(self, at_ms: Ints) -> None:
        """The next notes land at these times (B,)."""
        charts, row = self.beside, np.arange(len(at_ms))
        found = charts.index_at(at_ms[:, None])
        beat, index = charts.beat_at(at_ms[:, None], found)[:, 0], found[:, 0]
        number = np.minimum(np.maximum(np.floor(beat), 0), charts.count - 1).astype(np.int64)
        period_ms = (charts.beats_ms[row, index + 1] - charts.beats_ms[row, index]).astype(np.float64)
        place, root = charts.place[row, number], charts.root[row, number]
        self.landing = np.concatenate(
            [position.of_beat(beat, place, period_ms, charts.per_bar, charts.clarity), charts.chords[row, number]],
            axis=1,
        )
        self.landing[~charts.known] = 0
        self.root = np.where((root < 0) | ~charts.known, relative.NO_ROOT, root).astype(np.uint8)
        self.landed_ms, self.landing_beat = at_ms, beat

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

    def returning_shifts(self, onset_ms: Ints, length: int) -> npt.NDArray[np.bool_] | None:
        """Which shifts (B, 145) land where, in the same section before, an onset was; None: nothing can return."""
        if length < 2:
            return None
        landing, last = self.reached(onset_ms), self.beside.earlier.shape[1] - 1
        back = self.beside.earlier[self.beside.row, np.minimum(np.maximum(landing.astype(np.int64), 0), last)]
        if not (back_there := back.any(axis=1)).any():
            return None
        returning = np.zeros(back.shape, dtype=bool)
        for row in np.flatnonzero(back_there).tolist():
            near = _distance(landing[row] - back[row], self.beat[row, 1:length]) < SAME_PLACE_BEATS
            returning[row] = (back[row] > 0) & near
        returning[:, 0] = False
        return returning

    def returning_pitches(self, notes: Tokens, length: int) -> npt.NDArray[np.bool_] | None:
        """Which keys (B, 88) were struck where, in the same section before, the next note lands; None as above."""
        last, beat = self.beside.earlier.shape[1] - 1, self.landing_beat.astype(np.int64)
        back = self.beside.earlier[self.beside.row[:, 0], np.minimum(np.maximum(beat, 0), last)]
        if not back.any():
            return None
        returning = np.zeros((len(back), relative.KEYS), dtype=bool)
        for row in np.flatnonzero(back).tolist():
            there = np.abs(self.beat[row, 1:length] - (self.landing_beat[row] - back[row])) < SAME_PLACE_BEATS
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
