"""A judge of emotion that is independent of the network: a small classifier over musical features, fitted on labelled
pieces.

Its worth is its accuracy on music it was not fitted on: see ``cross_validate``. It hears how a piece is played and
which notes sound together, but hardly their order; whether a piece holds together is another question (``coherence``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from emogen.ear.classifier import Classifier
from emogen.ear.features import NAMES, hear
from emogen.errors import EmogenError
from emogen.music.notes import Floats, Piece

Labels = npt.NDArray[np.integer[Any]]

L2 = 0.1
"""Chosen by cross-validation on the training songs; half and double of it make no difference."""


class Scores(NamedTuple):
    """Accuracies, 0..1."""

    quadrant: float
    arousal: float
    valence: float


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Estimates the quadrant of a piece; make one with ``fit``, or with ``of`` from what ``arrays`` gave."""

    classifier: Classifier
    """Classifies windows into Q1..Q4."""

    @classmethod
    def fit(cls, pieces: Iterable[Piece], quadrant: Labels) -> Judge:
        """A judge fitted on pieces of the quadrants (N,) 1..4; every piece counts the same.

        Raises:
            EmogenError: a quadrant has no piece with enough notes to judge.
        """
        return cls._of_heard([hear(piece) for piece in pieces], np.asarray(quadrant))

    @classmethod
    def _of_heard(cls, heard: Sequence[Floats], quadrant: Labels) -> Judge:
        """A judge fitted on the windows of pieces, N arrays (W, F)."""
        windows = np.array([len(rows) for rows in heard])
        if set(quadrant[windows > 0].tolist()) != {1, 2, 3, 4}:
            raise EmogenError("a judge needs pieces of all four quadrants", "label some of each")
        weight = np.repeat(1 / np.maximum(windows, 1), windows)
        return cls(Classifier.fit(np.concatenate(heard), np.repeat(quadrant - 1, windows), l2=L2, weight=weight))

    def probabilities(self, pieces: Iterable[Piece]) -> Floats:
        """Probabilities (N, 4) of Q1..Q4 for N pieces: rows sum to 1; all 1/4 for a piece too short to judge."""
        return self.probabilities_of([hear(piece) for piece in pieces])

    def probabilities_of(self, heard: Sequence[Floats]) -> Floats:
        """Probabilities (N, 4) for the windows of pieces, N arrays (W, F): those of the windows' mean."""
        answers = np.full((len(heard), 4), 0.25)
        audible = [index for index, rows in enumerate(heard) if len(rows)]
        if audible:
            answers[audible] = self.classifier.probabilities(np.array([heard[index].mean(0) for index in audible]))
        return answers

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Its arrays by name, to be written to a file."""
        return self.classifier.arrays()

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Judge:
        """The judge that ``arrays`` came from (in any precision; other entries are ignored).

        Raises:
            EmogenError: it was fitted on the features of another version.
        """
        classifier = Classifier.of(arrays)
        if classifier.weights.shape != (len(NAMES), 4):
            raise EmogenError("the judge was fitted by another version, on other features", "fit it again")
        return cls(classifier)


def arousal(probabilities: Floats) -> Floats:
    """Probability (...) of high arousal: Q1 or Q2 of (..., 4)."""
    return probabilities[..., 0] + probabilities[..., 1]


def valence(probabilities: Floats) -> Floats:
    """Probability (...) of positive valence: Q1 or Q4 of (..., 4)."""
    return probabilities[..., 0] + probabilities[..., 3]


def hits(probabilities: Floats, quadrant: Labels) -> dict[str, npt.NDArray[np.bool_]]:
    """Where (N,) the likeliest quadrant, arousal and valence of (N, 4) are those of the quadrants (N,) 1..4."""
    return {
        "quadrant": probabilities.argmax(1) + 1 == quadrant,
        "arousal": (arousal(probabilities) > 0.5) == np.isin(quadrant, (1, 2)),
        "valence": (valence(probabilities) > 0.5) == np.isin(quadrant, (1, 4)),
    }


def score(probabilities: Floats, quadrant: Labels) -> Scores:
    """Accuracies, see ``hits``."""
    return Scores(**{name: float(each.mean()) for name, each in hits(probabilities, quadrant).items()})


def cross_validate(
    pieces: Iterable[Piece], quadrant: Labels, song: npt.NDArray[np.integer[Any]], folds: int = 10, seed: int = 0
) -> Scores:
    """Accuracy on pieces of songs (N,) that were left out when the judge was fitted, each song once.

    Songs are dealt into ``folds`` at random. Give recordings that share music the same number (``split.group_songs``).

    Raises:
        ValueError: fewer folds than 2 or more than songs.
        EmogenError: see ``Judge.fit``.
    """
    _, song = np.unique(song, return_inverse=True)
    songs = int(song.max(initial=-1)) + 1
    if not 2 <= folds <= songs:
        raise ValueError(f"{folds} folds of {songs} songs cannot be made")
    fold = np.random.default_rng(seed).permutation(songs)[song] % folds
    heard = [hear(piece) for piece in pieces]
    probabilities = np.zeros((len(heard), 4))
    for one in range(folds):
        judge = Judge._of_heard(
            [rows for rows, of in zip(heard, fold, strict=True) if of != one], quadrant[fold != one]
        )
        probabilities[fold == one] = judge.probabilities_of(
            [rows for rows, of in zip(heard, fold, strict=True) if of == one]
        )
    return score(probabilities, quadrant)
