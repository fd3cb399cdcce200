"""Craft: has a piece a pulse, does anything return, which chords does it use and how does its top line move?

Four kinds of measure, and a disturbance for each that breaks what it measures and leaves the rest intact. What real
clips give, and what they give when disturbed, says how well a measure tells; ``docs/evaluating.md`` has the figures.

=======  ============================================  ==================================================
kind     measured                                      disturbed by
=======  ============================================  ==================================================
pulse    entropy of the phases of notes within beats   times: the times between onsets in random order
returns  best likeness of the piece to itself, later   bars: the bars in random order
harmony  qualities of chords, their changes            detuned: notes a semitone off, see ``coherence``
melody   steps, repeats and leaps of the top line      shuffled: pitches in random order, see ``coherence``
=======  ============================================  ==================================================

Beats and chords are those that ``Chart.of`` hears. Returns: the autocorrelation of chroma over the onsets, after the
similarity matrices of J. Foote, "Visualizing music and audio using self-similarity", ACM Multimedia 1999.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from emogen.ear import coherence
from emogen.music.chart import Chart
from emogen.music.harmony import NO_CHORD, QUALITIES
from emogen.music.notes import Floats, Ints, Piece
from emogen.music.pulse import BINS, clarity

DISTURBED = {"pulse": "times", "returns": "bars", "harmony": "detuned", "melody": "shuffled"}
"""The disturbance that should hurt each kind of measure."""

FRAME_MS = 100
"""Resolution of the chroma in ``returns``."""
LATER_MS = 4000
"""What returns sooner is a figure that is repeated; as much music must overlap to count."""
BLUR = np.exp(-0.5 * np.arange(-3, 4) ** 2.0)
"""An onset counts for its frame and, less, for those beside it, so that rubato costs little."""
STEP = 2
"""Semitones of the largest step of a melody; more is a leap."""
DOMINANT = (tuple(QUALITIES).index(""), tuple(QUALITIES).index("7"))
"""The qualities of a chord that leads a fifth down to its tonic."""
FIFTH_DOWN = 5


@dataclass(frozen=True, slots=True)
class Craft:
    """The measures of a piece; each is NaN where there is too little music to say."""

    pulse: float
    """Entropy in bits, 0..4.58, of the notes' phases in 24 parts of their beats: low where rhythm keeps to the beat."""
    returns: float
    """Best cosine, 0..1, of the onsets' chroma with itself 4 s or more later."""
    chords_per_bar: float
    """Changes of the chord per bar."""
    triads: float
    """Share, 0..1, of the beats with a chord that have a major or minor triad; so the following."""
    sevenths: float
    """7, maj7 and m7."""
    altered: float
    """Diminished and augmented."""
    suspended: float
    dominants: float
    """Share, 0..1, of the changes of the chord that lead from a major or dominant-seventh chord a fifth down."""
    steps: float
    """Share, 0..1, of the movements of the top line by one or two semitones; so the following."""
    repeats: float
    """By none."""
    leaps: float
    """By more."""


NAMES = tuple(field.name for field in fields(Craft))
KIND = dict.fromkeys(NAMES, "harmony") | {"pulse": "pulse", "returns": "returns"}
KIND |= dict.fromkeys(("steps", "repeats", "leaps"), "melody")
"""The kind of each measure, which tells its disturbance."""


def craft(piece: Piece) -> Craft:
    """The measures of a piece on the grid (``tokens.on_grid``), where the notes of a chord have one onset."""
    chart = Chart.of(piece)
    return Craft(pulse(piece, chart), returns(piece), *_harmony(chart), *_melody(piece))


def of_kind(piece: Piece, kind: str) -> tuple[float, ...]:
    """The measures of one kind alone, in their order; ``craft`` gives all."""
    if kind == "returns":
        return (returns(piece),)
    if kind == "melody":
        return tuple(_melody(piece).tolist())
    chart = Chart.of(piece)
    return (pulse(piece, chart),) if kind == "pulse" else tuple(_harmony(chart).tolist())


def pulse(piece: Piece, chart: Chart) -> float:
    """See ``Craft.pulse``."""
    return (1 - clarity(piece.onset_ms, chart.beats_ms)) * float(np.log2(BINS)) if len(chart) else np.nan


def returns(piece: Piece) -> float:
    """See ``Craft.returns``; NaN for less than 8 s between the first and the last onset."""
    if not len(piece):
        return np.nan
    frame = (piece.onset_ms - piece.onset_ms[0]) // FRAME_MS
    frames, later = int(frame[-1]) + 1, LATER_MS // FRAME_MS
    if frames < 2 * later:
        return np.nan
    struck = np.zeros((12, frames))
    np.add.at(struck, (piece.pitch % 12, frame), 1.0)
    chroma = np.array([np.convolve(row, BLUR, "same") for row in struck])
    spectrum = np.fft.rfft(chroma, 2 * frames)  # long enough not to wrap around
    lag = np.arange(later, frames - later + 1)
    alike = np.fft.irfft((np.abs(spectrum) ** 2).sum(0), 2 * frames)[lag]
    energy = np.concatenate([[0.0], (chroma**2).sum(0).cumsum()])
    size = np.sqrt(energy[frames - lag] * (energy[frames] - energy[lag]))
    return float((alike / np.maximum(size, 1e-9)).max())


def _harmony(chart: Chart) -> Floats:
    """From chords_per_bar to dominants (6,)."""
    if not len(chart):
        return np.full(6, np.nan)
    root, quality = chart.root[:-1].astype(np.int64), chart.quality[:-1].astype(np.int64)
    there = root != NO_CHORD
    if not there.any():
        return np.full(6, np.nan)
    share = dict(zip(QUALITIES, np.bincount(quality[there], minlength=len(QUALITIES)) / there.sum(), strict=True))
    change = 1 + np.flatnonzero((np.diff(root) != 0) | (np.diff(quality) != 0))
    leads = there[change] & there[change - 1]
    down = (root[change] - root[change - 1]) % 12 == FIFTH_DOWN
    dominant = leads & down & np.isin(quality[change - 1], DOMINANT)
    return np.array(
        [
            len(change) * chart.beats_per_bar / len(root),
            share[""] + share["m"],
            share["7"] + share["maj7"] + share["m7"],
            share["dim"] + share["aug"],
            share["sus"],
            dominant.sum() / leads.sum() if leads.any() else np.nan,
        ]
    )


def _melody(piece: Piece) -> Floats:
    """From steps to leaps (3,)."""
    moved = np.abs(np.diff(top_line(piece)))
    if not len(moved):
        return np.full(3, np.nan)
    return np.array([((moved > 0) & (moved <= STEP)).mean(), (moved == 0).mean(), (moved > STEP).mean()])


def top_line(piece: Piece) -> Ints:
    """The highest pitch (C,) of each chord of a piece on the grid."""
    last = np.flatnonzero(np.diff(piece.onset_ms, append=-1))
    return piece.pitch[last]


def disturbed(piece: Piece, kind: str) -> Piece:
    """A copy of a piece with the same notes, or as many, disturbed in one of the ways of ``DISTURBED``.

    The same piece always gives the same copy.

    Raises:
        ValueError: no such disturbance.
    """
    rng = np.random.default_rng(len(piece))
    if kind not in DISTURBED.values():
        raise ValueError(f"no disturbance '{kind}', only {', '.join(DISTURBED.values())}")
    if not len(piece):
        return piece
    if kind == "times":
        onset, chord = np.unique(piece.onset_ms, return_inverse=True)
        drawn = onset[0] + np.concatenate([[0], rng.permutation(np.diff(onset)).cumsum()])
        return Piece.of(drawn[chord], piece.pitch, piece.velocity, piece.duration_ms)
    if kind == "bars":
        return _shuffled_bars(piece, rng)
    return coherence.disturb(piece, kind, rng)


def _shuffled_bars(piece: Piece, rng: np.random.Generator) -> Piece:
    """A piece's bars, as ``Chart.of`` hears them, in random order; what is before the second bar is the first."""
    chart = Chart.of(piece)
    begin = chart.beats_ms[chart.bar_beats][1:] if len(chart) else np.zeros(0, dtype=np.int64)
    begin = np.concatenate([[0], begin[(begin > 0) & (begin <= piece.onset_ms[-1])]]).astype(np.int64)
    length = np.diff(begin, append=max(piece.end_ms, int(begin[-1]) + 1))
    order = rng.permutation(len(begin))
    moved = np.empty(len(begin), dtype=np.int64)
    moved[order] = length[order].cumsum() - length[order]
    bar = np.searchsorted(begin, piece.onset_ms, side="right") - 1
    return Piece.of(moved[bar] + piece.onset_ms - begin[bar], piece.pitch, piece.velocity, piece.duration_ms)
