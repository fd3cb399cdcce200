"""Chords, bars and sections of a piece whose beats are known.

A chord is heard by comparing what sounds during a beat, and below it the bass, with a template of each chord (T.
Fujishima, "Realtime chord recognition of musical sound", ICMC 1999), smoothed by the Viterbi algorithm (A. Sheh and
D. Ellis, "Chord segmentation and recognition using EM-trained hidden Markov models", ISMIR 2003). Bars begin where
chords change, the bass is struck and notes are long (M. Goto and Y. Muraoka, "Real-time beat tracking for drumless
audio signals", Speech Communication 27, 1999). Sections are runs of bars that resemble each other along the diagonals
of the bars' self-similarity (J. Foote, "Automatic audio segmentation using a measure of audio novelty", ICME 2000).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from emogen.music.notes import Floats, Ints, Piece
from emogen.music.pulse import Onsets

QUALITIES: dict[str, tuple[int, ...]] = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "7": (0, 4, 7, 10),
    "maj7": (0, 4, 7, 11),
    "m7": (0, 3, 7, 10),
    "dim": (0, 3, 6),
    "aug": (0, 4, 8),
    "sus": (0, 5, 7),
}
"""The suffix of each quality's name, and its pitch classes above the root."""
NO_CHORD = -1
FRESH_BEATS, FADED = 2, 0.05
"""A note counts in full for so many beats, then for this share: the pedal holds it longer than it is meant."""

TONE, OTHER, FIRST, BASS = 1.0, 1.0, 0.25, 0.5
"""What tones of the chord add and others subtract, what the root adds to its tone, what a root in the bass adds."""
RARE = np.array([0.0, 0.0, 0.04, 0.05, 0.05, 0.04, 0.1, 0.08])
"""What each quality must be better than a triad."""
CHANGE, CERTAINTY = 1.0, 6.0

LEAST = 0.05
"""A beat in which less than this share of its time sounds is silent."""
REST_BEATS = 2
"""Within a piece as many silent beats have no chord; fewer keep the last one."""


def _templates() -> tuple[Floats, Floats]:
    """Weights (8, 12) of the pitch classes above each quality's root, and of the bass."""
    sound, bass = np.zeros((len(QUALITIES), 12)), np.zeros((len(QUALITIES), 12))
    for row, tones in enumerate(QUALITIES.values()):
        sound[row] = -OTHER
        sound[row, list(tones)] = TONE
        sound[row, 0] += FIRST
        bass[row, 0] = BASS
    return sound, bass


SOUND, BASS_LINE = _templates()


def sounds(piece: Piece, onsets: Onsets, beats_ms: Ints) -> tuple[Floats, Floats]:
    """Shares (K, 12) of each beat that pitch classes sound, and that they are the lowest; 0 where nothing sounds."""
    fresh_ms = FRESH_BEATS * float(np.median(np.diff(beats_ms)))
    edges = np.append(beats_ms, max(piece.end_ms, int(beats_ms[-1]) + 1)).astype(np.float64)
    until = np.append(onsets.time_ms[1:], piece.end_ms)
    low = onsets.lowest > 0
    return (
        _shares(piece.onset_ms, piece.onset_ms + piece.duration_ms, piece.pitch % 12, edges, fresh_ms),
        _shares(onsets.time_ms[low], until[low], onsets.lowest[low] % 12, edges, fresh_ms),
    )


def _shares(start_ms: Floats | Ints, end_ms: Floats | Ints, kind: Ints, edges_ms: Floats, fresh_ms: float) -> Floats:
    """Shares (K, 12) of the time between K + 1 edges for which notes of each kind sound."""
    until = np.minimum(end_ms, start_ms + fresh_ms)
    amount = (1 - FADED) * _amounts(start_ms, until, kind, edges_ms) + FADED * _amounts(
        start_ms, end_ms, kind, edges_ms
    )
    amount = np.maximum(amount, 0.0)
    total = amount.sum(-1, keepdims=True)
    shares: Floats = np.where(total > LEAST * np.diff(edges_ms)[:, None], amount / np.maximum(total, 1e-9), 0.0)
    return shares


def _amounts(start_ms: Floats | Ints, end_ms: Floats | Ints, kind: Ints, edges_ms: Floats) -> Floats:
    """Milliseconds (K, 12) for which notes of each kind sound between K + 1 edges, in time linear in the notes."""
    total = np.zeros((len(edges_ms), 12))
    for one in range(12):
        mine = kind == one
        for times, sign in ((start_ms[mine], 1.0), (end_ms[mine], -1.0)):
            times = np.sort(times).astype(np.float64)
            sum_before = np.concatenate([[0.0], np.cumsum(times)])
            before = np.searchsorted(times, edges_ms)
            total[:, one] += sign * (before * edges_ms - sum_before[before])
    return np.diff(total, axis=0)


def fits(chroma: Floats, bass: Floats) -> Floats:
    """How well each chord fits each beat: (K, 8, 12), quality by root."""
    turn = (np.arange(12)[:, None] + np.arange(12)) % 12  # (root, degree): pitch class
    sound = np.einsum("qd,krd->kqr", SOUND, chroma[:, turn])
    low = np.einsum("qd,krd->kqr", BASS_LINE, bass[:, turn])
    fit: Floats = sound + low - RARE[:, None]
    return fit


def chords(
    chroma: Floats, bass: Floats, change: Floats | float = CHANGE
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Root (K,) 0..11 or NO_CHORD, and quality (K,) of each beat; ``change`` (K,) is what another chord costs there."""
    count = len(chroma)
    fit = CERTAINTY * fits(chroma, bass).reshape(count, -1)
    silent = _rests(chroma.max(1) == 0)
    cost = np.broadcast_to(np.asarray(change, dtype=np.float64), (count,))
    path = stay_or_change(fit, cost)
    root = np.where(silent, NO_CHORD, path % 12).astype(np.int8)
    return root, np.where(silent, 0, path // 12).astype(np.int8)


def _rests(silent: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which beats (K,) are rests: silent ones at either end, and runs of at least REST_BEATS."""
    edges = np.flatnonzero(np.diff(silent, prepend=False, append=False))
    rests = np.zeros(len(silent), dtype=bool)
    for start, end in edges.reshape(-1, 2).tolist():
        rests[start:end] = start == 0 or end == len(silent) or end - start >= REST_BEATS
    return rests


def stay_or_change(score: Floats, cost: Floats) -> Ints:
    """The path (K,) of largest total score (K, states), where any change of state before step k costs ``cost[k]``."""
    count = len(score)
    stayed = np.zeros(score.shape, dtype=bool)
    best_before = np.zeros(count, dtype=np.int64)
    total = score[0].copy()
    for step in range(1, count):
        top = int(total.argmax())
        other = total[top] - cost[step]
        stayed[step] = total >= other
        best_before[step] = top
        total = np.maximum(total, other) + score[step]
    path = np.empty(count, dtype=np.int64)
    path[-1] = int(total.argmax())
    for step in range(count - 1, 0, -1):
        path[step - 1] = path[step] if stayed[step, path[step]] else best_before[step]
    return path


CHANGED, BASS_MOVED, STRUCK = 1.0, 0.8, 0.5
"""What a change of chord, another bass and a salient onset say for a downbeat."""
IRREGULAR, HALF_BAR = 12.0, 6.0
"""What a bar of the wrong length costs, and one of half the length."""
THREE = 0.1
"""How much better bars of three must fit than bars of four, per beat."""


def downbeat_evidence(
    onsets: Onsets, beats_ms: Ints, chroma: Floats, bass: Floats, root: npt.NDArray[np.int8]
) -> Floats:
    """How much speaks for a bar that begins at each beat (K,), with mean 0 and SD 1."""
    near = np.searchsorted((onsets.time_ms[1:] + onsets.time_ms[:-1]) / 2, beats_ms)
    struck = np.where(np.abs(onsets.time_ms[near] - beats_ms) < 60, onsets.salience[near], 0.0)
    changed = np.zeros(len(beats_ms))
    changed[1:] = root[1:] != root[:-1]
    evidence = CHANGED * (changed + _novelty(chroma)) + BASS_MOVED * _novelty(bass) + STRUCK * struck
    spread = float(evidence.std())
    return (evidence - evidence.mean()) / spread if spread > 1e-9 else np.zeros(len(evidence))


def _novelty(shares: Floats) -> Floats:
    """One less the cosine (K,) of each beat with the one before; 0 for the first."""
    size = np.maximum(np.linalg.norm(shares, axis=1), 1e-9)
    cosine = (shares[1:] * shares[:-1]).sum(1) / (size[1:] * size[:-1])
    return np.concatenate([[0.0], 1 - cosine])


def bars(evidence: Floats) -> tuple[int, npt.NDArray[np.int8]]:
    """Beats per bar, 3 or 4, and the place (K,) of each beat in its bar, 0 on downbeats."""
    three, in_three = _places(evidence, 3)
    four, in_four = _places(evidence, 4)
    if three > four + THREE * len(evidence):
        return 3, in_three
    return 4, in_four


def _places(evidence: Floats, meter: int) -> tuple[float, npt.NDArray[np.int8]]:
    """The best score of bars of so many beats, and each beat's place (K,) in them."""
    count = len(evidence)
    back = np.zeros(count, dtype=np.int64)
    total = np.zeros(meter)
    total[0] = evidence[0]
    ending = np.full(meter, IRREGULAR)
    ending[-1] = 0.0
    if meter == 4:
        ending[1] = HALF_BAR
    for beat in range(1, count):
        ended = total - ending
        back[beat] = ended.argmax()
        total[1:] = total[:-1]
        total[0] = ended[back[beat]] + evidence[beat]
    place = np.empty(count, dtype=np.int8)
    place[-1] = total.argmax()
    for beat in range(count - 1, 0, -1):
        place[beat - 1] = place[beat] - 1 if place[beat] else back[beat]
    return float(total.max()), place


LIKE = 0.82
"""Bars so similar, on average, are the same section."""
PHRASE = 4
"""Fewest bars of a section."""


def sections(chroma: Floats, bar: Ints) -> npt.NDArray[np.int8]:
    """A letter (B,) for each bar, 0 for A, of beats (K, 12) in bars (K,)."""
    count = int(bar.max()) + 1
    halves = np.zeros((count, 2, 12))
    size = np.bincount(bar, minlength=count)
    first = np.concatenate([[0], np.cumsum(size)[:-1]])
    half = (2 * (np.arange(len(bar)) - first[bar]) >= size[bar]).astype(np.int64)
    np.add.at(halves, (bar, half), chroma)
    flat = halves.reshape(count, -1)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    like = flat @ flat.T
    starts = list(range(0, count, PHRASE))
    letter = np.zeros(count, dtype=np.int8)
    known: list[int] = []
    for start in starts:
        length = min(PHRASE, count - start)
        fit = [
            float(np.mean(like[np.arange(start, start + length), np.arange(other, other + length)])) for other in known
        ]
        best = int(np.argmax(fit)) if fit else -1
        if best < 0 or fit[best] < LIKE:
            known.append(start)
            best = len(known) - 1
        letter[start : start + length] = min(best, 25)
    return letter
