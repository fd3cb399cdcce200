"""Measurements of pieces from any source: each section compares pieces with real music, and returns plain numbers.

Pieces are ``Heard`` with an emotion each; whether a model composed them, another system or a person makes no difference
here, and nothing here knows a model. Real music is a prepared corpus's: its test songs, which no training has seen. The
numbers are ready for JSON.

Overlap of two distributions: the area under both of their kernel density estimates, after L.-C. Yang and A. Lerch, "On
the evaluation of generative models in music", Neural Computing and Applications 32 (2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emogen.data.corpus import Corpus
from emogen.data.shared_runs import Memory
from emogen.ear.coherence import percentile
from emogen.ear.features import hear
from emogen.ear.fitted import Ear
from emogen.ear.judge import hits
from emogen.emotion import EMOTIONS, QUADRANT_OF
from emogen.music import plan
from emogen.music.measures import Measures, measure
from emogen.music.midi import midi_bytes, read_piece
from emogen.music.notes import Floats, Ints, Piece
from emogen.music.plan import ENTRIES, HARMONY
from emogen.music.tokens import Tokens, decode, encode

MEASURES = (
    "notes_per_s", "velocity", "pitch", "pitch_range", "pitch_classes", "polyphony", "ioi_variation",
    "scale_consistency", "pitch_class_entropy", "longest_silence_s", "repetition",
)  # fmt: skip
"""The measures of ``measures.Measures`` that are compared with real music."""
BREAKAGE = ("silence_above_3_s", "under_20_notes_in_30_s", "stuck_on_one_pitch")
QUADRANT = np.array([QUADRANT_OF[name] for name in EMOTIONS])
"""(E,): the quadrant, 1..4, of each emotion."""
DRAWS = 2000
"""Number of bootstrap samples."""

Report = dict[str, Any]


@dataclass(frozen=True)
class Heard:
    """Pieces with their emotions and songs, as the sections below need them."""

    pieces: list[Piece]
    tokens: list[Tokens]
    emotion: npt.NDArray[np.int64]
    """(N,): index into ``EMOTIONS``, as asked for or labelled; minus the quadrant where only that is known."""
    song: npt.NDArray[np.int64]
    """(N,): index of the song; pieces of one song are not independent."""

    @property
    def quadrant(self) -> npt.NDArray[np.int64]:
        """(N,), 1..4."""
        return np.where(self.emotion < 0, -self.emotion, QUADRANT[np.maximum(self.emotion, 0)])

    @classmethod
    def of(cls, pieces: Sequence[Piece], emotion: npt.ArrayLike) -> Heard:
        """Pieces with an emotion each, as their tokens tell them, so that all systems are on one grid.

        Each counts as a separate song.
        """
        tokens = [encode(piece) for piece in pieces]
        own = np.broadcast_to(np.asarray(emotion, dtype=np.int64), len(tokens))
        return cls([decode(notes) for notes in tokens], tokens, own, np.arange(len(tokens)))


def page(pieces: Heard, corpus: Corpus, ear: Ear, seconds: float) -> Report:
    """All sections that need only pieces, of ``seconds`` each, compared with clips of the corpus cut to that length."""
    real, training = labelled(corpus, "test", seconds), labelled(corpus, "train", seconds)
    return {
        "obedience": {"generated": obedience(ear, pieces), "real": obedience(ear, real), "judge": ear.scores._asdict()},
        "music": music(pieces, real, training),
        "breakage": breakage(pieces, seconds),
        "memory": memory(corpus, pieces, labelled(corpus, "test", None)),
        "coherence": coherence(ear, pieces, real),
        "variety": variety(pieces, training),
    }


def labelled(corpus: Corpus, split: str, seconds: float | None) -> Heard:
    """The labelled clips of a split, the first ``seconds`` of each."""
    clips = [clip for clip in corpus.clips(split).tolist() if corpus.emotion[clip] >= 0]
    pieces = [decode(corpus.notes(clip)) for clip in clips]
    if seconds is not None:
        pieces = [piece.crop(0, round(seconds * 1000)) for piece in pieces]
    song = corpus.song[clips].astype(np.int64)
    return Heard(pieces, [encode(piece) for piece in pieces], corpus.emotion[clips].astype(np.int64), song)


def obedience(ear: Ear, music: Heard) -> Report:
    """The judge's verdict on pieces: accuracies with 95 % intervals, and the confusion matrix (intended, heard)."""
    chance = ear.judge.probabilities(music.pieces)  # (N, 4)
    found, wanted = chance.argmax(1) + 1, music.quadrant
    right = hits(chance, wanted)
    confusion = np.zeros((4, 4), dtype=int)
    np.add.at(confusion, (wanted - 1, found - 1), 1)
    return {
        **{name: accuracy(each, music.song) for name, each in right.items()},
        "by_quadrant": [float(right["quadrant"][wanted == q].mean()) for q in range(1, 5) if (wanted == q).any()],
        "confusion": confusion.tolist(),
    }


def accuracy(hits: npt.NDArray[np.bool_], song: npt.NDArray[np.int64]) -> Report:
    """Share of hits (N,), with its 95 % interval from a bootstrap over whole songs (N,)."""
    place = np.unique(song, return_inverse=True)[1]
    sums, sizes = np.bincount(place, hits), np.bincount(place)
    drawn = np.random.default_rng(0).integers(0, len(sums), (DRAWS, len(sums)))
    low, high = np.quantile(sums[drawn].sum(1) / sizes[drawn].sum(1), (0.025, 0.975))
    return {"share": float(hits.mean()), "low": float(low), "high": float(high), "count": len(hits)}


def steering(pieces: Heard, wanted: Floats) -> Report:
    """Correlation of plan entries asked for (N, P; standardised) and obtained; the harmony is one entry.

    The error is the SD of the residuals of a regression line through the pairs.
    """
    lengths = np.array([len(notes) for notes in pieces.tokens])
    padded = np.zeros((len(lengths), lengths.max(), 4), dtype=np.uint8)
    for row, notes in enumerate(pieces.tokens):
        padded[row, : len(notes)] = notes
    obtained = plan.measure(padded, np.maximum(lengths, 1)).astype(float)
    report = {}
    own = {name: slice(index, index + 1) for index, name in enumerate(ENTRIES[: HARMONY.start])}
    for name, columns in {**own, "harmony": HARMONY}.items():
        correlation = float(np.corrcoef(wanted[:, columns].ravel(), obtained[:, columns].ravel())[0, 1])
        error = float(obtained[:, columns].std() * np.sqrt(1 - correlation**2))
        report[name] = {"correlation": correlation, "error": error}
    return report


def length_error(pieces: list[Piece], seconds: float) -> Report:
    """Errors in seconds of the lengths of pieces, each written as MIDI and read again."""
    error = np.array([abs(read_piece(midi_bytes(piece)).end_ms / 1000 - seconds) for piece in pieces])
    return {"median": float(np.median(error)), "worst": float(error.max())}


def music(pieces: Heard, real: Heard, training: Heard) -> Report:
    """By quadrant and measure: the means of generated and real pieces, and the overlap of their distributions.

    Real are all clips, of test and training songs: the test songs alone are too few for a distribution. How far those
    two overlap tells what an overlap is worth. A quadrant that lacks one of the three is left out.
    """
    values = {
        name: np.array([[getattr(found, one) for one in MEASURES] for found in map(measure, some.pieces)], dtype=float)
        for name, some in (("generated", pieces), ("test", real), ("train", training))
    }
    report: Report = {}
    for quadrant in range(1, 5):
        generated, test, train = (
            values[name][some.quadrant == quadrant]
            for name, some in (("generated", pieces), ("test", real), ("train", training))
        )
        if not (len(generated) and len(test) and len(train)):
            continue
        report[f"Q{quadrant}"] = {
            name: {
                "generated": float(generated[:, i].mean()),
                "real": float(np.concatenate([test, train])[:, i].mean()),
                "overlap": overlap(generated[:, i], np.concatenate([test, train])[:, i]),
                "overlap_of_real": overlap(test[:, i], train[:, i]),
            }
            for i, name in enumerate(MEASURES)
        }
    return report


def overlap(one: Floats, other: Floats) -> float:
    """Overlap, 0..1, of the kernel density estimates of two samples; Gaussian kernels, Scott's rule (Scott, 1992)."""
    if np.ptp(np.concatenate([one, other])) == 0:
        return 1.0
    return float(densities([one, other])[1].min(0).sum())


def densities(samples: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Kernel density estimates (S, 512) of S samples, each summing to 1, and where they are (512,); see ``overlap``."""
    both = np.concatenate(samples)
    reach = both.std() or 1.0
    at = np.linspace(both.min() - reach, both.max() + reach, 512)

    def density(sample: Floats) -> Floats:
        width = max(sample.std() * len(sample) ** -0.2, 0.02 * reach)
        bells = np.exp(-0.5 * ((at[:, None] - sample) / width) ** 2).sum(1)
        share: Floats = bells / bells.sum()
        return share

    return at, np.array([density(sample) for sample in samples])


def breakage(pieces: Heard, seconds: float) -> Report:
    """How many pieces are broken, see ``broken``."""
    found = [broken(piece, measure(piece), seconds) for piece in pieces.pieces]
    return {"pieces": len(found), **{name: sum(one[name] for one in found) for name in BREAKAGE}}


def broken(piece: Piece, measures: Measures, seconds: float) -> dict[str, bool]:
    """Whether a piece is broken: a silence above 3 s, under 20 notes in 30 s, or more than half of one pitch."""
    stuck = len(piece) > 0 and bool(np.bincount(piece.pitch).max() > len(piece) / 2)
    told = (measures.longest_silence_s > 3, measures.notes < 20 * seconds / 30, stuck)
    return dict(zip(BREAKAGE, told, strict=True))


def memory(corpus: Corpus, pieces: Heard, real: Heard) -> Report:
    """Share of 12-note runs that also occur in the training songs, for generated pieces and for real test clips."""
    training = Memory.training(corpus)
    longest, clip = max((training.longest(notes) for notes in pieces.tokens), key=lambda found: found[0])
    longest_real, _ = max((training.longest(notes) for notes in real.tokens), key=lambda found: found[0])
    return {
        "generated": float(np.mean([training.share(notes) for notes in pieces.tokens])),
        "real": float(np.mean([training.share(notes) for notes in real.tokens])),
        "longest_run": longest,
        "longest_run_from": corpus.clip_names[clip] if clip >= 0 else "",
        "longest_run_of_real": longest_real,
    }


def coherence(ear: Ear, pieces: Heard, real: Heard) -> Report:
    """Percentiles of generated pieces among real test clips (whose median is 50), and the accuracy of the score."""
    place = percentile(ear.coherence.score(pieces.pieces), ear.coherence.score(real.pieces))
    low, median, high = np.quantile(place, (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "lower_quartile": low, "upper_quartile": high, "auc": ear.coherence.aucs}


def variety(pieces: Heard, training: Heard) -> Report:
    """Mean distance between pieces of one emotion, in the judge's features: generated / real (1: as diverse)."""
    points, labels = [], []
    for some in (pieces, training):
        heard = [hear(piece) for piece in some.pieces]
        points.append(np.array([rows.mean(0) for rows in heard if len(rows)]))
        labels.append(some.emotion[[len(rows) > 0 for rows in heard]])
    ratios = diversity(points[0], labels[0], points[1], labels[1])
    return {EMOTIONS[label]: ratio for label, ratio in ratios.items()}


def diversity(ours: Floats, label: Ints, real: Floats, real_label: Ints) -> dict[int, float]:
    """Mean distance between points (N, F) of each label (N,) over that of real ones (M, F); in SDs of real ones.

    A label that has not two points on both sides is left out.
    """
    mean, sd = real.mean(0), real.std(0)
    scale = np.where(sd > 1e-9, 1 / np.maximum(sd, 1e-9), 0)

    def distance(points: Floats) -> float:
        points = (points - mean) * scale
        squared = (points**2).sum(1)
        between = np.sqrt(np.maximum(squared[:, None] + squared - 2 * points @ points.T, 0))
        return float(between[np.triu_indices(len(points), 1)].mean())

    ratios = {}
    for one in np.unique(real_label).tolist():
        mine, theirs = ours[label == one], real[real_label == one]
        if len(mine) > 1 and len(theirs) > 1:
            ratios[one] = distance(mine) / distance(theirs)
    return ratios
