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
from emogen.music.pulse import Onsets, around

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
"""A note counts in full for two beats, then for this share: the pedal holds it longer than it is meant."""

SOUND = np.array(
    [
        [50, -20, -7, -51, 34, -7, -17, 50, -39, -4, -23, -15],
        [58, -14, -6, 47, -94, -6, -30, 53, -17, -31, -4, -33],
        [58, -22, -8, -23, 66, -3, -22, 53, -29, -6, 76, -21],
        [47, -31, -3, -33, 35, -11, -13, 44, -47, -2, -38, 53],
        [44, -25, -7, 61, -57, 1, -22, 43, -20, -42, 63, -32],
        [51, -1, -20, 46, -23, 7, 79, -47, -12, 1, 23, -10],
        [36, -8, -13, -12, 32, -17, -9, -13, 48, -20, -23, -17],
        [36, -38, 21, -27, -16, 19, -34, 37, -33, -22, -7, -16],
    ]
)
BASS = np.array(
    [
        [17, -15, -6, -1, 1, -12, -16, -2, 3, -14, -2, -3],
        [19, -4, -4, 0, 18, -5, -12, 4, -8, -6, -2, -4],
        [15, -9, -10, 1, -8, 0, -8, 3, -5, -5, 16, -8],
        [15, -6, -3, -4, 2, 2, -11, 1, -8, 2, 12, 11],
        [30, 7, -7, -8, -3, 0, -7, 8, 11, -3, 14, -8],
        [36, 5, 4, -15, -4, 1, -10, 3, -20, 7, 1, -2],
        [27, -1, -5, -6, 8, 9, -6, -5, -3, -7, -6, -6],
        [24, 5, -1, -8, -6, 2, -1, -2, 10, 0, 5, -10],
    ]
)
USUAL = np.array([38, 21, -19, 12, -8, -9, 7, 39])
"""Tenths that pitch classes 0..11 above the root, the bass there, and each quality itself add to the logit of a chord:
multinomial logistic regression on 170 songs of POP909, none of those kept for testing; one set of weights for every
root, so a piece in another key has the same chords in that key. Pitch classes count by the root of their share. All but
triads are favoured by 1 to 1.4 nats more than the regression has it, because smoothing swallows what is rare."""
CHANGE = 2.0
"""What another chord than the last beat's costs, in nats."""
LEAST = 0.05
"""A beat in which less than this share of its time sounds is silent."""
REST_BEATS = 2
"""Within a piece this number of silent beats has no chord; fewer keep the last one."""


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
    """Logits (K, 8, 12) of each chord, quality by root, at each beat."""
    above = (np.arange(12)[:, None] + np.arange(12)) % 12  # (root, degree): pitch class
    sound = np.sqrt(chroma)[:, above] @ SOUND.T + bass[:, above] @ BASS.T + USUAL
    logits: Floats = sound.transpose(0, 2, 1) / 10
    return logits


def chords(
    chroma: Floats, bass: Floats, change: Floats | float = CHANGE
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Root (K,) 0..11 or NO_CHORD, and quality (K,) of each beat; ``change`` (K,) is what another chord costs there."""
    count = len(chroma)
    fit = fits(chroma, bass).reshape(count, -1)
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


ROOT_MOVED, CHORD_MOVED, BASS_MOVED, STRUCK, HELD, SELDOM = 1.1, 0.3, 0.3, 0.4, 0.9, -2.7
"""What another root, another chord, another bass, a salient onset and a long bass add to the log-odds of a downbeat,
and the log-odds without any: logistic regression on 56 songs of POP909 whose beats are known."""
HELD_MS = 50
"""Added to the length of a bass before the logarithm, so that none has one too."""
STRUCK_MS = 60
"""An onset this near is struck on the beat."""
IRREGULAR, HALF_BAR = 16.0, 10.0
"""What a bar of the wrong length costs, and one of half the length, in nats."""
THREE = 0.1
"""How much better bars of three must fit than bars of four, per beat."""


def downbeat_odds(
    onsets: Onsets, beats_ms: Ints, bass: Floats, root: npt.NDArray[np.int8], quality: npt.NDArray[np.int8]
) -> Floats:
    """Log-odds (K,) that a bar begins at each beat."""
    near = np.searchsorted((onsets.time_ms[1:] + onsets.time_ms[:-1]) / 2, beats_ms)
    struck = np.abs(onsets.time_ms[near] - beats_ms) < STRUCK_MS
    held = np.log((onsets.bass_ms + HELD_MS) / around(onsets.bass_ms + HELD_MS))
    other_root = np.diff(root, prepend=root[:1]) != 0
    return (
        SELDOM
        + ROOT_MOVED * other_root
        + CHORD_MOVED * (other_root | (np.diff(quality, prepend=quality[:1]) != 0))
        + BASS_MOVED * _novelty(bass)
        + np.where(struck, STRUCK * onsets.salience[near] + HELD * held[near], 0.0)
    )


def _novelty(shares: Floats) -> Floats:
    """One less the cosine (K,) of each beat with the one before; 0 for the first."""
    size = np.maximum(np.linalg.norm(shares, axis=1), 1e-9)
    cosine = (shares[1:] * shares[:-1]).sum(1) / (size[1:] * size[:-1])
    return np.concatenate([[0.0], 1 - cosine])


def bars(odds: Floats) -> tuple[int, npt.NDArray[np.int8]]:
    """Beats per bar, 3 or 4, and the place (K,) of each beat in its bar, 0 on downbeats."""
    three, in_three = _places(odds, 3)
    four, in_four = _places(odds, 4)
    if three > four + THREE * len(odds):
        return 3, in_three
    return 4, in_four


def _places(odds: Floats, meter: int) -> tuple[float, npt.NDArray[np.int8]]:
    """The best score of bars of ``meter`` beats, and each beat's place (K,) in them."""
    count = len(odds)
    back = np.zeros(count, dtype=np.int64)
    total = np.zeros(meter)
    total[0] = odds[0]
    ending = np.full(meter, IRREGULAR)
    ending[-1] = 0.0
    if meter == 4:
        ending[1] = HALF_BAR
    for beat in range(1, count):
        ended = total - ending
        back[beat] = ended.argmax()
        total[1:] = total[:-1]
        total[0] = ended[back[beat]] + odds[beat]
    place = np.empty(count, dtype=np.int8)
    place[-1] = total.argmax()
    for beat in range(count - 1, 0, -1):
        place[beat - 1] = place[beat] - 1 if place[beat] else back[beat]
    return float(total.max()), place


LIKE = 0.87
"""Phrases so similar, on average over their bars, are the same section."""
PHRASE = 4
"""Bars of a phrase, the shortest section."""
LETTERS = 26
"""Sections at most."""


def sections(chroma: Floats, bar: Ints) -> npt.NDArray[np.int8]:
    """The section (B,) of each bar, 0 for A, of beats (K, 12) in bars (K,).

    Phrases are compared by the pitch classes in each half of their bars. Each belongs to the earlier section whose
    first phrase it resembles most, or begins a new one; a shorter last phrase is compared with as many bars.
    """
    count = int(bar.max()) + 1
    size = np.bincount(bar, minlength=count)
    number = np.arange(len(bar)) - (np.cumsum(size) - size)[bar]
    halves = np.zeros((2 * count, 12))
    np.add.at(halves, 2 * bar + (2 * number >= size[bar]), np.sqrt(chroma))
    bars = halves.reshape(count, 24)
    bars = bars / np.maximum(np.linalg.norm(bars, axis=1, keepdims=True), 1e-9)
    letter = np.zeros(count, dtype=np.int8)
    known: list[int] = []
    for start in range(0, count, PHRASE):
        length = min(PHRASE, count - start)
        phrase = bars[start : start + length]
        fit = [float((phrase * bars[first : first + length]).sum()) / length for first in known]
        if not known or (max(fit) < LIKE and len(known) < LETTERS):
            known.append(start)
            fit.append(1.0)
        letter[start : start + length] = int(np.argmax(fit))
    return letter
