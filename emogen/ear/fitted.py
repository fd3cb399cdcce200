"""The ear: what judges music for emotion and coherence, fitted once on real songs and kept in one small file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emogen.data.corpus import Corpus
from emogen.data.split import group_songs
from emogen.ear.coherence import Coherence
from emogen.ear.judge import Judge, Scores, cross_validate
from emogen.emotion import EMOTIONS, QUADRANT_OF
from emogen.errors import EmogenError
from emogen.music.tokens import decode
from emogen.system import files

BUNDLED = Path(__file__).with_name("fitted.safetensors")
FOLDS, SEED = 10, 0
FORMAT = 1


@dataclass(frozen=True)
class Ear:
    """A judge of emotion and a score of coherence, with what is known of how good they are."""

    judge: Judge
    coherence: Coherence
    scores: Scores
    """The judge's accuracies in cross-validation by song."""
    dataset: str
    """Fingerprint of the corpus whose training songs it was fitted on."""

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
            corpus.manifest.fingerprint,
        )

    def save(self, file: Path) -> None:
        """Write it as one file of numbers in half precision."""
        from safetensors.numpy import save as serialise

        parts = {"judge": self.judge.arrays(), "coherence": self.coherence.arrays()}
        arrays = {
            f"{part}/{name}": np.asarray(values, dtype=np.float16 if np.ndim(values) > 1 else np.float32)
            for part, named in parts.items()
            for name, values in named.items()
        }
        known = {"format": FORMAT, "dataset": self.dataset, "scores": self.scores._asdict()}
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
            with safe_open(file, framework="numpy") as stored:
                known = json.loads((stored.metadata() or {})["ear"])
                if known["format"] != FORMAT:
                    raise EmogenError(f"{file} is of format {known['format']}, this emogen reads {FORMAT}", _AGAIN)
                arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
            parts = [
                {name.partition("/")[2]: values for name, values in arrays.items() if name.startswith(f"{part}/")}
                for part in ("judge", "coherence")
            ]
            return cls(Judge.of(parts[0]), Coherence.of(parts[1]), Scores(**known["scores"]), str(known["dataset"]))
        except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
            raise EmogenError(f"the ear {file} cannot be used: {error}", _AGAIN) from None


_AGAIN = "fit one: emogen judge --fit FILE.safetensors"
