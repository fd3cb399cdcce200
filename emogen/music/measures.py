"""Measures of a piece: what a listener would say about it, in numbers.

Key profiles: C. L. Krumhansl and E. J. Kessler, "Tracing the dynamic changes in perceived tonal organization in a
spatial representation of musical keys", Psychological Review 89 (1982); the method of correlating them with a
duration-weighted histogram of pitch classes: Krumhansl, "Cognitive Foundations of Musical Pitch" (1990), chapter 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emogen.music.notes import Floats, Piece

MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])
SCALE = np.array([1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1])
"""The pitch classes of C major."""
CHORD_MS = 40
"""An onset this close to the one before belongs to the same chord."""
REPEATED = 6
"""Length in notes of the runs in ``repetition``."""
TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")


def unit(profile: Floats) -> Floats:
    """Profiles (..., 12) with mean 0 and length 1, so that a dot product is a correlation; flat profiles become 0."""
    centred = profile - profile.mean(-1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-9)


_KEYS = unit(np.array([np.roll(mode, tonic) for mode in (MAJOR, MINOR) for tonic in range(12)]))


def key_fit(pitch_classes: npt.NDArray[Any]) -> Floats:
    """Correlation (..., 24) of histograms of pitch classes (..., 12) with the keys C..B major, then C..B minor."""
    return unit(pitch_classes) @ _KEYS.T


def mode_fit(pitch_classes: npt.NDArray[Any]) -> Floats:
    """Fit of the best major key minus fit of the best minor key (...), in -1..1."""
    fit = key_fit(pitch_classes)
    difference: Floats = fit[..., :12].max(-1) - fit[..., 12:].max(-1)
    return difference


@dataclass(frozen=True, slots=True)
class Measures:
    """The measures of a piece, see ``measure``."""

    length_s: float
    """From the beginning to the last release."""
    notes: int
    notes_per_s: float
    key: str
    """The best fitting key, as in "A minor"; empty for a piece without notes."""
    velocity: float
    """Mean MIDI velocity."""
    pitch: float
    """Mean MIDI pitch."""
    pitch_range: int
    """Semitones from the lowest to the highest note."""
    polyphony: float
    """Mean number of notes sounding at once, silences excluded."""
    longest_silence_s: float
    """Longest time without a sounding note, from the beginning to the last release."""
    pitch_classes: int
    """Number of different pitch classes, 0..12."""
    pitch_class_entropy: float
    """Entropy in bits of the pitch classes weighted by duration: 0 for one, log2 12 = 3.58 for twelve equal ones."""
    scale_consistency: float
    """Largest share of the notes, 0..1, that lie in one major scale."""
    ioi_variation: float
    """Coefficient of variation (SD / mean) of the times between onsets of chords; 0 for an even pulse."""
    repetition: float
    """Share of the runs of REPEATED notes whose intervals occurred earlier in the piece."""


def measure(piece: Piece) -> Measures:
    """The measures of a piece; all zero for a piece without notes."""
    if not len(piece):
        return Measures(0.0, 0, 0.0, "", 0.0, 0.0, 0, 0.0, 0.0, 0, 0.0, 0.0, 0.0, 0.0)
    length_s = piece.end_ms / 1000
    classes = np.bincount(piece.pitch % 12, piece.duration_ms, 12)
    best = int(key_fit(classes).argmax())
    share = classes[classes > 0] / classes.sum()
    struck = np.bincount(piece.pitch % 12, minlength=12)
    gaps_ms = np.diff(np.unique(piece.onset_ms))
    gaps_ms = gaps_ms[gaps_ms > CHORD_MS]
    silence_ms = silences_ms(piece)
    sounding_ms = piece.end_ms - silence_ms.sum()
    return Measures(
        length_s=length_s,
        notes=len(piece),
        notes_per_s=len(piece) / length_s,
        key=f"{TONICS[best % 12]} {'minor' if best >= 12 else 'major'}",
        velocity=float(piece.velocity.mean()),
        pitch=float(piece.pitch.mean()),
        pitch_range=int(np.ptp(piece.pitch)),
        polyphony=float(piece.duration_ms.sum() / sounding_ms),
        longest_silence_s=float(silence_ms.max()) / 1000,
        pitch_classes=int((classes > 0).sum()),
        pitch_class_entropy=float(-(share * np.log2(share)).sum()),
        scale_consistency=float(max(np.roll(SCALE, tonic) @ struck for tonic in range(12)) / len(piece)),
        ioi_variation=float(gaps_ms.std() / gaps_ms.mean()) if len(gaps_ms) else 0.0,
        repetition=repetition(piece),
    )


def repetition(piece: Piece) -> float:
    """Share of the runs of REPEATED notes whose intervals occurred earlier in the piece; 0 for a shorter piece."""
    intervals = np.diff(piece.pitch)
    if len(intervals) < REPEATED - 1:
        return 0.0
    runs = np.zeros(len(intervals) - (REPEATED - 2), dtype=np.int64)  # each run as one number: intervals are bytes
    for note in range(REPEATED - 1):
        runs = runs * 256 + intervals[note : note + len(runs)] + 128
    return 1 - len(np.unique(runs)) / len(runs)


def silences_ms(piece: Piece) -> npt.NDArray[np.int64]:
    """Time without sound (N,) before each note of a piece: 0 while another note still sounds."""
    released = np.maximum.accumulate(piece.onset_ms + piece.duration_ms)
    return np.maximum(piece.onset_ms - np.concatenate([[0], released[:-1]]), 0)
