"""What is measured of each piece: the rows of the yardstick, see there."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from emogen.data.corpus import Corpus
from emogen.data.shared_runs import Memory
from emogen.ear import coherence, craft, second
from emogen.ear.features import NAMES, hear
from emogen.ear.fitted import Ear
from emogen.ear.judge import hits
from emogen.evaluation.sections import BREAKAGE, MEASURES, broken
from emogen.evaluation.systems import System
from emogen.music.measures import Measures, measure
from emogen.music.notes import Floats, Piece
from emogen.system.processes import pool

T = TypeVar("T")
CHUNK = 16
"""Pieces that a worker process measures at a time."""
_SILENT = np.nan * coherence.features([Piece.of([0, 500], [60, 64], [64, 64], [400, 400])])[0]
"""What the score of coherence hears in a piece without notes."""


class Row(NamedTuple):
    """A row of the page: a number that each piece has."""

    name: str
    title: str
    form: str = ".2f"


ROWS = (
    Row("quadrant", "quadrant heard as labelled"),
    Row("arousal", "arousal"),
    Row("valence", "valence"),
    Row("second_quadrant", "quadrant, by the second judge"),
    Row("second_arousal", "arousal, by the second judge"),
    Row("second_valence", "valence, by the second judge"),
    Row("agreement", "both judges hear the same quadrant"),
    Row("coherence", "coherence, percentile of real", ".0f"),
    Row("pulse", "pulse: phases of notes, bits"),
    Row("returns", "returns: likeness to itself later"),
    Row("chords_per_bar", "chords per bar"),
    Row("triads", "major and minor triads"),
    Row("sevenths", "seventh chords"),
    Row("altered", "diminished, augmented chords", ".3f"),
    Row("suspended", "suspended chords"),
    Row("dominants", "changes from dominant to tonic"),
    Row("steps", "top line: steps"),
    Row("repeats", "top line: repeats"),
    Row("leaps", "top line: leaps"),
    Row("notes_per_s", "notes per second"),
    Row("velocity", "velocity", ".1f"),
    Row("pitch", "pitch", ".1f"),
    Row("pitch_range", "pitch range", ".1f"),
    Row("pitch_classes", "pitch classes", ".1f"),
    Row("polyphony", "polyphony"),
    Row("ioi_variation", "variation of times between onsets"),
    Row("scale_consistency", "notes in one scale", ".3f"),
    Row("pitch_class_entropy", "entropy of pitch classes, bits"),
    Row("longest_silence_s", "longest silence, s"),
    Row("repetition", "figures of six notes heard before"),
    Row("copied", "runs of 12 notes in training songs", ".4f"),
    Row("silence_above_3_s", "silent for 3 s", ".3f"),
    Row("under_20_notes_in_30_s", "fewer than 20 notes in 30 s", ".3f"),
    Row("stuck_on_one_pitch", "stuck on one pitch", ".3f"),
)


NEEDS_A_MODEL = ("likelihood of real songs", "plans kept", "length kept")
"""What only ``emogen evaluate --checkpoint`` can say."""


class Facts(NamedTuple):
    """What is heard in one piece; NaN where there is nothing to hear."""

    windows: Floats
    """(W, F) for the judge."""
    coherence: Floats
    second: Floats
    craft: tuple[float, ...]
    measures: Measures


@dataclass(frozen=True, eq=False)
class Measured:
    """N pieces of a system, measured."""

    system: System
    values: Floats
    """(N, rows), by ``ROWS``; NaN where a piece has no such number."""
    features: Floats
    """(N, F): all that the ear measures, for ``told_apart``."""
    points: Floats
    """(N, F): of the judge's features."""
    heard: npt.NDArray[np.int64]
    """(2, N): the quadrants that the judges hear."""
    longest: tuple[int, str]
    """The longest run of notes copied from a training clip, and the clip."""

    @property
    def weight(self) -> Floats:
        """(N,): each quadrant counts the same."""
        quadrant = self.system.heard.quadrant
        share: Floats = 1 / np.bincount(quadrant)[quadrant]
        return share


def facts_of(groups: Sequence[Sequence[Piece]], tell: Callable[[float], None]) -> list[list[Facts]]:
    """What is heard in each piece of some groups; ``tell`` is called with the share that is heard."""
    found = shared_out(_hear_all, [piece for group in groups for piece in group], tell)
    ends = np.cumsum([len(group) for group in groups]).tolist()
    return [found[end - len(group) : end] for group, end in zip(groups, ends, strict=True)]


def shared_out(
    work: Callable[[Sequence[Piece]], list[T]],
    pieces: Sequence[Piece],
    tell: Callable[[float], None] = lambda share: None,
) -> list[T]:
    """What ``work`` gives for each piece, done by one process per core."""
    chunks = [pieces[at : at + CHUNK] for at in range(0, len(pieces), CHUNK)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: list[T] = []
    if min(cores, len(chunks)) < 2:
        for chunk in chunks:
            found += work(chunk)
        return found
    with pool(min(cores, len(chunks)), "try again with less running beside it") as processes:
        for some in processes.map(work, chunks):
            found += some
            tell(len(found) / len(pieces))
    return found


def _hear_all(pieces: Sequence[Piece]) -> list[Facts]:
    return [
        Facts(
            hear(piece),
            coherence.features([piece])[0] if len(piece) else _SILENT,
            second.histograms([piece])[0],
            astuple(craft.craft(piece)),
            measure(piece),
        )
        for piece in pieces
    ]


def coherences(ear: Ear, facts: Sequence[Facts]) -> Floats:
    """Scores (N,); -inf without notes."""
    heard = np.array([one.coherence for one in facts])
    silent = np.isnan(heard).any(1)
    return np.where(silent, -np.inf, ear.coherence.score_of(np.where(silent[:, None], 0.0, heard)))


def _points(facts: Sequence[Facts]) -> Floats:
    """The means (N, F) of the windows of pieces; NaN where there are none."""
    return np.array([one.windows.mean(0) if len(one.windows) else np.full(len(NAMES), np.nan) for one in facts])


def features(facts: Sequence[Facts]) -> Floats:
    """All features (N, F) that tell pieces apart."""
    measures = [[float(getattr(one.measures, name)) for name in MEASURES] for one in facts]
    return np.hstack([_points(facts), [one.coherence for one in facts], [one.craft for one in facts], measures])


def measure_system(
    system: System,
    facts: Sequence[Facts],
    corpus: Corpus,
    ear: Ear,
    memory: Memory,
    real_scores: Floats,
    seconds: float,
) -> Measured:  # seven: of what, what was heard, with what it is compared
    """A system's pieces as the rows have them, after what was heard in each; ``real_scores`` are of real test clips."""
    quadrant = system.heard.quadrant
    chances = (
        ear.judge.probabilities_of([one.windows for one in facts]),
        ear.second.probabilities_of(np.array([one.second for one in facts])),
    )
    first, other = (hits(chance, quadrant) for chance in chances)
    heard = np.array([chance.argmax(1) + 1 for chance in chances])
    columns: dict[str, npt.ArrayLike] = {
        **first,
        **{f"second_{name}": right for name, right in other.items()},
        "agreement": heard[0] == heard[1],
        "coherence": coherence.percentile(coherences(ear, facts), real_scores),
        **dict(zip(craft.NAMES, np.array([one.craft for one in facts]).T, strict=True)),
        **{name: [getattr(one.measures, name) for one in facts] for name in MEASURES},
        "copied": [memory.share(notes) for notes in system.heard.tokens],
    }
    wrecks = [broken(piece, one.measures, seconds) for piece, one in zip(system.heard.pieces, facts, strict=True)]
    columns |= {name: [one[name] for one in wrecks] for name in BREAKAGE}
    values = np.stack([np.asarray(columns[row.name], dtype=np.float64) for row in ROWS], axis=1)
    longest, clip = max((memory.longest(notes) for notes in system.heard.tokens), key=lambda run: run[0])
    source = corpus.clip_names[clip] if clip >= 0 else ""
    return Measured(system, values, features(facts), _points(facts), heard, (longest, source))
