from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from emogen.ear.classifier import Classifier
from emogen.ear.coherence import KINDS, SLIP_MS, Coherence, auc, disturb, features, percentile
from emogen.music import tokens
from emogen.music.midi import read_piece
from emogen.music.notes import HIGHEST_KEY, LOWEST_KEY, Piece
from tests.midi_files import EMOPIA, needs_emopia
from tests.music import random_piece

EMPTY = Piece.of([], [], [], [])


def tune(seed: int, bars: int = 12) -> Piece:
    """Chords of a progression in some key below a melody that steps through the scale, each bar of four beats."""
    rng = np.random.default_rng(seed)
    tonic, beat_ms = int(rng.integers(-5, 7)), int(rng.integers(400, 700))
    scale = np.array([0, 2, 4, 5, 7, 9, 11])
    roots = rng.permutation([0, 3, 4, 5])
    onset, pitch, beats = [], [], []
    degree = 14
    for bar in range(bars):
        for third in (0, 2, 4):
            octave, step = divmod(int(roots[bar % 4]) + third, 7)
            onset += [4 * bar, 4 * bar + 2]
            pitch += [48 + tonic + 12 * octave + scale[step]] * 2
            beats += [2, 2]
        for beat in range(4):
            degree = int(np.clip(degree + rng.integers(-1, 2), 9, 20))
            onset.append(4 * bar + beat)
            pitch.append(60 + tonic + 12 * (degree // 7) + scale[degree % 7])
            beats.append(1)
    velocity = rng.integers(40, 90, len(onset))
    return Piece.of(np.array(onset) * beat_ms, pitch, velocity, np.array(beats) * beat_ms - 10)


def tagged(piece: Piece) -> Piece:
    """The first notes of a piece, each with a velocity of its own to know it by."""
    return Piece(piece.onset_ms[:127], piece.pitch[:127], np.arange(1, 128)[: len(piece)], piece.duration_ms[:127])


def by_tag(piece: Piece) -> Piece:
    """The notes in the order of their tags."""
    order = piece.velocity.argsort()
    return Piece(piece.onset_ms[order], piece.pitch[order], piece.velocity[order], piece.duration_ms[order])


def before_and_after(seed: int, kind: str) -> tuple[Piece, Piece]:
    """A random piece and its disturbed copy, note by note."""
    piece = tagged(random_piece(seed, 60))
    return by_tag(piece), by_tag(disturb(piece, kind, np.random.default_rng(seed)))


@pytest.fixture(scope="module")
def fitted() -> Coherence:
    return Coherence.fit([tune(seed) for seed in range(24)], np.arange(24), 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_a_disturbed_piece_has_the_same_notes_otherwise(kind: str, seed: int) -> None:
    piece, copy = before_and_after(seed, kind)
    assert copy.velocity.tolist() == piece.velocity.tolist()
    if kind == "slipped":
        assert copy.pitch.tolist() == piece.pitch.tolist()
        assert copy.duration_ms.tolist() == piece.duration_ms.tolist()
        assert copy.onset_ms.tolist() != piece.onset_ms.tolist()
    else:
        assert copy.onset_ms.tolist() == piece.onset_ms.tolist()
        assert copy.pitch.tolist() != piece.pitch.tolist()
        assert ((copy.pitch >= LOWEST_KEY) & (copy.pitch <= HIGHEST_KEY)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_disturbed_piece_keeps_its_number_of_notes_on_the_grid(kind: str) -> None:
    piece = random_piece(0, 60)
    assert len(tokens.encode(disturb(piece, kind, np.random.default_rng(0)))) == len(piece)


@pytest.mark.parametrize("seed", range(5))
def test_shuffling_leaves_every_pitch_in_its_second(seed: int) -> None:
    piece, copy = before_and_after(seed, "shuffled")
    second = piece.onset_ms // 1000
    for one in np.unique(second):
        assert set(copy.pitch[second == one]) <= set(piece.pitch[second == one])
    assert (copy.pitch != piece.pitch).mean() > 0.4


def test_detuning_moves_an_eighth_of_the_notes_by_a_semitone() -> None:
    steps = np.concatenate(
        [copy.pitch - piece.pitch for piece, copy in (before_and_after(seed, "detuned") for seed in range(30))]
    )
    assert set(steps) == {-1, 0, 1}
    assert (steps != 0).mean() == pytest.approx(0.12, abs=0.02)
    assert (steps[steps != 0] > 0).mean() == pytest.approx(0.5, abs=0.1)


def test_moving_brings_a_third_of_the_notes_elsewhere_in_the_scale() -> None:
    pairs = [(tune(seed), disturb(tune(seed), "moved", np.random.default_rng(seed))) for seed in range(30)]
    for piece, copy in pairs:
        assert set(copy.pitch % 12) <= set(piece.pitch % 12)
    pairs = [before_and_after(seed, "moved") for seed in range(30)]
    steps = np.concatenate([np.abs(copy.pitch - piece.pitch) for piece, copy in pairs])
    assert set(steps) <= {0, 1, 2, 3, 4, 5}
    assert (steps > 0).mean() == pytest.approx(1 / 3, abs=0.04)


@pytest.mark.parametrize("seed", range(8))
def test_slipping_delays_one_hand_by_one_time(seed: int) -> None:
    piece, copy = before_and_after(seed, "slipped")
    late_ms = copy.onset_ms - piece.onset_ms
    assert len(set(late_ms)) == 2
    assert late_ms.min() == 0
    assert SLIP_MS[0] <= late_ms.max() <= SLIP_MS[1]
    lower = piece.pitch < np.median(piece.pitch)
    assert len(set(late_ms[lower])) == len(set(late_ms[~lower])) == 1


def test_either_hand_may_slip() -> None:
    lows = []
    for seed in range(20):
        piece, copy = before_and_after(seed, "slipped")
        lows.append(bool(copy.onset_ms[piece.pitch.argmin()] > piece.onset_ms[piece.pitch.argmin()]))
    assert set(lows) == {True, False}


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_or_a_tiny_piece_can_be_disturbed(kind: str) -> None:
    rng = np.random.default_rng(0)
    assert len(disturb(EMPTY, kind, rng)) == 0
    for key in (LOWEST_KEY, HIGHEST_KEY):
        for _ in range(20):
            copy = disturb(Piece.of([0], [key], [64], [100]), kind, rng)
            assert len(copy) == 1
            assert LOWEST_KEY <= copy.pitch[0] <= HIGHEST_KEY


def test_an_unknown_disturbance_is_named() -> None:
    with pytest.raises(ValueError, match="'burnt'"):
        disturb(tune(0), "burnt", np.random.default_rng(0))


def test_intervals_struck_together_are_heard_by_size() -> None:
    triad = Piece.of([0, 0, 0], [60, 64, 67], [64] * 3, [1000] * 3)
    shares = np.full(24, 1 / 24)
    shares[[3, 4, 7]] += 1
    np.testing.assert_allclose(np.exp(features([triad])[0, :24]), shares / 4)
    wide = Piece.of([0, 0], [48, 64], [64] * 2, [1000] * 2)
    assert features([wide])[0, :24].argmax() == 12 + 4


def test_an_upper_hand_always_late_is_heard_as_late() -> None:
    onset = np.arange(4) * 1000
    pitch = [45] * 4 + [70] * 4
    late = Piece.of([*onset, *onset + 100], pitch, [64] * 8, [500] * 8)
    early = Piece.of([*onset + 100, *onset], pitch, [64] * 8, [500] * 8)
    together = Piece.of([*onset, *onset], pitch, [64] * 8, [500] * 8)
    heard = np.exp(features([late, early, together])[:, -3:])
    np.testing.assert_allclose(heard, np.array([[1, 5, 5], [5, 1, 5], [0.2, 0.2, 0.2]]))


def test_the_end_of_a_piece_counts_like_its_beginning(fitted: Coherence) -> None:
    piece = tune(30, bars=20)
    copy = disturb(piece, "detuned", np.random.default_rng(0))
    half_ms = piece.end_ms // 2
    early, late = piece.onset_ms < half_ms, piece.onset_ms >= half_ms
    parts = [np.where(part, copy.pitch, piece.pitch) for part in (early, late)]
    halves = [Piece.of(piece.onset_ms, pitch, piece.velocity, piece.duration_ms) for pitch in parts]
    whole, *disturbed, all_of_it = fitted.score([piece, *halves, copy])
    assert all_of_it < min(disturbed) < max(disturbed) < whole


@pytest.mark.parametrize("semitones", [-12, -5, 1, 6, 12])
def test_another_key_has_the_same_score(fitted: Coherence, semitones: int) -> None:
    pieces = [tune(30), disturb(tune(31), "detuned", np.random.default_rng(0))]
    moved = [piece.transpose(semitones) for piece in pieces]
    np.testing.assert_allclose(fitted.score(moved), fitted.score(pieces), atol=1e-6)


def test_loudness_has_no_say(fitted: Coherence) -> None:
    piece = tune(30)
    quiet = replace(piece, velocity=np.random.default_rng(0).integers(1, 30, len(piece)))
    assert fitted.score([quiet]) == fitted.score([piece])


def test_a_late_beginning_has_no_say(fitted: Coherence) -> None:
    piece = tune(30)
    late = replace(piece, onset_ms=piece.onset_ms + 5000)
    assert fitted.score([late]) == fitted.score([piece])


def test_the_spread_of_chords_and_its_seed_have_hardly_a_say(fitted: Coherence) -> None:
    written = tokens.encode(tune(30))
    scores = fitted.score([tokens.decode(written, seed) for seed in (None, 0, 1, 2)])
    steady = np.abs(scores - scores[0]).max()
    assert steady < 0.05 * np.abs(fitted.score([disturb(tune(30), "detuned", np.random.default_rng(0))]) - scores[0])


def test_repeating_a_piece_changes_little(fitted: Coherence) -> None:
    piece = tune(30)
    twice = Piece.of(
        np.concatenate([piece.onset_ms, piece.onset_ms + piece.end_ms]),
        np.tile(piece.pitch, 2),
        np.tile(piece.velocity, 2),
        np.tile(piece.duration_ms, 2),
    )
    worse = fitted.score([disturb(piece, "moved", np.random.default_rng(0))])
    assert np.abs(fitted.score([twice]) - fitted.score([piece])) < 0.2 * (fitted.score([piece]) - worse)


@pytest.mark.parametrize("kind", KINDS)
def test_unheard_music_stands_above_its_disturbed_copies(fitted: Coherence, kind: str) -> None:
    unheard = [tune(seed) for seed in range(100, 120)]
    rng = np.random.default_rng(1)
    copies = [disturb(piece, kind, rng) for piece in unheard]
    assert auc(fitted.score(unheard), fitted.score(copies)) > 0.9
    assert fitted.aucs[kind] > 0.9


def test_music_made_at_random_scores_below_all_tunes(fitted: Coherence) -> None:
    chance = [random_piece(seed, 60) for seed in range(5)]
    assert fitted.score(chance).max() < fitted.score([tune(seed) for seed in range(100, 110)]).min()


def test_copies_of_chance_cannot_be_told_from_chance() -> None:
    aucs = Coherence.fit([random_piece(seed, 20) for seed in range(40)], np.arange(40), 0).aucs
    assert 0.3 < aucs["shuffled"] < 0.7
    assert 0.3 < aucs["detuned"] < 0.7


def test_a_song_is_scored_by_what_was_fitted_on_others(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted_on: list[npt.NDArray[np.float64]] = []
    fit = Classifier.fit

    def watched(x: npt.NDArray[np.float64], *arguments: Any, **named: Any) -> Classifier:
        fitted_on.append(x)
        return fit(x, *arguments, **named)

    monkeypatch.setattr(Classifier, "fit", watched)
    two_clips_each = np.repeat(np.arange(6), 2)
    Coherence.fit([tune(song, 4) for song in two_clips_each.tolist()], two_clips_each, 0)
    heard = np.unique(features([tune(song, 4) for song in range(6)]), axis=0)
    for x in fitted_on:  # the two clips are alike, so half of one song would be seen
        clips = [int((x == song).all(1).sum()) for song in heard]
        assert set(clips) <= {0, 2}
    assert sorted(len(x) for x in fitted_on) == [8 * 5, *[10 * 5] * 4, 12 * 5]


def test_one_seed_gives_one_score_and_another_seed_another() -> None:
    pieces = [tune(seed, 4) for seed in range(4)]
    scores = [Coherence.fit(pieces, np.arange(4), seed).score(pieces).tolist() for seed in (0, 0, 1)]
    assert scores[0] == scores[1] != scores[2]


def test_what_arrays_give_is_the_same_score_again(fitted: Coherence, tmp_path: Path) -> None:
    fitted = replace(fitted, aucs={kind: 0.5 + index / 10 for index, kind in enumerate(fitted.aucs)})
    save_file(fitted.arrays(), tmp_path / "score.safetensors")
    again = Coherence.of(load_file(tmp_path / "score.safetensors"))
    pieces = [tune(30), random_piece(0, 30)]
    assert again.score(pieces).tolist() == fitted.score(pieces).tolist()
    assert again.aucs == fitted.aucs


def test_a_piece_without_notes_scores_below_any_and_tiny_ones_are_no_trouble(fitted: Coherence) -> None:
    tiny = [Piece.of(np.arange(n) * 200, 60 + np.arange(n), [64] * n, [150] * n) for n in range(5)]
    chord = Piece.of([0, 0, 0], [60, 64, 67], [64] * 3, [1000] * 3)
    far = Piece.of([0, 100_000], [60, 64], [64] * 2, [10] * 2)
    scores = fitted.score([*tiny, chord, far])
    assert scores[0] == -np.inf
    assert np.isfinite(scores[1:]).all()
    assert fitted.score([]).shape == (0,)
    assert fitted.score([EMPTY]).tolist() == [-np.inf]


def test_a_score_is_fitted_on_two_songs_or_more_with_notes() -> None:
    for pieces, song in (([tune(0), tune(1)], [3, 3]), ([], []), ([tune(0), EMPTY], [0, 1])):
        with pytest.raises(ValueError, match="two songs or more"):
            Coherence.fit(pieces, np.array(song, dtype=np.int64), 0)


def test_the_auc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    real, disturbed = rng.integers(3, 12, 40).astype(float), rng.integers(0, 10, 60).astype(float)
    pairs = [(a > b) + (a == b) / 2 for a in real for b in disturbed]
    assert auc(real, disturbed) == pytest.approx(np.mean(pairs))
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1


@pytest.mark.parametrize("number", [1, 10, 11])
def test_the_median_of_real_scores_stands_at_50(number: int) -> None:
    real = np.random.default_rng(number).normal(size=number)
    assert percentile(np.array([np.median(real)]), real) == pytest.approx(50)
    assert percentile(real, real).mean() == pytest.approx(50)
    assert percentile(np.array([-np.inf, real.min() - 1, real.max() + 1]), real).tolist() == [0, 0, 100]


@pytest.mark.slow
@needs_emopia
def test_real_clips_are_told_from_disturbed_ones_and_the_less_the_harder(monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted((EMOPIA / "midis").glob("*_0.mid"))[::6]
    clips = [tokens.decode(tokens.encode(read_piece(file))).crop(0, 20_000) for file in files]
    half = len(clips) // 2
    score = Coherence.fit(clips[:half], np.arange(half), 0)
    real = score.score(clips[half:])
    for kind in KINDS:
        assert score.aucs[kind] > 0.75
    shares = []
    for share in (0.02, 0.06, 0.25):
        monkeypatch.setattr("emogen.ear.coherence.DETUNED", share)
        rng = np.random.default_rng(0)
        copies = score.score([disturb(clip, "detuned", rng) for clip in clips[half:]])
        shares.append(np.median(percentile(copies, real)))
    assert 50 > shares[0] > shares[1] > shares[2]
    assert shares[2] < 5
