"""Random music and small prepared corpora for the tests, from a seeded generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from emogen.data.corpus import Charts, Corpus, Manifest
from emogen.music import tokens
from emogen.music.chart import Chart
from emogen.music.notes import HIGHEST_KEY, LOWEST_KEY, Piece
from emogen.music.tokens import CHORD_MS, SIZES, Tokens

PLAN_MEAN = (1.5, 60.0, 62.0, 12.0, -1.0, 0.0, 1.7, 0.45, 12.0) + 12 * (0.0,)
PLAN_SD = (0.5, 15.0, 5.0, 3.0, 0.6, 0.1, 0.3, 0.15, 2.5) + 12 * (0.3,)
"""Of the entries of a plan (``plan.ENTRIES``), about as real clips have them."""


def random_piece(seed: int, chords: int, gap_ms: tuple[int, int] = (CHORD_MS + 1, 999)) -> Piece:
    """Chords of one to four keys, spread by up to CHORD_MS; ``gap_ms`` are the bounds between chords' first notes."""
    rng = np.random.default_rng(seed)
    first_ms = rng.integers(*gap_ms, chords, endpoint=True).cumsum()
    notes = []
    for onset_ms in first_ms.tolist():
        count = int(rng.integers(1, 5))
        late_ms = rng.integers(0, CHORD_MS, count, endpoint=True)
        late_ms[0] = 0
        keys = rng.choice(np.arange(LOWEST_KEY, HIGHEST_KEY + 1), count, replace=False)
        notes += [(onset_ms + late, key) for late, key in zip(late_ms.tolist(), keys.tolist(), strict=True)]
    onset_ms, key = zip(*notes, strict=True)
    duration_ms = np.exp(rng.uniform(np.log(5), np.log(20_000), len(notes)))
    return Piece.of(onset_ms, key, rng.integers(1, 128, len(notes)), duration_ms)


def each_key_once(seed: int, gap_ms: tuple[int, int]) -> Piece:
    """Chords that strike each of the piano's keys a single time, so that no note ends another."""
    rng = np.random.default_rng(seed)
    keys = rng.permutation(np.arange(LOWEST_KEY, HIGHEST_KEY + 1))
    chord = np.sort(rng.integers(0, 40, len(keys)))
    chord = np.unique(chord, return_inverse=True)[1]
    onset_ms = rng.integers(*gap_ms, chord.max() + 1, endpoint=True).cumsum()[chord]
    duration_ms = np.exp(rng.uniform(np.log(5), np.log(16_000), len(keys)))
    return Piece.of(onset_ms, keys, rng.integers(1, 128, len(keys)), duration_ms)


def random_tokens(rng: np.random.Generator, notes: int) -> Tokens:
    """Notes (N, 4) with any ids; a third of the shifts are 0."""
    ids = rng.integers(0, SIZES, (notes, 4))
    ids[:, 0] = np.where(rng.random(notes) < 1 / 3, 0, rng.integers(1, 60, notes))
    return ids.astype(np.uint8)


def corpus_of(
    clips: list[Tokens],
    emotion: npt.ArrayLike,
    split: npt.ArrayLike = 0,
    directory: Path = Path("nowhere"),
    charts: list[Chart] | None = None,
) -> Corpus:
    """A prepared corpus of clips, each a song of its own, in memory; ``split`` is an index into ``SPLITS``.

    Without ``charts`` no clip has beats, which takes no time.
    """
    number = len(clips)
    names = [f"{index}.mid" for index in range(number)]
    manifest = Manifest(
        format=1,
        name="random",
        source="random",
        created_utc="2024-01-01T00:00:00+00:00",
        key="0" * 16,
        fingerprint="0" * 16,
        emogen_version="0",
        vocabulary=tokens.fingerprint(),
        settings={},
        thresholds={},
        counts=[],
        songs=names,
        left_out=[],
        remarks=[],
    )
    return Corpus(
        directory,
        manifest,
        np.concatenate([np.zeros((0, 4), dtype=np.uint8), *clips]),
        np.concatenate([[0], np.cumsum([len(clip) for clip in clips])]).astype(np.int64),
        np.broadcast_to(np.asarray(emotion, dtype=np.int8), number).copy(),
        np.arange(number, dtype=np.int32),
        np.broadcast_to(np.asarray(split, dtype=np.int8), number).copy(),
        names,
        Charts.of(charts or [Chart.of(tokens.decode(clip[:0])) for clip in clips]),
    )


def is_same(a: Piece, b: Piece) -> bool:
    """Whether two pieces have the same notes."""
    columns = ("onset_ms", "pitch", "velocity", "duration_ms")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in columns)
