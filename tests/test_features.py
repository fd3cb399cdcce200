from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from emogen.ear.features import NAMES, WINDOW_S, hear
from emogen.ear.windows import MOST_WINDOWS, windows
from emogen.music.notes import Piece
from emogen.music.tokens import decode, encode, on_grid
from tests.music import random_piece

REGISTER = ("pitch", "bass", "top", "octaves")


def named(piece: Piece) -> dict[str, float]:
    """The mean of the features over the windows of a piece, by name."""
    return dict(zip(NAMES, hear(piece).mean(0).tolist(), strict=True))


def music(seed: int, chords: int = 60) -> Piece:
    """Random chords in the middle of the piano, all within the tokens' grid."""
    piece = decode(encode(random_piece(seed, chords)))
    return Piece.of(piece.onset_ms, 45 + piece.pitch % 32, piece.velocity, piece.duration_ms)


def chords(*keys: tuple[int, ...], gap_ms: int = 500, velocity: int = 66, duration_ms: int = 400) -> Piece:
    """One chord after the other."""
    notes = [(gap_ms * at, key) for at, chord in enumerate(keys) for key in chord]
    onset_ms, pitch = zip(*notes, strict=True)
    return Piece.of(onset_ms, pitch, [velocity] * len(notes), [duration_ms] * len(notes))


def test_every_feature_has_a_name_of_its_own_and_a_finite_value() -> None:
    rows = hear(music(0))
    assert rows.shape[1] == len(NAMES) == len(set(NAMES)) > 200
    for seed in range(5):
        assert np.isfinite(hear(random_piece(seed, 80, (1, 3000)))).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("semitones", [-12, -5, 1, 12])
def test_another_key_changes_the_register_alone(seed: int, semitones: int) -> None:
    one, other = named(music(seed)), named(music(seed).transpose(semitones))
    changed = {name.partition("[")[0] for name in NAMES if one[name] != pytest.approx(other[name], abs=1e-9)}
    assert changed <= set(REGISTER)
    assert other["pitch[0]"] - one["pitch[0]"] == pytest.approx(semitones)


def test_silence_around_a_piece_changes_nothing() -> None:
    piece = music(0)
    later = Piece(piece.onset_ms + 3003, piece.pitch, piece.velocity, piece.duration_ms)
    np.testing.assert_array_equal(hear(later), hear(piece))


def test_a_piece_played_four_times_sounds_like_the_piece() -> None:
    rng = np.random.default_rng(0)
    keys = [tuple(rng.choice(np.arange(50, 74), 3, replace=False).tolist()) for _ in range(32)]
    once, often, other = named(chords(*keys)), named(chords(*keys * 4)), named(music(0))
    names = [name for name in NAMES if not name.startswith("pulse")]
    apart = sum(abs(once[name] - often[name]) for name in names)
    assert apart < 0.1 * sum(abs(once[name] - other[name]) for name in names)


def test_the_fingers_spread_within_a_chord_is_not_heard() -> None:
    tokens = encode(music(1))
    one, other = hear(decode(tokens)), hear(decode(tokens, spread_seed=1))
    same = np.isclose(one, other, atol=0.02).mean()
    assert same > 0.99


@pytest.mark.parametrize(("seconds", "windows"), [(1, 1), (12, 1), (12.5, 2), (18, 2), (18.5, 3), (60, 9)])
def test_windows_cover_a_piece_and_overlap_by_half_and_more(seconds: float, windows: int) -> None:
    beats = int(4 * seconds)
    assert len(hear(chords(*[(60, 64)] * beats, gap_ms=250, duration_ms=200))) == windows


def test_too_little_music_has_no_window() -> None:
    for piece in (Piece.of([], [], [], []), chords((60,)), chords((60, 64), (62, 65), (64, 67))):
        assert hear(piece).shape == (0, len(NAMES))
    assert len(hear(chords((60, 64), (62, 65), (64, 67), (60,)))) == 1
    silence = Piece.of([0, 500, 1000, 1500, *range(90_000, 92_000, 500)], [60] * 8, [64] * 8, [400] * 8)
    assert len(hear(silence)) < 4


def test_the_features_of_a_repeated_triad_are_those_worked_out_by_hand() -> None:
    heard = named(chords(*[(60, 64, 67)] * 21))
    expected = {
        "velocity[0]": 66,
        "velocity[1]": 0,
        "accent[0]": 0,
        "staccato[0]": 0,
        "density[0]": np.log(63 / 10),
        "density[1]": np.log(21 / 10),
        "gap[0]": np.log(0.5),
        "gap_change[0]": 0,
        "gap_ratios[4]": 1,
        "chord_size[0]": 3,
        "pulse_ms[0]": 500,
        "pitch[0]": 191 / 3,
        "bass[0]": 60,
        "top[0]": 67,
        "top_steps[3]": 1,
        "leaps[0]": 0,
        "sounding[0]": 3,
        "above_bass[0]": 1 / 3,
        "above_bass[4]": 1 / 3,
        "above_bass[7]": 1 / 3,
        "below_top[3]": 1 / 3,
        "top_above_bass[7]": 1,
        "interval_classes[3]": 1 / 3,
        "struck_intervals[7]": 1 / 3,
        "profile[4]": 1 / 3,
        "bass_profile[0]": 1,
        "profile_entropy[0]": np.log(3),
        "change[0]": 0,
    }
    assert {name: heard[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_major_and_minor_are_heard_apart() -> None:
    major = named(chords(*[(60, 64, 67), (65, 69, 72), (67, 71, 74), (60, 64, 67)] * 4, gap_ms=1000))
    minor = named(chords(*[(60, 63, 67), (65, 68, 72), (67, 71, 74), (60, 63, 67)] * 4, gap_ms=1000))
    assert major["mode[0]"] > 0 > minor["mode[0]"]
    assert major["chords[0]"] > 2 * major["chords[1]"]
    assert minor["chords[1]"] > 2 * minor["chords[0]"]


def test_loudness_and_tempo_are_heard_where_they_belong() -> None:
    keys = [(48, 60), (64,), (67,), (72,)] * 6
    plain = named(chords(*keys))
    loud, fast = named(chords(*keys, velocity=98)), named(chords(*keys, gap_ms=250, duration_ms=200))
    assert {name.partition("[")[0] for name in NAMES if loud[name] != pytest.approx(plain[name])} == {
        "velocity",
        "energy",
    }
    assert loud["velocity[0]"] == plain["velocity[0]"] + 32
    assert fast["density[0]"] - plain["density[0]"] == pytest.approx(np.log(2))
    assert fast["gap[0]"] - plain["gap[0]"] == pytest.approx(-np.log(2))


def pairs(window: Piece) -> dict[str, list[float]]:
    """The intervals of a window by looking at all pairs of its notes, one by one."""
    weights = {"interval_classes": [0.0] * 12, "intervals": [0.0] * 14, "struck_intervals": [0.0] * 12}
    notes = list(zip(*(column.tolist() for column in window.columns), strict=True))
    for one, (onset, pitch, velocity, duration) in enumerate(notes):
        for later, key, loud, _ in notes[one + 1 :]:
            if onset + duration - min(50, duration) >= later:
                interval = abs(key - pitch)
                weights["interval_classes"][interval % 12] += (velocity * loud) ** 0.5
                weights["intervals"][min(interval, 13)] += 1
                weights["struck_intervals"][interval % 12] += later == onset
    return {name: [value / max(sum(values), 1e-9) for value in values] for name, values in weights.items()}


@pytest.mark.parametrize("seed", range(6))
def test_intervals_are_those_of_all_pairs_that_sound_together(seed: int) -> None:
    piece = random_piece(seed, 40, (36, 280))
    window = next(windows(on_grid(piece.crop(int(piece.onset_ms[0]), piece.end_ms)), WINDOW_S, every_s=WINDOW_S))
    heard = dict(zip(NAMES, hear(piece)[0].tolist(), strict=True))
    for name, shares in pairs(window).items():
        assert [heard[f"{name}[{at}]"] for at in range(len(shares))] == pytest.approx(shares), name


def test_memory_does_not_grow_with_the_pairs_of_notes() -> None:
    chords = np.arange(333).repeat(88) * 36  # every key in every chord that 12 s hold
    piece = Piece.of(chords, np.tile(np.arange(21, 109), 333), np.full(len(chords), 64), np.full(len(chords), 36))
    tracemalloc.start()
    assert np.isfinite(hear(piece)).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(piece) == 29_304
    assert peak < 60e6  # all pairs of them would be 860 MB


def test_of_hours_and_hours_a_bounded_number_of_windows_is_heard() -> None:
    onset = np.arange(0, 20_000_000, 500)
    piece = Piece.of(onset, 40 + onset // 500 % 40, np.full(len(onset), 64), np.full(len(onset), 400))
    assert len(hear(piece)) == MOST_WINDOWS == 600
