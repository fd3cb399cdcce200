from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch

from emogen.composing.wish import Wish
from emogen.data.batches import Batches
from emogen.data.corpus import Corpus
from emogen.ear.fitted import Ear
from emogen.ear.judge import Scores
from emogen.emotion import EMOTIONS
from emogen.evaluation.evaluate import (
    LENGTHS_S,
    MEASURES,
    Heard,
    accuracy,
    breakage,
    coherence,
    composed,
    evaluate,
    heard,
    labelled,
    length_error,
    likelihood,
    memory,
    music,
    obedience,
    overlap,
    planned_wishes,
    steering,
    variety,
)
from emogen.music import plan
from emogen.music.notes import Piece
from emogen.music.plan import ENTRIES, HARMONY
from emogen.music.tokens import FAMILIES, decode, encode
from emogen.settings import SampleSettings
from tests import tiny
from tests.music import corpus_of, random_piece

PLANS = tiny.plans()


def ignore(*told: Any) -> None:
    """Nobody who is told how far it is."""


@dataclass(frozen=True)
class Knows:
    """A judge that hears what it was told beforehand, piece by piece."""

    quadrant: list[int]

    def probabilities(self, pieces: list[Piece]) -> npt.NDArray[np.float64]:
        return np.eye(4)[np.array(self.quadrant[: len(pieces)]) - 1]

    def score(self, pieces: list[Piece]) -> npt.NDArray[np.float64]:
        return np.array([len(piece) for piece in pieces], dtype=float)


def ear(*quadrants: int) -> Ear:
    judge = Knows(list(quadrants) or [1] * 1000)
    facts = {"judge": judge, "coherence": SimpleNamespace(score=judge.score, aucs={"all": 0.9})}
    scores = Scores(quadrant=0.7, arousal=0.9, valence=0.8)
    return cast(Ear, SimpleNamespace(**facts, scores=scores))


def of(pieces: list[Piece], emotion: npt.ArrayLike = 0, song: npt.ArrayLike | None = None) -> Heard:
    number = np.arange(len(pieces))
    of_song = number if song is None else np.asarray(song)
    return Heard(
        pieces, [encode(piece) for piece in pieces], np.broadcast_to(emotion, len(pieces)).astype(int), of_song
    )


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
    assert some.emotion.tolist() == [16 % 6, 17 % 6, 18 % 6, 19 % 6, 20 % 6, 21 % 6, 22 % 6]
    assert [len(notes) for notes in labelled(corpus, "test", None).tokens] == [
        len(corpus.notes(clip)) for clip in range(16, 23)
    ]


def test_every_emotion_is_asked_for_equally_often_with_plans_typical_of_it() -> None:
    wishes, wanted = planned_wishes(PLANS, 3, 12.0, seed=5)
    assert [next(iter(wish.emotion)) for wish in wishes] == [name for name in EMOTIONS for _ in range(3)]
    assert len({wish.seed for wish in wishes}) == len(wishes)
    for wish, row in zip(wishes, wanted, strict=True):
        assert row.tolist() in PLANS.typical()[next(iter(wish.emotion))].tolist()
        raw = [wish.pins[name] for name in ENTRIES]
        assert (np.array(raw) - PLANS.mean) / PLANS.sd == pytest.approx(row)
    again, other = planned_wishes(PLANS, 3, 12.0, seed=5)[1], planned_wishes(PLANS, 3, 12.0, seed=6)[1]
    assert np.array_equal(wanted, again)
    assert not np.array_equal(wanted, other)


def test_pieces_come_in_the_order_of_the_wishes_however_many_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    wishes = [Wish({"sad": 1.0}, 5.0 + number, number, {}) for number in range(3)]
    monkeypatch.setattr("emogen.composing.parallel.AT_ONCE", 2)
    pieces = composed(tiny.voice(tmp_path), wishes, SampleSettings(), told.append)
    assert [piece.end_ms for piece in pieces] == [5000, 6000, 7000]
    assert 0 < told[0] < told[-1] <= 1
    assert told == sorted(told)


def test_generated_pieces_are_heard_as_their_tokens_tell_them() -> None:
    piece = decode(encode(random_piece(1, 20)), spread_seed=3)
    some = heard([piece], [Wish({"tense": 0.4, "sad": 0.6}, 5, 0, {})])
    assert np.array_equal(some.pieces[0].onset_ms, decode(encode(piece)).onset_ms)
    assert (some.emotion.tolist(), some.quadrant.tolist()) == ([EMOTIONS.index("sad")], [3])


# ---- likelihood


def test_likelihood_is_the_models_loss_on_the_test_clips_by_family_and_emotion() -> None:
    model, corpus = tiny.composer(), clips()
    found = likelihood(model, PLANS, corpus, ignore)
    batches = Batches(corpus, "test", 3, model.settings.context_notes, PLANS)
    notes = sum(len(corpus.notes(clip)) for clip in corpus.clips("test").tolist())
    assert found["notes"] == notes
    for key, known in (("with_emotion", 1), ("without_emotion", 0)):
        total = torch.zeros(4)
        for step in range(len(batches.epoch(0))):
            batch = batches.batch(0, step)
            with torch.inference_mode():
                total += model.loss(batch.notes, batch.emotion * known, batch.plan, batch.remaining_s)
        assert [found[key][name] for name in FAMILIES] == pytest.approx((total / notes).tolist(), rel=1e-4)
        assert found[key]["all"] == pytest.approx(total.sum().item() / notes, rel=1e-4)
    assert found["with_emotion"]["all"] != found["without_emotion"]["all"]
    counts = dict.fromkeys(EMOTIONS, 0)
    for clip in corpus.clips("test").tolist():
        if corpus.emotion[clip] >= 0:
            counts[EMOTIONS[corpus.emotion[clip]]] += len(corpus.notes(clip))
    assert found["by_emotion"].keys() == {name for name, count in counts.items() if count}
    unlabelled = len(corpus.notes(23))
    labelled_nats = sum(found["by_emotion"][name]["without"] * count for name, count in counts.items() if count)
    assert labelled_nats < found["without_emotion"]["all"] * notes
    assert labelled_nats > found["without_emotion"]["all"] * (notes - unlabelled) * 0.8


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
    assert found["low"] == pytest.approx(0.75 - 1.96 * deviation, abs=0.01)
    assert found["high"] == pytest.approx(0.75 + 1.96 * deviation, abs=0.01)


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
    found = music(of(slower, emotion), of(pieces, emotion), of(pieces, emotion))
    assert found.keys() == {"Q1", "Q2", "Q3", "Q4"}
    for quadrant in found.values():
        assert quadrant.keys() == set(MEASURES)
        assert quadrant["notes_per_s"]["generated"] == pytest.approx(quadrant["notes_per_s"]["real"] / 2, rel=0.05)
        assert quadrant["pitch_range"]["overlap"] == pytest.approx(1, abs=0.05)
        assert quadrant["pitch_range"]["overlap_of_real"] == 1
        assert quadrant["velocity"]["generated"] == pytest.approx(quadrant["velocity"]["real"])


def test_broken_pieces_are_counted() -> None:
    whole = Piece.of(np.arange(40) * 250, 60 + np.arange(40) % 12, [64] * 40, [250] * 40)
    silent = Piece.of([*range(0, 5000, 250), 8500, 9000], [*range(50, 70), 72, 74], [64] * 22, [250] * 22)
    sparse = Piece.of([0, 3000, 6000], [60, 64, 67], [64] * 3, [3000, 3000, 4000])
    stuck = Piece.of(np.arange(40) * 250, np.where(np.arange(40) % 3, 60, 64), [64] * 40, [250] * 40)
    found = breakage(of([whole, silent, sparse, stuck, whole]), 10.0)
    assert found == {"pieces": 5, "silence_above_3_s": 1, "under_20_notes_in_30_s": 1, "stuck_on_one_pitch": 1}


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
    real, ours = [random_piece(seed, 5) for seed in range(9)], [random_piece(seed, 40) for seed in range(5)]
    assert coherence(ear(), of(real), of(real))["median"] == pytest.approx(50, abs=8)
    assert coherence(ear(), of(ours), of(real))["median"] == 100
    assert coherence(ear(), of(real), of(ours))["upper_quartile"] == 0


def test_pieces_that_are_all_alike_have_no_variety_and_real_ones_have_their_own() -> None:
    emotion = np.arange(18) % 6
    real = of([random_piece(seed, 15) for seed in range(18)], emotion)
    assert variety(real, real) == pytest.approx(dict.fromkeys(EMOTIONS, 1.0))
    same = variety(of([random_piece(0, 15)] * 18, emotion), real)
    assert max(same.values()) < 1e-3
    assert variety(of([random_piece(0, 15)] * 2, [0, 1]), real) == {}


# ---- the whole page


def test_the_page_holds_every_section_and_is_plain_json(tmp_path: Path) -> None:
    told: list[str] = []
    report = evaluate(
        tiny.voice(tmp_path), clips(), ear(*[1, 2, 3, 4] * 20), SampleSettings(),
        count=2, seconds=10.0, seed=1, tell=lambda what, share: told.append(what),
    )  # fmt: skip
    assert json.loads(json.dumps(report)) == report
    assert report["obedience"]["generated"]["quadrant"]["count"] == 12
    assert report["obedience"]["real"]["quadrant"]["count"] == 7
    assert report["obedience"]["judge"] == {"quadrant": 0.7, "arousal": 0.9, "valence": 0.8}
    assert report["length"].keys() == {f"{length:g}" for length in LENGTHS_S}
    assert max(one["worst"] for one in report["length"].values()) < 0.01
    assert report["breakage"]["pieces"] == 12
    assert {"composing", "other lengths", "listening"} == set(told)
    for section in ("likelihood", "steering", "music", "memory", "coherence", "variety"):
        assert report[section]
