"""The songbook: how the bars of real clips go, from which charts for new pieces are made.

Of each clip it keeps tempo, meter and the chords of its whole bars as steps above its tonic: numbers, no melody.
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from emogen.music.chart import Chart
from emogen.music.harmony import NO_CHORD, QUALITIES
from emogen.music.notes import Ints

LEAST_BARS = 4
"""Whole bars that a clip must have to be kept."""


class Progression(BaseModel):
    """The bars of one clip."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tempo_bpm: float
    beats_per_bar: int
    clarity: float
    """0..1: how clear the clip's pulse is, see ``Chart``."""
    chords: tuple[int, ...]
    """Of each beat ``step * len(QUALITIES) + quality``, the step being the root above the tonic, 0..11; or -1."""
    letters: str
    """The section of each bar."""

    @property
    def bars(self) -> int:
        """Whole bars."""
        return len(self.chords) // self.beats_per_bar

    @classmethod
    def of(cls, chart: Chart, tonic: int) -> Progression | None:
        """The whole bars of a chart in the key of a tonic (0 is C); None if there are too few."""
        starts = chart.bar_beats
        lengths = np.diff(np.append(starts, len(chart)))
        whole = np.flatnonzero(lengths == chart.beats_per_bar)
        if len(whole) < LEAST_BARS:
            return None
        beats = (starts[whole][:, None] + np.arange(chart.beats_per_bar)).ravel()
        step = (chart.root[beats].astype(int) - tonic) % 12
        code = np.where(chart.root[beats] == NO_CHORD, -1, step * len(QUALITIES) + chart.quality[beats])
        return cls(
            tempo_bpm=round(chart.tempo_bpm, 2),
            beats_per_bar=chart.beats_per_bar,
            clarity=round(chart.clarity, 3),
            chords=tuple(code.tolist()),
            letters="".join(chart.letters[bar] for bar in whole),
        )

    def in_bars_of(self, beats: int) -> Progression:
        """The same bars with another number of beats."""
        per_bar = self.beats_per_bar
        chords = np.array(self.chords[: self.bars * per_bar]).reshape(self.bars, per_bar)
        kept = chords[:, np.arange(beats) * per_bar // beats].ravel()
        return self.model_copy(update={"beats_per_bar": beats, "chords": tuple(kept.tolist())})

    def bar(self, number: int) -> Ints:
        """The chords of one bar (beats_per_bar,), as ``chords``; beyond the last bar it begins again."""
        first = number % self.bars * self.beats_per_bar
        return np.array(self.chords[first : first + self.beats_per_bar])
