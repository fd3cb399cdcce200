from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest

from emogen.data.corpus import Corpus
from emogen.ear.features import hear
from emogen.ear.fitted import Ear
from emogen.ear.judge import Scores
from emogen.emotion import EMOTIONS
from emogen.evaluation.sections import (
    MEASURES,
    Heard,
    accuracy,
    breakage,
    coherence,
    labelled,
    length_error,
    memory,
    music,
    obedience,
    overlap,
    steering,
    variety,
)
from emogen.music import plan
from emogen.music.measures import measure
from emogen.music.notes import Piece
from emogen.music.plan import ENTRIES, HARMONY
from emogen.music.tokens import decode, encode, on_grid
from tests.music import corpus_of, is_same, random_piece


def ear(*quadrants: int) -> Ear:
    """A judge that hears these quadrants (Q1 without any), piece by piece; a coherence that is the first note's key."""
    told = np.array(quadrants or [1] * 1000) - 1

    def probabilities(pieces: list[Piece]) -> npt.NDArray[np.float64]:
        return np.eye(4)[told[: len(pieces)]]

    def score(pieces: list[Piece]) -> npt.NDArray[np.float64]:
        return np.array([piece.pitch[0] for piece in pieces], dtype=float)

    judge, fitted = SimpleNamespace(probabilities=probabilities), SimpleNamespace(score=score, aucs={"all": 0.9})
    scores = Scores(quadrant=0.7, arousal=0.9, valence=0.8)
    return cast(Ear, SimpleNamespace(judge=judge, coherence=fitted, scores=scores))


def of(pieces: list[Piece], emotion: npt.ArrayLike = 0) -> Heard:
    return Heard.of(pieces, emotion)


def clips(count: int = 24) -> Corpus:
    """Clips of every emotion in every split; the last one has no label."""
    notes = [encode(random_piece(seed, 12)) for seed in range(count)]
    emotion = np.append(np.arange(count - 1) % 6, -1)
    return corpus_of(notes, emotion, np.repeat([0, 1, 2], count // 3))


# ---- what is heard


def test_labelled_clips_are_those_of_the_split_with_an_emotion_cut_to_the_length() -> None:
    corpus = clips()
    some = labelled(corpus, "test", 3.0)
    assert len(some.pieces) == 7
    assert max(piece.end_ms for piece in some.pieces) <= 3000
    assert some.song.tolist() == list(range(16, 23))
    assert some.emotion.tolist() == [16 % 6, 17 % 6, 18 % 6, 19 % 6, 20 % 6, 21 % 6, 22 % 6]
    assert [len(notes) for notes in labelled(corpus, "test", None).tokens] == [
        len(corpus.notes(clip)) for clip in range(16, 23)
    ]


def test_pieces_are_heard_as_their_tokens_tell_them_and_each_is_a_song_of_its_own() -> None:
    pieces = [decode(encode(random_piece(seed, 20)), spread_seed=3) for seed in range(3)]
    some = of(pieces, [EMOTIONS.index(name) for name in ("sad", "happy", "sad")])
    for before, after, notes in zip(pieces, some.pieces, some.tokens, strict=True):
        assert is_same(after, on_grid(before))
        assert not is_same(after, before)
        assert np.array_equal(notes, encode(before))
    assert some.quadrant.tolist() == [3, 1, 3]
    assert some.song.tolist() == [0, 1, 2]
    assert of([], []).quadrant.tolist() == []


# ---- obedience


def test_obedience_counts_what_the_judge_hears() -> None:
    pieces = of(
        [random_piece(seed, 5) for seed in range(4)], [EMOTIONS.index(n) for n in ("happy", "angry", "sad", "calm")]
    )
    found = obedience(ear(1, 2, 2, 1), pieces)
    assert (found["quadrant"]["share"], found["arousal"]["share"], found["valence"]["share"]) == (0.5, 0.5, 1.0)
    assert found["confusion"] == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]]
    assert found["by_quadrant"] == [1, 1, 0, 0]


def test_an_interval_is_wider_where_pieces_are_of_few_songs() -> None:
    hits = np.repeat(np.random.default_rng(0).random(20) < 0.7, 10)
    each, few = accuracy(hits, np.arange(200)), accuracy(hits, np.repeat(np.arange(20), 10))
    for one in (each, few):
        assert one["low"] <= one["share"] == hits.mean() <= one["high"]
    assert few["high"] - few["low"] > 2 * (each["high"] - each["low"])
    exact = accuracy(np.ones(5, dtype=bool), np.arange(5))
    assert (exact["low"], exact["high"], exact["count"]) == (1, 1, 5)


def test_the_interval_of_independent_pieces_is_the_binomial_one() -> None:
    hits = np.arange(400) % 4 < 3
    found = accuracy(hits, np.arange(400))
    deviation = np.sqrt(0.75 * 0.25 / 400)
    assert found["low"] == pytest.approx(0.75 - 1.96 * deviation, abs=0.004)
    assert found["high"] == pytest.approx(0.75 + 1.96 * deviation, abs=0.004)


# ---- steering and length


def test_what_is_obtained_as_wanted_correlates_fully_and_what_is_not_does_not() -> None:
    pieces = of([random_piece(seed, 5 + seed) for seed in range(40)])
    measured = np.concatenate([plan.measure(notes[None], [len(notes)]) for notes in pieces.tokens]).astype(float)
    found = steering(pieces, 3 * measured - 1)
    assert found.keys() == {*ENTRIES[: HARMONY.start], "harmony"}
    for one in found.values():
        assert one["correlation"] == pytest.approx(1, abs=1e-6)
        assert one["error"] == pytest.approx(0, abs=1e-2 * measured.std())
    shuffled = steering(pieces, np.random.default_rng(0).permutation(measured))
    for index, one in enumerate(shuffled.values()):
        assert abs(one["correlation"]) < 0.5
        columns = HARMONY if index == HARMONY.start else index
        assert one["error"] == pytest.approx(measured[:, columns].std(), rel=0.15)


def test_errors_of_length_are_those_of_the_files() -> None:
    right, late = Piece.of([0, 500], [60, 62], [64, 64], [500, 9500]), Piece.of([0], [60], [64], [10_250])
    found = length_error([right, right, late], 10.0)
    assert found["median"] < 0.002
    assert found["worst"] == pytest.approx(0.25, abs=0.002)


# ---- music


def test_samples_of_one_distribution_overlap_and_distant_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    assert overlap(rng.normal(0, 1, 2000), rng.normal(0, 1, 2000)) > 0.95
    assert overlap(rng.normal(0, 1, 500), rng.normal(50, 1, 500)) < 0.01
    assert overlap(np.ones(5), np.ones(3)) == 1
    # of two normal distributions whose means are 2 SD apart: 2 * Phi(-1)
    assert overlap(rng.normal(0, 1, 5000), rng.normal(2, 1, 5000)) == pytest.approx(0.317, abs=0.04)


def test_music_is_compared_quadrant_by_quadrant() -> None:
    emotion = np.arange(12) % 6
    pieces = [random_piece(seed, 12) for seed in range(12)]
    slower = [piece.stretch(2.0) for piece in pieces]
    ours, real = (replace(of(some, emotion), pieces=some) for some in (slower, pieces))  # slower than the grid allows
    found = music(ours, real, real)
    assert found.keys() == {"Q1", "Q2", "Q3", "Q4"}
    for quadrant in found.values():
        assert quadrant.keys() == set(MEASURES)
        assert quadrant["notes_per_s"]["generated"] == pytest.approx(quadrant["notes_per_s"]["real"] / 2, rel=0.05)
        assert quadrant["pitch_range"]["overlap"] == pytest.approx(1, abs=0.05)
        assert quadrant["pitch_range"]["overlap_of_real"] == 1
        assert quadrant["velocity"]["generated"] == pytest.approx(quadrant["velocity"]["real"])


def test_real_music_is_that_of_test_and_training_songs_together() -> None:
    one, slower = random_piece(0, 12), random_piece(0, 12).stretch(2.0)
    quick, slow = (measure(on_grid(piece)).notes_per_s for piece in (one, slower))
    found = music(of([one]), of([one]), of([slower, slower]))["Q1"]["notes_per_s"]
    assert found["generated"] == pytest.approx(quick)
    assert found["real"] == pytest.approx((quick + 2 * slow) / 3)
    assert found["overlap"] == overlap(np.array([quick]), np.array([quick, slow, slow])) < 0.1
    assert found["overlap_of_real"] < 0.01


def test_broken_pieces_are_counted() -> None:
    whole = Piece.of(np.arange(40) * 250, 60 + np.arange(40) % 12, [64] * 40, [250] * 40)
    silent = Piece.of([*range(0, 5000, 250), 8500, 9000], [*range(50, 70), 72, 74], [64] * 22, [250] * 22)
    sparse = Piece.of([0, 3000, 6000], [60, 64, 67], [64] * 3, [3000, 3000, 4000])
    stuck = Piece.of(np.arange(40) * 250, np.where(np.arange(40) % 3, 60, 64), [64] * 40, [250] * 40)
    two = Piece.of(np.arange(40) * 250, np.where(np.arange(40) % 2, 60, 64), [64] * 40, [250] * 40)
    calm = Piece.of(np.arange(8) * 1250, 60 + np.arange(8), [64] * 8, [1250] * 8)  # nearly 20 notes in 30 s and more
    found = breakage(of([whole, silent, sparse, stuck, two, calm]), 10.0)
    assert found == {"pieces": 6, "silence_above_3_s": 1, "under_20_notes_in_30_s": 1, "stuck_on_one_pitch": 1}


def test_what_is_copied_is_found_with_its_clip() -> None:
    corpus = clips()
    copied = [decode(corpus.notes(4)).transpose(1) if corpus.notes(4)[:, 1].max() < 87 else decode(corpus.notes(4))]
    fresh = [random_piece(999, 12)]
    found = memory(corpus, of(copied), of(fresh))
    assert (found["generated"], found["real"]) == (1.0, 0.0)
    assert found["longest_run"] == len(corpus.notes(4))
    assert found["longest_run_from"] == corpus.clip_names[4]
    assert memory(corpus, of(fresh), of(fresh))["longest_run_from"] == ""


def test_coherence_is_a_place_among_real_clips() -> None:
    real = of([Piece.of([0], [key], [64], [500]) for key in (30, 40, 50, 60, 70, 80, 90, 100, 105)])
    ours = of([Piece.of([0], [key], [64], [500]) for key in (25, 70, 108)])  # below all, in their middle, above all
    expected = {"lower_quartile": 25, "median": 50, "upper_quartile": 75, "auc": {"all": 0.9}}
    assert coherence(ear(), ours, real) == expected


def test_pieces_that_are_all_alike_have_no_variety_and_real_ones_have_their_own() -> None:
    emotion = np.arange(18) % 6
    real = of([random_piece(seed, 15) for seed in range(18)], emotion)
    assert variety(real, real) == pytest.approx(dict.fromkeys(EMOTIONS, 1.0))
    same = variety(of([random_piece(0, 15)] * 18, emotion), real)
    assert max(same.values()) < 1e-3
    assert variety(of([random_piece(0, 15)] * 2, [0, 1]), real) == {}


def test_variety_is_the_mean_distance_of_two_pieces_in_standard_deviations_of_real_ones() -> None:
    pieces = [random_piece(seed, 15) for seed in range(3)]
    points = np.array([hear(on_grid(piece)).mean(0) for piece in pieces])
    sd = points.std(0)
    points = points[:, sd > 1e-9] / sd[sd > 1e-9]
    one, another, third = (np.linalg.norm(points[a] - points[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    found = variety(of(pieces[:2]), of(pieces))
    assert found == pytest.approx({EMOTIONS[0]: one / np.mean([one, another, third])})
