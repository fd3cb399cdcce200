"""Played pieces whose beats, bars and chords are known, for the tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emogen.music.harmony import QUALITIES
from emogen.music.measures import TONICS
from emogen.music.notes import Floats, Ints, Piece

POP = ("Am", "F", "C", "G")


def chord(name: str) -> tuple[int, int]:
    """Root and quality of a chord's name."""
    root = max((tonic for tonic in TONICS if name.startswith(tonic)), key=len)
    return TONICS.index(root), tuple(QUALITIES).index(name.removeprefix(root))


def steady(bpm: float, beats: int, start_ms: float = 300) -> Ints:
    """Beats at one tempo."""
    return np.rint(start_ms + np.arange(beats) * 60_000 / bpm).astype(np.int64)


def bending(bpm: Floats, start_ms: float = 300) -> Ints:
    """Beats whose tempo changes from beat to beat."""
    periods = 60_000 / np.asarray(bpm)
    return np.rint(start_ms + np.concatenate([[0.0], np.cumsum(periods)[:-1]])).astype(np.int64)


def played(
    beats_ms: Ints,
    bars: Sequence[str] = POP,
    beats_per_bar: int = 4,
    jitter_ms: float = 0,
    seed: int = 0,
) -> Piece:
    """A song in the manner of pop: one chord per bar, its root in the bass, chords on beats, a melody in eighths.

    ``bars`` are repeated as long as there are beats. The last beat ends the last bar and has no notes.
    """
    rng = np.random.default_rng(seed)
    notes: list[tuple[float, int, int, float]] = []
    for beat, (start, end) in enumerate(zip(beats_ms[:-1].tolist(), beats_ms[1:].tolist(), strict=True)):
        bar, place = divmod(beat, beats_per_bar)
        root, quality = chord(bars[bar % len(bars)])
        tones = [60 + (root + step) % 12 for step in tuple(QUALITIES.values())[quality]]
        length = end - start
        half = place == 2 and beats_per_bar == 4
        if place == 0 or half:
            notes.append((start, 36 + root, 72 if half else 84, (2 if beats_per_bar == 4 else 3) * length))
            notes += [(start, tone, 72, 1.5 * length) for tone in tones]
        else:
            notes += [(start, tone, 60, 0.8 * length) for tone in tones]
        notes += [(start, 12 + tones[int(rng.integers(len(tones)))], 80, length / 2)]
        notes += [(start + length / 2, 12 + tones[int(rng.integers(len(tones)))], 64, length / 2)]
    onset, pitch, velocity, duration = (np.array(column) for column in zip(*notes, strict=True))
    onset = np.maximum(onset + rng.normal(0, jitter_ms, len(onset)) if jitter_ms else onset, 0)
    return Piece.of(np.rint(onset), pitch, velocity, np.rint(duration))
