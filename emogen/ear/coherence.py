"""Does it hold together as music? A score that tells real pieces from disturbed copies of them.

Each of four disturbances (``KINDS``) breaks one thing and leaves the rest intact: the order of pitches, the key, the
harmony, the synchrony of the hands. A classifier learns to tell real pieces from such copies by their intervals, the
movement of their lines, the pitches that occur close together, what returns, and the timing of onsets. A copy is as
dense, as loud and as high as its original, so these cannot help, and the features leave them out: loudness is ignored,
pitches are relative to each other, and intervals are shares of their number. Bins and limits were set by hand, without
a recorded comparison; what the score is worth was measured: see ``Coherence.aucs``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emogen.ear.classifier import Classifier
from emogen.ear.windows import chord_starts, windows
from emogen.music.measures import key_fit
from emogen.music.notes import HIGHEST_KEY, LOWEST_KEY, Floats, Ints, Piece
from emogen.music.tokens import CHORD_MS, GRID_MS, on_grid

KINDS = ("shuffled", "detuned", "moved", "slipped")
DETUNED, MOVED = 0.12, 1 / 3
"""Probability that a note is altered."""
SLIP_MS = (60, 300)
"""Range of the delay of a slipped hand: longer than a chord is spread, shorter than most beats."""
MAJOR_SCALE, MINOR_SCALE = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)

WINDOW_S = 15
"""Length of the windows in which pieces are heard, so that short and long ones are comparable."""
MEMORY_NOTES = 64
"""Each note is compared with this many notes before it."""
RUNS_NOTES = (8, 32)
"""Lengths of the runs of notes whose pitch classes are counted together."""
FRAME_MS, RETURN_MS = 50, (300, 8000)
"""Resolution of the search for returning patterns, and the range of lags."""
HANDS_MS = 400
"""Largest delay between the hands that is considered."""

L2 = 0.01
"""Chosen by cross-validation over EMOPIA's training songs; a third of it and three times as much do as well."""
FOLDS = 5


def disturb(piece: Piece, kind: str, rng: np.random.Generator) -> Piece:
    """A copy of a piece, with as many notes, that is disturbed in one of ``KINDS``:

    - shuffled: the pitches of each second are in random order;
    - detuned: each note is moved up or down by a semitone with a probability of 12 %;
    - moved: each note is moved by one or two degrees with a probability of a third, in the scale (natural minor) of the
      best fitting key; notes outside the scale count as the degree above;
    - slipped: one hand (the notes below the median pitch, or the others) is late by 60 to 300 ms throughout.

    A note that would be struck together with another of its new pitch keeps its old pitch; one still sounding when its
    pitch is struck again ends there.
    """
    if not len(piece):
        return piece
    pitch = piece.pitch
    if kind == "slipped":
        hand = (pitch < np.median(pitch)) == (rng.random() < 0.5)
        late_ms = int(rng.integers(*SLIP_MS, endpoint=True))
        return Piece.of(piece.onset_ms + late_ms * hand, pitch, piece.velocity, piece.duration_ms)
    if kind == "shuffled":
        pitch = pitch[np.lexsort((rng.random(len(piece)), piece.onset_ms // 1000))]
    elif kind == "detuned":
        step = rng.choice([-1, 1], len(piece))
        pitch = np.where(rng.random(len(piece)) < DETUNED, _on_piano(pitch + step, pitch - step), pitch)
    elif kind == "moved":
        best = int(key_fit(np.bincount(pitch % 12, piece.duration_ms, 12)).argmax())
        every = np.arange(LOWEST_KEY - 12, HIGHEST_KEY + 13)
        scale = every[np.isin((every - best) % 12, MINOR_SCALE if best >= 12 else MAJOR_SCALE)]
        degree, step = np.searchsorted(scale, pitch), rng.choice([-2, -1, 1, 2], len(piece))
        pitch = np.where(rng.random(len(piece)) < MOVED, _on_piano(scale[degree + step], scale[degree - step]), pitch)
    else:
        raise ValueError(f"no disturbance '{kind}', only {', '.join(KINDS)}")
    return Piece.of(piece.onset_ms, _apart(piece, pitch), piece.velocity, piece.duration_ms)


def _on_piano(pitch: Ints, other: Ints) -> Ints:
    """``pitch`` where it is on the piano, ``other`` elsewhere."""
    return np.where((pitch >= LOWEST_KEY) & (pitch <= HIGHEST_KEY), pitch, other)


def _apart(piece: Piece, pitch: Ints) -> Ints:
    """``pitch`` (N,), but with the original pitch where two notes of a chord would coincide."""
    # each onset close to the one before: never fewer notes than a chord of the tokens, so none of these coincide either
    chord = (np.diff(piece.onset_ms, prepend=0) > CHORD_MS).cumsum()
    while True:  # each round restores at least one; the original pitches are distinct
        _, which, count = np.unique(chord * 128 + pitch, return_inverse=True, return_counts=True)
        meets = (count[which] > 1) & (pitch != piece.pitch)
        if not meets.any():
            return pitch
        pitch = np.where(meets, piece.pitch, pitch)


def features(pieces: Sequence[Piece]) -> Floats:
    """Features (N, F) of pieces with at least one note each: means over their windows."""
    return np.array(
        [
            np.mean([_of_window(window) for window in windows(on_grid(piece), WINDOW_S, every_s=WINDOW_S)], axis=0)
            for piece in pieces
        ]
    )


def _of_window(piece: Piece) -> Floats:
    """Features (F,) of a piece on the grid, where the notes of a chord have one onset."""
    onset, pitch = piece.onset_ms, piece.pitch
    first = chord_starts(piece)
    size = np.diff(first, append=len(piece))  # of each chord
    bottom, top = pitch[first], pitch[first + size - 1]
    before = np.arange(len(piece)) - np.arange(1, MEMORY_NOTES + 1)[:, None]  # (MEMORY_NOTES, N)
    known, before = before >= 0, np.maximum(before, 0)
    interval, gap_ms = pitch - pitch[before], onset - onset[before]
    held = known & (gap_ms > 0) & ((onset + piece.duration_ms)[before] > onset + 2 * GRID_MS)
    bass = np.minimum(np.where(held, pitch[before], HIGHEST_KEY).min(0), np.repeat(bottom, size))
    upper = pitch >= np.median(pitch)
    across = known & (upper != upper[before])
    return np.concatenate(
        [
            _intervals(interval[known & (gap_ms == 0)]),
            _intervals(interval[held]),
            _log_shares((pitch - bass)[pitch > bass] % 12, 12),
            _intervals(np.diff(top)),
            _intervals(np.diff(bottom)),
            *(_tonality(pitch, notes) for notes in RUNS_NOTES),
            _returns(onset, pitch),
            _timing(np.diff(onset[first])),
            _hands(np.where(upper, gap_ms, -gap_ms)[across]),
        ]
    )


def _log_shares(values: Ints, bins: int) -> Floats:
    """Logs of the shares of values 0..bins-1 (bins,); one value more, spread over all bins, keeps them finite."""
    count = np.bincount(values, minlength=bins) + 1 / bins
    return np.log(count / count.sum())


def _intervals(semitones: Ints) -> Floats:
    """Log shares (24,) of intervals, by size below an octave and by interval class from there on."""
    size = np.abs(semitones)
    return _log_shares(np.where(size < 12, size, 12 + size % 12), 24)


def _tonality(pitch: Ints, notes: int) -> Floats:
    """Number of pitch classes and fit of the best key (2,), means over all runs of ``notes`` notes."""
    notes = min(notes, len(pitch))
    total = np.concatenate([np.zeros((1, 12)), np.eye(12)[pitch % 12].cumsum(0)])
    count = total[notes:] - total[:-notes]
    return np.array([(count > 0).sum(1).mean(), key_fit(count).max(1).mean()])


def _returns(onset: Ints, pitch: Ints) -> Floats:
    """How much better patterns return at the best lag than on average (2,): among all notes, among those in rhythm.

    From the autocorrelation of the piano roll, by the Wiener-Khinchin theorem.
    """
    frame = (onset - onset[0]) // FRAME_MS
    lag = np.arange(*RETURN_MS, FRAME_MS) // FRAME_MS
    keys, row = np.unique(pitch, return_inverse=True)
    roll = np.zeros((len(keys), int(frame[-1] + lag[-1]) + 3))  # long enough not to wrap around
    roll[row, frame] = 1
    spectrum = np.fft.rfft(roll)
    powers = (np.abs(spectrum) ** 2).sum(0), np.abs(spectrum.sum(0)) ** 2
    same_key, any_key = (np.convolve(np.fft.irfft(power, roll.shape[1]), np.ones(3), "same")[lag] for power in powers)
    could = np.searchsorted(frame, frame[-1] - lag, side="right")  # notes that are followed by music at that lag
    shares = same_key / (could + 5), same_key / (any_key + 5)  # + 5: agreement of a few notes proves little
    return np.array([share.max() - share.mean() for share in shares])


def _timing(gap_ms: Ints) -> Floats:
    """Log shares (15,) of the time between chords (C - 1,): against the time before, and against the median."""
    usual_ms = np.median(gap_ms) if len(gap_ms) else 1.0
    octaves = np.abs(np.diff(np.log2(gap_ms)))
    change = np.digitize(octaves, (0.1, 0.25, 0.5, 0.85, 1.15, 2))
    size = np.digitize(gap_ms / usual_ms, (0.15, 0.3, 0.5, 0.75, 1.25, 1.75, 2.5))
    return np.concatenate([_log_shares(change, 7), _log_shares(size, 8)])


def _hands(late_ms: Ints) -> Floats:
    """Log ratio (3,) of hands that are apart by a constant time to hands that are together: early, late, either.

    ``late_ms`` is the delay of the upper note in each pair of an upper and a lower note; slipped hands share one delay.
    """
    steps = HANDS_MS // GRID_MS
    count = np.bincount(late_ms[np.abs(late_ms) <= HANDS_MS] // GRID_MS + steps, minlength=2 * steps + 1)
    near = np.convolve(count, np.ones(3), "same") + 1
    apart = near[: steps - 3].max(), near[steps + 4 :].max()
    return np.log(np.array([*apart, max(apart)]) / near[steps])


def auc(real: Floats, disturbed: Floats) -> float:
    """Area under the ROC curve: how often a real score (R,) exceeds a disturbed one (D,); ties count half."""
    below, above = (np.searchsorted(np.sort(disturbed), real, side=side) for side in ("left", "right"))
    return float((below + above).mean() / 2 / len(disturbed))


def percentile(scores: Floats, real_scores: Floats) -> Floats:
    """Percentiles (N,) of scores among those of real pieces (R,): 0..100; their median is 50."""
    below, above = (np.searchsorted(np.sort(real_scores), scores, side=side) for side in ("left", "right"))
    return 50 * (below + above) / len(real_scores)


@dataclass(frozen=True, slots=True, eq=False)
class Coherence:
    """The fitted score; make one with ``fit``, or with ``of`` from what ``arrays`` gave."""

    classifier: Classifier
    """Its classes are "real" and each of ``KINDS``."""
    aucs: dict[str, float]
    """See ``auc``: real pieces against those disturbed in each of ``KINDS``, and against all of them ("all").
    By cross-validation: each song was scored by a classifier fitted on other songs."""

    @classmethod
    def fit(cls, pieces: Sequence[Piece], song: npt.NDArray[np.integer[Any]], seed: int) -> Coherence:
        """The score that tells real pieces, of the songs ``song`` (N,), from a copy of each in every one of ``KINDS``.

        Raises:
            ValueError: fewer than two songs, or a piece without notes.
        """
        _, song = np.unique(song, return_inverse=True)
        songs = int(song.max(initial=-1)) + 1
        if songs < 2 or not all(map(len, pieces)):
            raise ValueError("pieces must be of two songs or more, each with notes")
        rng = np.random.default_rng(seed)
        fold = rng.permutation(songs)[song] % min(FOLDS, songs)
        copies = [features([disturb(piece, kind, rng) for piece in pieces]) for kind in KINDS]
        heard = np.stack([features(pieces), *copies])  # (1 + K, N, F)
        scores = np.zeros(heard.shape[:2])
        for one in range(fold.max() + 1):
            scores[:, fold == one] = _score(_fit(heard[:, fold != one]), heard[:, fold == one])
        aucs = {"all": auc(scores[0], scores[1:].ravel())}
        aucs |= {kind: auc(scores[0], disturbed) for kind, disturbed in zip(KINDS, scores[1:], strict=True)}
        return cls(_fit(heard), aucs)

    def score(self, pieces: Sequence[Piece]) -> Floats:
        """Log odds (N,) that each piece is real rather than disturbed; -inf for a piece without notes."""
        scores = np.full(len(pieces), -np.inf)
        with_notes = [index for index, piece in enumerate(pieces) if len(piece)]
        if with_notes:
            scores[with_notes] = self.score_of(features([pieces[index] for index in with_notes]))
        return scores

    def score_of(self, heard: Floats) -> Floats:
        """Scores (N,) of the features (N, F) of pieces, see ``features``."""
        return _score(self.classifier, heard)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Its arrays by name, to be written to a file."""
        return {**self.classifier.arrays(), "aucs": np.array([self.aucs[kind] for kind in ("all", *KINDS)])}

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Coherence:
        """The score that ``arrays`` came from (in any precision; other entries are ignored)."""
        return cls(Classifier.of(arrays), dict(zip(("all", *KINDS), arrays["aucs"].tolist(), strict=True)))


def _fit(heard: Floats) -> Classifier:
    """The classifier of features (1 + K, N, F) of real pieces and their copies; real ones have half of the weight."""
    classes, pieces, entries = heard.shape
    weight = np.repeat([len(KINDS), *[1] * len(KINDS)], pieces)
    return Classifier.fit(heard.reshape(-1, entries), np.repeat(np.arange(classes), pieces), l2=L2, weight=weight)


def _score(classifier: Classifier, heard: Floats) -> Floats:
    """Log odds (...) of "real" against all other classes, for features (..., F)."""
    odds = classifier.log_odds(heard)
    return odds[..., 0] - np.logaddexp.reduce(odds[..., 1:], axis=-1)
