"""A second judge of emotion, that nothing is tuned to.

What is tuned until one judge is content may please that judge alone. The second one hears other things and learns in
another way: a piece is a row of histograms of plain facts about its notes, read off without musical theory but the
key, and it is classified by its likeness to all the pieces that the judge was fitted on (kernel ridge regression,
with a Gaussian kernel over Hellinger distances: O. Chapelle, P. Haffner and V. Vapnik, "Support vector machines for
histogram-based image classification", IEEE Transactions on Neural Networks 10, 1999). Nothing in the project may be
chosen by it, so composing never asks it; only evaluations do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from emogen.ear.judge import Labels, Scores, score
from emogen.errors import EmogenError
from emogen.music.measures import key_fit
from emogen.music.notes import Floats, Ints, Piece
from emogen.music.tokens import on_grid

SHARPNESS, RIDGE = 2.5, 0.3
"""Of the kernel, and the ridge. Chosen by cross-validation over EMOPIA's training songs, which hardly depends on them:
from half to twice as much, the accuracy stays within a hundredth."""
FEWEST_CHORDS = 4
"""Pieces with fewer are not judged."""

GAPS_MS = np.array([80, 120, 180, 260, 380, 560, 850])
DURATIONS_MS = np.array([60, 120, 250, 500, 1000, 2000, 4000])
VELOCITY_BINS, REGISTERS, LEAPS, MODES = 9, 10, 21, 9
NEAR_MS, NEAR_NOTES = 600, 8
"""Intervals are counted between each note and those of the next notes that begin within this time."""
TONALITY_MS = 4000
"""The mode is heard from this much of the music before."""


@dataclass(frozen=True, slots=True, eq=False)
class SecondJudge:
    """Estimates the quadrant of a piece; make one with ``fit``, or with ``of`` from what ``arrays`` gave."""

    known: npt.NDArray[np.uint8]
    """(M, F): the square roots of the histograms of the pieces it was fitted on, in 255ths."""
    scale: Floats
    """(P,): 1 / mean squared distance of two of them, for each of the P histograms."""
    pull: Floats
    """(M, 4): how much each of them, as like as can be, adds to the chance of each quadrant."""
    prior: Floats
    """(4,): the chances of a piece that is like none."""

    @classmethod
    def fit(cls, pieces: Sequence[Piece], quadrant: Labels) -> SecondJudge:
        """A judge fitted on pieces of the quadrants (N,) 1..4.

        Raises:
            EmogenError: a quadrant has no piece with enough notes to judge.
        """
        return cls._of_heard(histograms(pieces), np.asarray(quadrant))

    @classmethod
    def _of_heard(cls, heard: Floats, quadrant: Labels) -> SecondJudge:
        """A judge fitted on histograms (N, F); rows of NaN teach nothing."""
        audible = ~np.isnan(heard[:, 0])
        if set(quadrant[audible].tolist()) != {1, 2, 3, 4}:
            raise EmogenError("a judge needs pieces of all four quadrants", "label some of each")
        known = np.rint(255 * heard[audible]).astype(np.uint8)
        truth = np.eye(4)[quadrant[audible] - 1]
        distance = _distances(known / 255, known / 255)  # (P, M, M)
        scale = 1 / np.maximum(distance.mean((1, 2)), 1e-9)
        prior = truth.mean(0)
        kernel = _kernel(distance, scale)
        pull = np.linalg.solve(kernel + RIDGE * np.eye(len(kernel)), truth - prior)
        return cls(known, scale, pull, prior)

    def probabilities(self, pieces: Sequence[Piece]) -> Floats:
        """Probabilities (N, 4) of Q1..Q4 for N pieces: rows sum to 1; all 1/4 for a piece too short to judge."""
        return self.probabilities_of(histograms(pieces))

    def probabilities_of(self, heard: Floats) -> Floats:
        """Probabilities (N, 4) for the histograms (N, F) of pieces, see ``histograms``."""
        answers = np.full((len(heard), 4), 0.25)
        audible = ~np.isnan(heard).any(1)
        kernel = _kernel(_distances(heard[audible], self.known / 255), self.scale)
        chance = np.maximum(kernel @ self.pull + self.prior, 1e-3)
        answers[audible] = chance / chance.sum(1, keepdims=True)
        return answers

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Its arrays by name, to be written to a file."""
        return asdict(self)

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> SecondJudge:
        """The judge that ``arrays`` came from (numbers in any precision; other entries are ignored).

        Raises:
            KeyError: an array is missing.
            ValueError: arrays do not fit together, or hold what is not a number.
        """
        known = np.asarray(arrays["known"], dtype=np.uint8)
        scale, pull, prior = (np.asarray(arrays[name], dtype=np.float64) for name in ("scale", "pull", "prior"))
        if known.ndim != 2 or known.shape[1] != PARTS[-1] or scale.shape != (len(PARTS) - 1,):
            raise ValueError("the second judge was fitted by another version, on other histograms")
        if pull.shape != (len(known), 4) or prior.shape != (4,):
            raise ValueError("arrays do not fit together")
        if not all(np.isfinite(array).all() for array in (scale, pull, prior)):
            raise ValueError("not all numbers are finite")
        return cls(known, scale, pull, prior)


def cross_validate(
    pieces: Sequence[Piece], quadrant: Labels, song: npt.NDArray[np.integer[Any]], folds: int = 10, seed: int = 0
) -> Scores:
    """Accuracy on pieces of songs (N,) that were left out when the judge was fitted, as ``judge.cross_validate``."""
    _, song = np.unique(song, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(int(song.max()) + 1)[song] % folds
    heard = histograms(pieces)
    probabilities = np.zeros((len(heard), 4))
    for one in range(folds):
        judge = SecondJudge._of_heard(heard[fold != one], quadrant[fold != one])
        probabilities[fold == one] = judge.probabilities_of(heard[fold == one])
    return score(probabilities, quadrant)


def _distances(one: Floats, other: Floats) -> Floats:
    """Squared Hellinger distances (P, N, M), times 2, of the roots of histograms (N, F) and (M, F)."""
    found = []
    for at in (slice(*bounds) for bounds in pairwise(PARTS)):
        a, b = one[:, at], other[:, at]
        found.append(np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0))
    return np.array(found)


def _kernel(distance: Floats, scale: Floats) -> Floats:
    """Likeness (N, M), 0..1, from distances (P, N, M)."""
    likeness: Floats = np.exp(-SHARPNESS * np.einsum("pnm,p->nm", distance, scale) / len(scale))
    return likeness


def histograms(pieces: Sequence[Piece]) -> Floats:
    """The roots (N, F) of the histograms of N pieces, one after the other; NaN where too little happens."""
    rows = np.full((len(pieces), PARTS[-1]), np.nan)
    for row, piece in zip(rows, pieces, strict=True):
        gridded = on_grid(piece.crop(int(piece.onset_ms[0]), piece.end_ms)) if len(piece) else piece
        if len(np.unique(gridded.onset_ms)) >= FEWEST_CHORDS:
            row[:] = np.sqrt(np.concatenate(_histograms(gridded)))
    return rows


def _histograms(piece: Piece) -> list[Floats]:
    """The histograms of a piece on the grid; each sums to 1."""
    onset, pitch = piece.onset_ms, piece.pitch
    first = np.flatnonzero(np.diff(onset, prepend=-1))
    top = np.maximum.reduceat(pitch, first)
    gap = np.digitize(np.diff(onset[first], append=onset[-1] + 1000), GAPS_MS)
    gaps = len(GAPS_MS) + 1
    loud = np.clip(piece.velocity // 12 - 1, 0, VELOCITY_BINS - 1)
    loudest = np.maximum.reduceat(loud, first)
    length = np.digitize(piece.duration_ms, DURATIONS_MS)
    register = np.clip((pitch - 24) // 8, 0, REGISTERS - 1)
    weight = np.minimum(piece.duration_ms, 2000) * piece.velocity.astype(np.float64)
    profile = np.bincount(pitch % 12, weight, 12)
    tonic = int(key_fit(profile).argmax()) % 12
    return [
        _blurred(loud, VELOCITY_BINS, register, REGISTERS),
        _blurred(length, len(DURATIONS_MS) + 1, loud, VELOCITY_BINS),
        _blurred(gap[:-1], gaps, gap[1:], gaps),
        _blurred(gap, gaps, loudest, VELOCITY_BINS),
        np.roll(profile / profile.sum(), -tonic),
        _intervals(onset, pitch),
        _modes(onset, pitch, weight),
        _shares(np.clip(np.diff(top) // 2 + LEAPS // 2, 0, LEAPS - 1), LEAPS),
    ]


def _blurred(row: Ints, rows: int, column: Ints, columns: int) -> Floats:
    """Shares (rows * columns,) of pairs, a quarter of each moved to either neighbour."""
    count = np.bincount(row * columns + column, minlength=rows * columns).reshape(rows, columns).astype(np.float64)
    for _ in range(2):
        padded = np.pad(count, ((1, 1), (0, 0)))
        count = (0.5 * padded[1:-1] + 0.25 * padded[:-2] + 0.25 * padded[2:]).T
    share: Floats = (count / count.sum()).ravel()
    return share


def _shares(values: Ints, bins: int) -> Floats:
    """Shares (bins,) of values in 0..bins - 1."""
    share: Floats = np.bincount(values, minlength=bins) / max(len(values), 1)
    return share


def _intervals(onset: Ints, pitch: Ints) -> Floats:
    """Shares (24,) of the intervals between near notes, below an octave and above; the farther, the less they count."""
    count = np.zeros(24)
    for after in range(1, min(NEAR_NOTES, len(pitch) - 1) + 1):
        near = onset[after:] - onset[:-after] < NEAR_MS
        size = np.abs(pitch[after:] - pitch[:-after])[near]
        count += np.bincount(np.where(size < 12, size, 12 + size % 12), minlength=24) / after
    return count / max(count.sum(), 1e-9)


def _modes(onset: Ints, pitch: Ints, weight: Floats) -> Floats:
    """Shares (MODES,) of the times at which the music just heard is so much rather major than minor."""
    total = np.concatenate([np.zeros((1, 12)), (np.eye(12)[pitch % 12] * weight[:, None]).cumsum(0)])
    fit = key_fit((total[1:] - total[np.searchsorted(onset, onset - TONALITY_MS)])[np.diff(onset, append=-1) != 0])
    major = fit[:, :12].max(1) - fit[:, 12:].max(1)
    count = np.bincount(np.clip((major + 0.45) * 10, 0, MODES - 1).astype(np.int64), minlength=MODES)
    blurred = np.convolve(np.pad(count.astype(np.float64), 1, "edge"), [0.25, 0.5, 0.25], "valid")
    share: Floats = blurred / blurred.sum()
    return share


_EXAMPLE = Piece(np.arange(4) * 500, np.arange(60, 64), np.full(4, 64), np.full(4, 500))
PARTS = np.cumsum([0, *map(len, _histograms(_EXAMPLE))]).tolist()
"""Where each of the P histograms begins in a row, and the length F of a row (P + 1,)."""
