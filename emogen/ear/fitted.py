"""The ear: what judges music for emotion and coherence, fitted once on real songs and kept in one small file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emogen.data.corpus import Corpus
from emogen.data.split import group_songs
from emogen.ear import second
from emogen.ear.coherence import Coherence
from emogen.ear.judge import Judge, Scores, arousal, cross_validate, valence
from emogen.ear.second import SecondJudge
from emogen.emotion import EMOTIONS, QUADRANT_OF
from emogen.errors import EmogenError
from emogen.music.notes import Piece
from emogen.music.tokens import decode
from emogen.system import files

BUNDLED = Path(__file__).with_name("fitted.safetensors")
FOLDS, SEED = 10, 0
PARTS = ("judge", "coherence", "second")
"""What the names of a file's arrays begin with."""
FORMAT = 2
PROBE = Piece.of([0, 400, 800], [60, 64, 67], [70, 70, 70], [400, 400, 400])
"""A piece that every ear can hear."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the judges hear in one piece."""

    quadrant: str
    """The likeliest: Q1 (happy, excited), Q2 (tense, angry), Q3 (sad) or Q4 (calm)."""
    chance: dict[str, float]
    """Probabilities of Q1..Q4, which sum to 1; all are 1/4 where nothing can be said."""
    arousal: float
    """Probability of high arousal, 0..1: Q1 or Q2."""
    valence: float
    """Probability of positive valence, 0..1: Q1 or Q4."""
    coherence: float
    """Log odds of real music against disturbed copies of it, in nats; -inf without notes."""


@dataclass(frozen=True)
class Ear:
    """Two judges of emotion and a score of coherence, with what is known of how good they are."""

    judge: Judge
    coherence: Coherence
    scores: Scores
    """The judge's accuracies in cross-validation by song."""
    second: SecondJudge
    """Nothing is tuned to it: it is asked in evaluations only."""
    second_scores: Scores
    """The second judge's, likewise."""
    songs: frozenset[str]
    """The songs that they were fitted on, and so know."""
    dataset: str
    """Fingerprint of the corpus whose training songs these are: its test songs are what to compare with."""

    @classmethod
    def fit(cls, corpus: Corpus) -> Ear:
        """The ear fitted on the labelled training clips of a corpus.

        Raises:
            EmogenError: a quadrant has too few songs.
        """
        clips = [clip for clip in corpus.clips("train").tolist() if corpus.emotion[clip] >= 0]
        pieces = [decode(corpus.notes(clip)) for clip in clips]
        quadrant = np.array([QUADRANT_OF[EMOTIONS[corpus.emotion[clip]]] for clip in clips], dtype=np.int64)
        song = group_songs(corpus.manifest.songs, [])[corpus.song[clips]]  # those that share music count as one
        for one in range(1, 5):
            if (songs := len(np.unique(song[quadrant == one]))) < FOLDS:
                raise EmogenError(
                    f"quadrant Q{one} has {songs} training songs, an ear needs {FOLDS}",
                    "fit it on a larger corpus, such as EMOPIA: emogen prepare --download",
                )
        return cls(
            Judge.fit(pieces, quadrant),
            Coherence.fit(pieces, song, SEED),
            cross_validate(pieces, quadrant, song, FOLDS, SEED),
            SecondJudge.fit(pieces, quadrant),
            second.cross_validate(pieces, quadrant, song, FOLDS, SEED),
            frozenset(corpus.manifest.songs[one] for one in np.unique(corpus.song[clips])),
            corpus.manifest.fingerprint,
        )

    def knows(self, corpus: Corpus) -> bool:
        """Whether it was fitted on a song that is a test song of this corpus, so that its verdicts there say little."""
        return any(corpus.manifest.songs[song] in self.songs for song in np.unique(corpus.song[corpus.clips("test")]))

    def opinions(self, pieces: Iterable[Piece]) -> list[Opinion]:
        """What is heard in each piece. Both judges put it on the grid of the tokens, as composed pieces are."""
        heard = list(pieces)
        return [
            Opinion(
                quadrant=f"Q{chance.argmax() + 1}",
                chance={f"Q{quadrant}": float(p) for quadrant, p in enumerate(chance, 1)},
                arousal=float(arousal(chance)),
                valence=float(valence(chance)),
                coherence=float(coherence),
            )
            for chance, coherence in zip(self.judge.probabilities(heard), self.coherence.score(heard), strict=True)
        ]

    def save(self, file: Path) -> None:
        """Write it as one file of numbers, those of tables in half precision."""
        from safetensors.numpy import save as serialise

        parts = (self.judge.arrays(), self.coherence.arrays(), self.second.arrays())
        arrays = {
            f"{part}/{name}": values
            if values.dtype == np.uint8
            else np.asarray(values, dtype=np.float16 if np.ndim(values) > 1 else np.float32)
            for part, named in zip(PARTS, parts, strict=True)
            for name, values in named.items()
        }
        known = {
            "format": FORMAT,
            "scores": self.scores._asdict(),
            "second_scores": self.second_scores._asdict(),
            "songs": sorted(self.songs),
            "dataset": self.dataset,
        }
        with files.whole(file) as draft:
            draft.write_bytes(serialise(arrays, metadata={"ear": json.dumps(known)}))

    @classmethod
    def load(cls, file: Path = BUNDLED) -> Ear:
        """Read one that ``save`` wrote; nothing in the file is executed.

        Raises:
            EmogenError: there is none, or it is damaged or of another format.
        """
        from safetensors import SafetensorError, safe_open

        try:
            files.opened(file).close()
            with safe_open(file, framework="numpy") as stored:
                known = json.loads((stored.metadata() or {})["ear"])
                if known["format"] != FORMAT:
                    raise EmogenError(f"{file} is of format {known['format']}, this emogen reads {FORMAT}", _AGAIN)
                arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
            parts = [
                {name.partition("/")[2]: values for name, values in arrays.items() if name.startswith(f"{part}/")}
                for part in PARTS
            ]
            scores, second_scores = (
                Scores(**{name: float(score) for name, score in known[which].items()})
                for which in ("scores", "second_scores")
            )
            songs = frozenset(map(str, known["songs"]))
            judges = Judge.of(parts[0]), Coherence.of(parts[1]), scores, SecondJudge.of(parts[2]), second_scores
            ear = cls(*judges, songs, str(known["dataset"]))
            ear.opinions([PROBE])  # fails where a part listens for other features
            return ear
        except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise EmogenError(f"the ear {file} cannot be used: {error}", _AGAIN) from None


_AGAIN = "fit one: emogen judge --fit FILE.safetensors"
