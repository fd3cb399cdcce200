from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from emogen.music.measures import MAJOR, MINOR, Measures, key_fit, measure, mode_fit, repetition, silences_ms
from emogen.music.notes import Piece

TONICS = ["C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"]
C_MAJOR_SCALE = (60, 62, 64, 65, 67, 69, 71, 72)
A_HARMONIC_MINOR_PASSAGE = (57, 60, 64, 69, 68, 71, 76, 69, 62, 65, 69, 64, 68, 71, 69, 57)


def line(*keys: int, beat_ms: int = 250) -> Piece:
    """One note after the other."""
    return Piece.of(np.arange(len(keys)) * beat_ms, keys, [64] * len(keys), [beat_ms] * len(keys))


def test_a_c_major_scale_is_in_c_major() -> None:
    assert measure(line(*C_MAJOR_SCALE)).key == "C major"


def test_a_passage_in_a_harmonic_minor_is_in_a_minor() -> None:
    assert measure(line(*A_HARMONIC_MINOR_PASSAGE)).key == "A minor"


@pytest.mark.parametrize("semitones", range(-11, 12))
def test_transposing_moves_the_tonic_and_keeps_the_mode(semitones: int) -> None:
    major, minor = line(*C_MAJOR_SCALE).transpose(semitones), line(*A_HARMONIC_MINOR_PASSAGE).transpose(semitones)
    assert measure(major).key == f"{TONICS[semitones % 12]} major"
    assert measure(minor).key == f"{TONICS[(9 + semitones) % 12]} minor"


def test_long_notes_count_more_for_the_key_than_short_ones() -> None:
    chords = Piece.of([0] * 6, [60, 64, 67, 61, 65, 68], [64] * 6, [2000, 2000, 2000, 100, 100, 100])
    assert measure(chords).key == "C major"
    assert measure(Piece.of(chords.onset_ms, chords.pitch, chords.velocity, chords.duration_ms[::-1])).key == "C# major"


@pytest.mark.parametrize("seed", range(5))
def test_the_fit_of_a_key_is_pearsons_correlation(seed: int) -> None:
    histograms = np.random.default_rng(seed).gamma(1.0, size=(7, 12))
    slow = [
        [np.corrcoef(one, np.roll(mode, tonic))[0, 1] for mode in (MAJOR, MINOR) for tonic in range(12)]
        for one in histograms
    ]
    np.testing.assert_allclose(key_fit(histograms), slow, atol=1e-12)
    slow_mode = [max(fit[:12]) - max(fit[12:]) for fit in slow]
    np.testing.assert_allclose(mode_fit(histograms), slow_mode, atol=1e-12)


def test_major_music_leans_to_major_and_minor_to_minor() -> None:
    major, minor = (
        np.bincount(np.array(keys) % 12, minlength=12) for keys in (C_MAJOR_SCALE, A_HARMONIC_MINOR_PASSAGE)
    )
    assert mode_fit(major) > 0.05
    assert mode_fit(minor) < -0.05


def test_music_on_all_keys_alike_leans_nowhere() -> None:
    assert mode_fit(np.ones(12)) == 0
    assert (key_fit(np.zeros(12)) == 0).all()


def test_the_measures_of_three_notes_are_those_worked_out_by_hand() -> None:
    piece = Piece.of([500, 1000, 3000], [60, 64, 67], [60, 70, 80], [1000, 500, 1000])
    assert measure(piece) == Measures(
        length_s=4.0,
        notes=3,
        notes_per_s=0.75,
        key="C major",
        velocity=70.0,
        pitch=191 / 3,
        pitch_range=7,
        polyphony=1.25,  # 2.5 s of notes in 2 s of sound
        longest_silence_s=1.5,
        pitch_classes=3,
        pitch_class_entropy=-(0.8 * np.log2(0.4) + 0.2 * np.log2(0.2)),  # a second, half a second, a second
        scale_consistency=1.0,
        ioi_variation=0.6,  # 0.5 s and 2 s
        repetition=0.0,
    )


def test_polyphony_is_the_number_of_notes_that_sound_together() -> None:
    assert measure(line(60, 62, 64)).polyphony == 1
    assert measure(Piece.of([0, 0, 0], [60, 64, 67], [64] * 3, [700] * 3)).polyphony == 3


def test_silence_is_counted_from_the_beginning_and_not_under_a_held_note() -> None:
    piece = Piece.of([3000, 3100, 5000, 10_000], [40, 60, 62, 64], [64] * 4, [5000, 100, 100, 100])
    assert silences_ms(piece).tolist() == [3000, 0, 0, 2000]
    assert measure(piece).longest_silence_s == 3.0


def test_silence_and_polyphony_are_those_of_a_millisecond_by_millisecond_count() -> None:
    rng = np.random.default_rng(0)
    piece = Piece.of(
        rng.integers(0, 20_000, 60), rng.integers(40, 80, 60), rng.integers(1, 128, 60), rng.integers(1, 900, 60)
    )
    sounding = np.zeros(piece.end_ms, dtype=int)
    for onset, duration in zip(piece.onset_ms, piece.duration_ms, strict=True):
        sounding[onset : onset + duration] += 1
    runs = "".join("-" if count else " " for count in sounding).split("-")
    found = measure(piece)
    assert found.polyphony == pytest.approx(sounding[sounding > 0].mean())
    assert found.longest_silence_s == max(map(len, runs)) / 1000


def test_a_piece_without_notes_measures_nothing() -> None:
    empty = Piece.of([], [], [], [])
    assert set(asdict(measure(empty)).values()) == {0, ""}
    assert silences_ms(empty).tolist() == []


def test_a_scale_holds_its_own_notes_in_every_key_and_half_of_the_chromatic_ones() -> None:
    for tonic in range(12):
        assert measure(line(*(60 + tonic + step for step in (0, 2, 4, 5, 7, 9, 11)))).scale_consistency == 1
    assert measure(line(*range(60, 72))).scale_consistency == 7 / 12


def test_an_even_pulse_has_no_variation_and_the_notes_of_a_chord_are_one_onset() -> None:
    assert measure(line(60, 62, 64, 65)).ioi_variation == 0
    spread = Piece.of([0, 20, 1000, 1020, 2000], [60, 64, 60, 64, 60], [64] * 5, [100] * 5)
    assert measure(spread).ioi_variation == pytest.approx(0, abs=0.01)


def test_repetition_is_the_share_of_runs_heard_before_in_any_key() -> None:
    tune = (60, 64, 62, 65, 67, 72)
    assert repetition(line(*tune)) == 0
    twice = line(*tune, *(key + 5 for key in tune))
    assert repetition(twice) == pytest.approx(1 / 7)  # of seven runs the last is the first again
    assert repetition(line(*[60, 62] * 20)) > 0.9
    assert repetition(line(60)) == 0


@pytest.mark.parametrize("seed", range(4))
def test_runs_are_told_apart_whatever_their_intervals(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pitch = rng.choice([21, 22, 64, 108] if seed % 2 else np.arange(60, 63), 400)
    piece = line(*pitch.tolist())
    runs = [tuple(np.diff(piece.pitch)[at : at + 5].tolist()) for at in range(395)]
    assert repetition(piece) == pytest.approx(1 - len(set(runs)) / len(runs))
