"""Where a moment lies in a chart: its place in the beat and the bar, and the chords there, as a network reads them.

A note can be struck at 145 shifts after the last onset. In milliseconds each of these means something else at every
tempo; by the part of the beat on which it lands, rhythm is the same at all of them. ``bins`` says for each shift on
which of 48 parts of a beat it would land, so that a network can give scores to those parts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from emogen.music.chart import Chart
from emogen.music.harmony import NO_CHORD, QUALITIES
from emogen.music.notes import Floats, Ints
from emogen.music.tokens import SHIFT_MS

PARTS = 48
"""Parts of a beat: each 10 ms long at 125 beats per minute, and even for halves, thirds, quarters and sixths."""
UNKNOWN = PARTS
"""The bin of every shift where the beat is not known."""
NEAR = 6
"""Parts on either side that are near a part: an eighth of a beat, so that sixteenths and triplets are apart."""
NEIGHBOURS = (np.arange(PARTS)[:, None] + np.arange(-NEAR, NEAR + 1)) % PARTS
"""The parts (48, 13) near each part, and itself."""
WAVES = (1, 2, 4)
"""Waves per beat that tell its phase."""
BEAT = 2 + 2 * len(WAVES) + 1 + 3
"""Features of the beat: known, its clarity, waves, log period, a wave per bar, whether the bar has three beats."""
CHORD = 1 + 12 + 12
"""Features of a chord: known, its pitch classes, its root."""
WIDTH = BEAT + 2 * CHORD
"""Features of a moment: the beat, the chord now and the chord at the next beat."""
PERIOD_MS = 500.0
"""The period of the beat whose logarithm is 0."""
LEAST_CLARITY = 0.1
"""Below this clarity (see ``Chart``) a chart tells nothing."""

CLASSES = np.zeros((len(QUALITIES) + 1, 12), dtype=np.float32)
"""The pitch classes above the root of each quality, and of no chord (the last row)."""
for _row, _tones in enumerate(QUALITIES.values()):
    CLASSES[_row, list(_tones)] = 1


class Moments(NamedTuple):
    """What a chart says of T moments."""

    features: npt.NDArray[np.float32]
    """(T, WIDTH); all zeros where nothing is known."""
    root: npt.NDArray[np.uint8]
    """(T,): root of the chord, 0 (C) to 11 (B); 12 for none."""


def at(chart: Chart, times_ms: npt.NDArray[np.integer], stretch: float = 1.0) -> Moments:
    """What a chart says of moments (T,); with ``stretch`` as of music played that much slower than the chart."""
    count = len(times_ms)
    features = np.zeros((count, WIDTH), dtype=np.float32)
    if chart.clarity < LEAST_CLARITY:
        return Moments(features, np.full(count, 12, dtype=np.uint8))
    beat = chart.beat_at(times_ms)
    number = np.clip(np.floor(beat), 0, len(chart) - 1).astype(np.int64)
    period_ms = chart.period_at(times_ms) * stretch
    features[:, :BEAT] = of_beat(beat, chart.place[number], period_ms, chart.beats_per_bar, chart.clarity)
    features[:, BEAT:] = chords_around(chart)[number]
    return Moments(features, np.where(chart.root < 0, 12, chart.root)[number].astype(np.uint8))


def of_beat(
    beat: Floats, place: npt.NDArray[np.int8], period_ms: Floats, beats_per_bar: int | Ints, clarity: float | Floats
) -> npt.NDArray[np.float32]:
    """The features (N, BEAT) of moments on beats (N,), with their fractions; the other arguments are of these beats."""
    features = np.empty((len(beat), BEAT), dtype=np.float32)
    angle = 2 * np.pi * np.outer(beat, WAVES)
    in_bar = 2 * np.pi * (place + beat - np.floor(beat)) / beats_per_bar
    features[:, 0], features[:, 1] = 1, clarity
    features[:, 2 : 2 + len(WAVES)], features[:, 2 + len(WAVES) : 2 + 2 * len(WAVES)] = np.cos(angle), np.sin(angle)
    features[:, BEAT - 4] = np.log2(period_ms / PERIOD_MS)
    features[:, BEAT - 3], features[:, BEAT - 2] = np.cos(in_bar), np.sin(in_bar)
    features[:, BEAT - 1] = np.asarray(beats_per_bar) == 3
    return features


def chords_around(chart: Chart) -> npt.NDArray[np.float32]:
    """The features (K, 2 * CHORD) of the chord at each beat and at the next."""
    now = chords(chart.root, chart.quality)
    return np.concatenate([now, now[np.minimum(np.arange(len(now)) + 1, len(now) - 1)]], axis=1)


def chords(root: npt.NDArray[np.int8], quality: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    """The features of chords (T,), as ``Chart`` has them: (T, CHORD)."""
    there = root != NO_CHORD
    above = CLASSES[np.where(there, quality, len(QUALITIES))]
    classes = np.take_along_axis(above, (np.arange(12) - root[:, None]) % 12, axis=1)
    roots = np.eye(13, dtype=np.float32)[np.where(there, root, 12), :12]
    return np.concatenate([np.ones((len(root), 1), dtype=np.float32), classes, roots], axis=1)


def bins(chart: Chart, times_ms: npt.NDArray[np.integer], stretch: float = 1.0) -> npt.NDArray[np.uint8]:
    """On which part of a beat each shift after moments (T,) would land, (T, 145); UNKNOWN without a pulse.

    With ``stretch`` the shifts are those of music that is played that much slower than the chart.
    """
    if chart.clarity < LEAST_CLARITY:
        return np.full((len(times_ms), len(SHIFT_MS)), UNKNOWN, dtype=np.uint8)
    landing = chart.beat_at(np.asarray(times_ms)[:, None] + SHIFT_MS / stretch)
    return ((landing - np.floor(landing)) * PARTS).astype(np.uint8) % PARTS
