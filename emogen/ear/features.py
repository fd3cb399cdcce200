"""Features for the judge of emotion: how a piece sounds, as rows of numbers.

A piece is cut into windows of ``WINDOW_S`` that overlap by at least half, evenly spread from its first to its last
onset: so short and long pieces are comparable, and silence around a piece changes nothing. All pieces pass through
``tokens`` first, so that played and generated ones are heard alike. Pitch classes are counted from the tonic or
from the sounding bass, so a transposed piece differs in register only.

What is measured follows the literature on emotion in music (Gabrielsson and Lindström, "The role of structure in the
musical expression of emotions", 2010): loudness, articulation, tempo, rhythm, register, melody, mode, dissonance. How
each is cut into numbers (bins, limits, how fast a held note fades, how sharply chords are told apart) was set by hand;
no comparison with other values is recorded. What the judge is worth as a whole was measured: see ``judge``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from emogen.ear.windows import chord_starts, windows
from emogen.music.measures import key_fit
from emogen.music.notes import HIGHEST_KEY, LOWEST_KEY, Floats, Ints, Piece
from emogen.music.tokens import on_grid

WINDOW_S = 12
FEWEST_CHORDS = 4
"""Windows with fewer chords are skipped."""

LEVELS = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
CHORD_KINDS = ("047", "037", "036", "048", "057", "047b", "037a", "047a", "0369", "036a", "0247", "0237")
"""Kinds of chords as semitones above the root, in hexadecimal: triads, suspended, sevenths, added seconds."""

_KINDS = np.array([[f"{semitone:x}" in kind for semitone in range(12)] for kind in CHORD_KINDS], dtype=np.float64)
_KINDS /= np.linalg.norm(_KINDS, axis=1, keepdims=True)
_CHORDS = np.concatenate([np.roll(_KINDS, root, axis=1) for root in range(12)])  # (12 roots x 12 kinds, 12)
_RELATIVE_MINOR = 12 + (np.arange(12) + 9) % 12
_STEPS = np.array([-7, -2, 0, 1, 3, 8])
"""Limits in semitones between leaps, steps and repeated notes, down and up."""
_RATIOS = np.log(2) * np.array([-1.3, -0.7, -0.3, -0.1, 0.1, 0.3, 0.7, 1.3])
"""Limits (logarithms) between equal gaps and gaps in the ratios 2:3, 1:2 and 1:3."""
_ECHO_MS = 25
_ECHOES = slice(6, 80)
"""Lags at which a pulse is sought: 150 ms to 2 s, in steps of _ECHO_MS."""


def hear(piece: Piece) -> Floats:
    """Features (W, F) of the W windows of a piece, named in ``NAMES`` (F,); W is 0 if too little happens."""
    heard = on_grid(piece.crop(int(piece.onset_ms[0]), piece.end_ms)) if len(piece) else piece
    cut = windows(heard, WINDOW_S, every_s=WINDOW_S / 2) if len(piece) else ()
    rows = [
        np.concatenate([np.ravel(part) for part in _measures(window).values()])
        for window in cut
        if len(chord_starts(window)) >= FEWEST_CHORDS
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, len(NAMES))


def _measures(window: Piece) -> dict[str, npt.ArrayLike]:
    """The features of a window by name: numbers and arrays of numbers."""
    first = chord_starts(window)
    last = np.append(first[1:], len(window)) - 1
    return (
        _playing(window, first, last)
        | _rhythm(window, first)
        | _lines(window, window.pitch[first], window.pitch[last])
        | _harmony(window, window.pitch[first], window.pitch[last])
        | _sonority(window, first)
    )


def _spread(values: npt.ArrayLike) -> Floats:
    """Mean, standard deviation and quantiles (7,)."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    return np.array([ordered.mean(), ordered.std(), *ordered[np.rint(LEVELS * (len(ordered) - 1)).astype(int)]])


def _shares(index: Ints, bins: int, weight: Floats | Ints | None = None) -> Floats:
    """Share (bins,) of each index in 0..bins-1; all 0 if there is nothing."""
    count = np.bincount(index, weight, bins)
    return count / max(count.sum(), 1e-9)


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b) + 1e-9))


def _playing(window: Piece, first: Ints, last: Ints) -> dict[str, npt.ArrayLike]:
    """Loudness and articulation."""
    velocity, onset = window.velocity.astype(np.float64), window.onset_ms / 1000
    pitch, duration = window.pitch.astype(np.float64), window.duration_ms / 1000
    loud = np.maximum.reduceat(velocity, first)
    gap = np.diff(onset[first], append=onset[first[-1]] + 1)
    legato = np.maximum.reduceat(duration, first) / gap
    second = np.bincount(onset.astype(int), velocity)
    return {
        "velocity": _spread(velocity),
        "accent": np.abs(np.diff(loud)).mean(),
        "melody_velocity": velocity[last].mean() - velocity.mean(),
        "bass_velocity": velocity[first].mean() - velocity.mean(),
        "velocity_by_pitch": _correlation(velocity, pitch),
        "velocity_by_time": _correlation(velocity, onset),
        "energy": [np.log(second + 10).mean(), np.log(second + 10).std()],
        "duration": _spread(np.log(duration)),
        "legato": _spread(np.log(legato)),
        "staccato": (duration < 0.15).mean(),
    }


def _rhythm(window: Piece, first: Ints) -> dict[str, npt.ArrayLike]:
    """Density, the time between chords, and the pulse: the autocorrelation of what is struck, up to 2 s."""
    onset = window.onset_ms / 1000
    gap = np.log(np.diff(onset[first]))
    span_s = max(onset[-1] - onset[0], 1.0)
    size = np.diff(first, append=len(window))
    struck = np.bincount(window.onset_ms // _ECHO_MS, window.velocity, 1000 * WINDOW_S // _ECHO_MS).astype(np.float64)
    struck = np.convolve(struck, [0.5, 1, 0.5], "same")  # slightly off the pulse still counts
    power = np.abs(np.fft.rfft(struck - struck.mean(), 1024)) ** 2
    echo = np.fft.irfft(power / (power.mean() + 1e-9))[_ECHOES]
    return {
        "density": np.log([len(window) / span_s, len(first) / span_s]),
        "gap": _spread(gap),
        # bins from 40 ms on, each one and a half times as wide as the one before
        "gaps": _shares(np.clip((gap + 3.2) / 0.4, 0, 9).astype(int), 10),
        "gap_change": np.abs(np.diff(gap)).mean(),
        "gap_ratios": _shares(np.digitize(np.diff(gap), _RATIOS), 9),
        "chord_size": [size.mean(), size.std(), *_shares(np.minimum(size, 5) - 1, 5)],
        # up to 0.5 s, to 1 s, to 2 s
        "pulse": [echo.max(), echo.std(), *np.maximum.reduceat(echo, [0, 14, 34])],
        "pulse_ms": _ECHO_MS * (_ECHOES.start + echo.argmax()),
    }


def _lines(window: Piece, bass: Ints, top: Ints) -> dict[str, npt.ArrayLike]:
    """The register, and how the lowest and the highest line move."""
    weight = window.duration_ms * window.velocity.astype(np.float64)
    return {
        "pitch": _spread(window.pitch),
        "bass": _spread(bass),
        "top": _spread(top),
        "octaves": _shares(np.clip(window.pitch // 12 - 2, 0, 6), 7, weight),
        "steps": _shares(np.clip(np.diff(window.pitch), -25, 25) // 4 + 7, 14),
        "top_steps": _shares(np.digitize(np.diff(top), _STEPS), 7),
        "bass_steps": _shares(np.digitize(np.diff(bass), _STEPS), 7),
        "leaps": np.abs([np.diff(top), np.diff(bass)]).mean(1),
        "top_intervals": _shares(np.diff(top) % 12, 12),
        "bass_intervals": _shares(np.diff(bass[np.diff(bass, prepend=-1) != 0]) % 12, 12),
    }


def _harmony(window: Piece, bass: Ints, top: Ints) -> dict[str, npt.ArrayLike]:
    """Key, pitch classes counted from the tonic, kinds of chords, and how fast the harmony changes."""
    onset, release = window.onset_ms / 1000, (window.onset_ms + window.duration_ms) / 1000
    pitch_class = np.eye(12)[window.pitch % 12]
    profile = (np.minimum(window.duration_ms, 2000) * window.velocity) @ pitch_class
    profile /= profile.sum()
    fit = key_fit(profile)
    tonic = int(fit.argmax()) % 12
    scale = int((fit[:12] + fit[_RELATIVE_MINOR]).argmax())  # best fit of a major key and its relative minor together
    second = np.arange(int(onset[-1]) + 1)[:, None]
    sound = np.clip(np.minimum(release, second + 1) - np.maximum(onset, second), 0, 1) * window.velocity @ pitch_class
    sound /= np.maximum(np.linalg.norm(sound, axis=1, keepdims=True), 1e-9)  # (seconds, 12)
    likeness = sound @ _CHORDS.T
    odds = np.exp(15 * likeness)  # sharpens: of two similar chords the likelier takes most of the share
    chord = (odds / odds.sum(1, keepdims=True)).mean(0).reshape(12, len(CHORD_KINDS))
    return {
        "mode": fit[:12].max() - fit[12:].max(),
        "tonality": [fit[:12].max(), fit[12:].max(), np.ptp(np.sort(fit)[-2:])],
        "fits": np.roll(fit.reshape(2, 12), -scale, axis=1).ravel(),
        "profile": np.roll(profile, -tonic),
        "profile_entropy": -(profile * np.log(profile + 1e-12)).sum(),
        "bass_profile": np.roll(_shares(bass % 12, 12), -tonic),
        "top_profile": np.roll(_shares(top % 12, 12), -tonic),
        "chords": chord.sum(0),
        "chord_roots": np.roll(chord.sum(1), -tonic),
        "change": [1 - (sound[lag:] * sound[:-lag]).sum(1).mean() if len(sound) > lag else 0 for lag in (1, 2, 4)],
    }


def _sonority(window: Piece, first: Ints) -> dict[str, npt.ArrayLike]:
    """Intervals that sound together: between all pairs, above the lowest note, and below the highest.

    Each key sounds at most once at a time, so a chord hears no more notes than there are keys, and pairs are counted
    by key: work and memory grow with the chords, never with the pairs of notes.
    """
    now_ms = window.onset_ms[first]
    late_ms = np.minimum(50, window.duration_ms)  # a note that ends as the next begins does not sound with it
    until = np.searchsorted(now_ms, window.onset_ms + window.duration_ms - late_ms, side="right")
    struck = np.repeat(np.arange(len(first)), np.diff(first, append=len(window)))  # the chord of each note
    chord, note = _in_spans(struck, until)
    start = np.searchsorted(chord, np.arange(len(first)))
    lowest = np.minimum.reduceat(window.pitch[note], start)
    highest = np.maximum.reduceat(window.pitch[note], start)
    held_ms = np.minimum(np.diff(now_ms, append=window.onset_ms[-1] + 500), 2000)
    fading = np.exp((window.onset_ms[note] - now_ms[chord]) / 1000)
    weight = held_ms[chord] * fading * window.velocity[note]
    key, loud = window.pitch - LOWEST_KEY, np.sqrt(window.velocity)
    here, before = np.zeros((2, len(first), HIGHEST_KEY - LOWEST_KEY + 1))
    here[struck, key] = loud
    old = chord > struck[note]
    before[chord[old], key[note[old]]] = loud[note[old]]
    loudness = before.T @ here + np.triu(here.T @ here, 1)  # (88, 88), of pairs of keys
    here, before = np.sign(here), np.sign(before)
    together = np.triu(here.T @ here, 1)
    number = before.T @ here + together
    return {
        "sounding": _spread(np.diff(start, append=len(chord))),
        "above_bass": _shares((window.pitch[note] - lowest[chord]) % 12, 12, weight),
        "below_top": _shares((highest[chord] - window.pitch[note]) % 12, 12, weight),
        "top_above_bass": _shares((highest - lowest) % 12, 12, held_ms.astype(np.float64)),
        "interval_classes": _shares(_INTERVAL % 12, 12, loudness.ravel()),
        "intervals": _shares(np.minimum(_INTERVAL, 13), 14, number.ravel()),
        "struck_intervals": _shares(_INTERVAL % 12, 12, together.ravel()),
    }


def _in_spans(start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Every place of N spans from start to before end (N,), and which span each is of; both in order of the places."""
    length = end - start
    span = np.repeat(np.arange(len(start)), length)
    place = np.arange(len(span)) - np.repeat(length.cumsum() - length - start, length)
    order = np.argsort(place, kind="stable")
    return place[order], span[order]


_KEYS = np.arange(LOWEST_KEY, HIGHEST_KEY + 1)
_INTERVAL = np.abs(_KEYS[:, None] - _KEYS).ravel()
"""Semitones between each of the piano's keys and each, (88 * 88,)."""

_EXAMPLE = Piece(np.arange(4) * 500, np.arange(60, 64), np.full(4, 64), np.full(4, 500))
NAMES = tuple(f"{name}[{index}]" for name, part in _measures(_EXAMPLE).items() for index in range(np.size(part)))
"""The names of the F features."""
