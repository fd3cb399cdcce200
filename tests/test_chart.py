from __future__ import annotations

import numpy as np
import pytest

from emogen.music import pulse
from emogen.music.chart import CLEAR, Chart, chord_name
from emogen.music.harmony import NO_CHORD, sections
from emogen.music.notes import Piece
from tests.charts import POP, bending, chord, played, steady
from tests.music import random_piece


def found(beats_ms: np.ndarray, chart: Chart, within_ms: float = 50) -> float:
    """Share of the true beats that the chart has."""
    return float(np.mean([np.abs(chart.beats_ms - beat).min() <= within_ms for beat in beats_ms]))


@pytest.mark.parametrize("bpm", [66, 76, 95, 112])
def test_beats_are_found_at_any_usual_tempo(bpm: float) -> None:
    beats = steady(bpm, 65)
    chart = Chart.of(played(beats))
    assert found(beats[:-1], chart) == 1
    assert chart.tempo_bpm == pytest.approx(bpm, rel=0.01)
    assert chart.is_clear


@pytest.mark.parametrize("bpm", [66, 100])
def test_bars_of_three_and_four_begin_where_the_chords_change(bpm: float) -> None:
    for beats_per_bar in (3, 4):
        beats = steady(bpm, 16 * beats_per_bar + 1)
        chart = Chart.of(played(beats, beats_per_bar=beats_per_bar))
        assert chart.beats_per_bar == beats_per_bar
        wanted = beats[:-1:beats_per_bar]
        downbeats = chart.beats_ms[chart.place == 0]
        assert all(np.abs(downbeats - beat).min() <= 50 for beat in wanted)


def columns(chart: Chart) -> tuple[np.ndarray, ...]:
    return chart.beats_ms, chart.place, chart.root, chart.quality, chart.section


@pytest.mark.parametrize(
    "bars", [POP, ("C", "Am", "Dm", "G7"), ("Em", "Bdim", "C", "B7"), ("Fmaj7", "Em7", "Dm7", "C")]
)
def test_chords_are_heard(bars: tuple[str, ...]) -> None:
    beats = steady(90, 65)
    chart = Chart.of(played(beats, bars))
    root, quality = chart.chord_at(beats[:-1] + 100)
    wanted = np.array([chord(bars[beat // 4 % len(bars)]) for beat in range(64)])
    assert np.mean(root == wanted[:, 0]) >= 0.95
    assert np.mean((root == wanted[:, 0]) & (quality == wanted[:, 1])) >= 0.75


def test_a_theme_that_returns_has_its_letter_again() -> None:
    theme, middle = ("C", "Am", "F", "G"), ("E7", "A7", "D7", "Abm")
    chart = Chart.of(played(steady(100, 65), (*theme, *theme, *middle, *theme)))
    assert chart.letters == "AAAAAAAABBBBAAAA"


def test_more_phrases_than_letters_are_given_the_letter_they_resemble_most() -> None:
    rng = np.random.default_rng(0)
    letters = sections(rng.random((4 * 4 * 40, 12)) ** 8, np.repeat(np.arange(4 * 40), 4))
    assert letters.max() == 25


def test_a_beat_that_all_notes_fall_on_is_clearer_than_any_other() -> None:
    beats = np.arange(0, 5000, 500)
    assert pulse.clarity(beats[:-1], beats) == 1
    assert pulse.clarity(np.arange(0, 4500, 20), beats) < 0.02


def test_fingers_that_are_20_ms_off_change_little() -> None:
    beats = steady(100, 65)
    chart = Chart.of(played(beats, jitter_ms=20))
    assert found(beats[:-1], chart, 60) >= 0.95
    assert chart.beats_per_bar == 4


def test_a_tempo_that_drifts_is_followed() -> None:
    beats = bending(np.linspace(80, 110, 97))
    chart = Chart.of(played(beats, jitter_ms=8))
    assert found(beats[:-1], chart, 60) >= 0.95


def test_rubato_is_followed_where_it_bends_gently() -> None:
    beats = bending(84 * (1 + 0.08 * np.sin(np.arange(97) * 2 * np.pi / 16)))
    chart = Chart.of(played(beats))
    assert found(beats[:-1], chart, 70) >= 0.9


def test_onsets_at_random_have_no_clear_pulse() -> None:
    charts = [Chart.of(random_piece(seed, 200, (40, 900))) for seed in range(8)]
    assert np.mean([chart.clarity for chart in charts]) < CLEAR


@pytest.mark.parametrize("semitones", [-5, 1, 6])
def test_transposing_moves_the_chords_and_nothing_else(semitones: int) -> None:
    piece = played(steady(96, 49), ("Am", "F", "Bdim", "E7"), jitter_ms=10)
    chart, moved = Chart.of(piece), Chart.of(piece.transpose(semitones))
    for one, other in zip(columns(chart.transposed(semitones)), columns(moved), strict=True):
        np.testing.assert_array_equal(one, other)


def test_transposing_keeps_what_is_no_chord() -> None:
    none = np.zeros(2, dtype=np.int8)
    chart = Chart(np.array([0, 500]), none, np.array([NO_CHORD, 11], dtype=np.int8), none, none)
    assert chart.transposed(2).root.tolist() == [NO_CHORD, 1]


def test_stretching_moves_the_beats_and_nothing_else() -> None:
    piece = played(steady(96, 65), jitter_ms=10)
    slow = Chart.of(piece.stretch(1.08))
    chart = Chart.of(piece).stretched(1.08)
    assert found(chart.beats_ms, slow, 30) >= 0.95
    assert slow.lines() == chart.lines()


def test_beats_cannot_be_pressed_into_one_millisecond() -> None:
    with pytest.raises(ValueError, match="no beats are left"):
        Chart.of(played(steady(96, 9))).stretched(1e-4)


def test_pieces_without_a_pulse_have_a_chart_too() -> None:
    for piece in (Piece.of([], [], [], []), Piece.of([100], [60], [64], [500])):
        chart = Chart.of(piece)
        assert len(chart) == 0
        assert (chart.tempo_bpm, chart.clarity, chart.lines(), chart.letters) == (0, 0, [], "")
        assert chart.beat_at([0, 1e6]).tolist() == [0, 0]
        assert chart.chord_at(5)[0] == NO_CHORD
        assert len(chart.crop(0, 100)) == len(chart.transposed(1)) == len(chart.stretched(2)) == 0
    assert len(Chart.of(Piece.of([100, 100], [60, 64], [64, 64], [500, 500]))) == 0


@pytest.mark.parametrize("gap_ms", [40, 300, 5_000, 600_000, 2**39])
def test_two_notes_have_beats_however_far_apart(gap_ms: int) -> None:
    chart = Chart.of(Piece.of([50, 50 + gap_ms], [60, 64], [64, 64], [400, 400]))
    assert 2 <= len(chart) < 100
    assert np.all(np.diff(chart.beats_ms) > 0)
    assert chart.beats_ms[0] <= 50 < 50 + gap_ms < chart.beats_ms[-1]


def test_music_goes_on_in_time_after_minutes_of_silence() -> None:
    first, second = played(steady(90, 33)), played(steady(90, 33, start_ms=300_000))
    both = Piece.of(*(np.concatenate([getattr(p, name) for p in (first, second)]) for name in Piece.__slots__))
    chart = Chart.of(both)
    assert found(np.concatenate([steady(90, 32), steady(90, 32, 300_000)]), chart) == 1
    assert len(chart) < 100


def test_a_long_piece_is_tracked_in_stretches_that_join(monkeypatch: pytest.MonkeyPatch) -> None:
    beats = bending(90 * (1 + 0.03 * np.sin(np.arange(161) / 9)))
    piece = played(beats, jitter_ms=5)
    whole = Chart.of(piece)
    monkeypatch.setattr(pulse, "STRETCH_MS", 30_000)
    parts = Chart.of(piece)
    assert found(beats[:-1], parts) >= 0.98
    assert len(parts) == len(whole)
    assert found(whole.beats_ms, parts, 1) >= 0.95


def test_any_number_of_long_rests_takes_no_more_than_their_beats() -> None:
    onset_ms = np.arange(500) * 60_000
    chart = Chart.of(Piece.of(onset_ms, np.full(500, 60), np.full(500, 64), np.full(500, 500)))
    assert found(onset_ms[1:], chart, 60) >= 0.95
    assert np.diff(chart.beats_ms).max() > 40_000


def test_days_of_music_have_no_chart() -> None:
    assert len(Chart.of(Piece.of(np.arange(20_000) * 8_000, [60] * 20_000, [64] * 20_000, [500] * 20_000))) == 0


def test_the_lowest_note_that_sounds_is_known_at_every_onset() -> None:
    piece = random_piece(3, 80)
    onsets = pulse.Onsets.of(piece)
    release_ms = piece.onset_ms + piece.duration_ms
    for number, first in enumerate(onsets.first.tolist()):
        end = onsets.first[number + 1] if number + 1 < len(onsets.first) else len(piece)
        held = np.flatnonzero(release_ms[:end] - pulse.CHORD_MS > onsets.time_ms[number])
        assert onsets.lowest[number] == piece.pitch[np.union1d(held, np.arange(first, end))].min()


def test_a_very_dense_piece_is_charted() -> None:
    rng = np.random.default_rng(0)
    piece = Piece.of(rng.integers(0, 20_000, 4000), rng.integers(21, 109, 4000), np.full(4000, 64), np.full(4000, 100))
    chart = Chart.of(piece)
    assert len(chart) > 10
    assert chart.clarity < CLEAR


def test_every_onset_lies_within_the_beats() -> None:
    for seed in range(20):
        piece = random_piece(seed, 60)
        chart = Chart.of(piece)
        assert chart.beats_ms[0] <= piece.onset_ms[0] + 50
        assert chart.beats_ms[-1] > piece.onset_ms[-1]
        assert np.all(np.diff(chart.beats_ms) > 0)
        assert {column.shape for column in columns(chart)} == {(len(chart),)}
        assert set(chart.place.tolist()) <= set(range(chart.beats_per_bar))
        assert -1 <= chart.root.min() <= chart.root.max() <= 11


def test_positions_are_told_in_beats_and_go_on_beyond_them() -> None:
    none = np.zeros(3, dtype=np.int8)
    chart = Chart(np.array([100, 600, 1600]), none, none, none, none)
    times = np.array([[-400, 100, 350], [1100, 1600, 2600]])
    np.testing.assert_array_equal(chart.beat_at(times), [[-1, 0, 0.5], [1.5, 2, 3]])
    np.testing.assert_array_equal(chart.time_at(chart.beat_at(times)), times)
    np.testing.assert_array_equal(chart.period_at(times), [[500, 500, 500], [1000, 1000, 1000]])


def test_a_crop_tells_the_same_as_the_whole() -> None:
    chart = Chart.of(played(steady(96, 65), jitter_ms=5))
    part = chart.crop(7_300, 15_100)
    times = np.arange(7_300, 15_100, 10)
    np.testing.assert_allclose(part.beat_at(times - 7_300) % 1, chart.beat_at(times) % 1)
    np.testing.assert_array_equal(part.chord_at(times - 7_300)[0], chart.chord_at(times)[0])
    assert part.beats_ms[0] <= 0 < part.beats_ms[1]
    assert part.beats_ms[-2] < 7_800 <= part.beats_ms[-1]
    assert len(chart.crop(10**7, 10**7 + 1)) == 2


def test_a_chart_is_stored_whole() -> None:
    chart = Chart.of(played(steady(96, 33), jitter_ms=5))
    again = Chart.from_rows(chart.rows(), chart.beats_per_bar, chart.clarity)
    for one, other in zip(columns(chart), columns(again), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert (again.beats_per_bar, again.clarity) == (chart.beats_per_bar, chart.clarity)


def test_chords_are_written_as_musicians_write_them() -> None:
    assert [chord_name(*one) for one in ((9, 1), (5, 0), (7, 2), (11, 5), (-1, 0))] == ["Am", "F", "G7", "Bdim", "N"]
    chart = Chart(
        np.arange(9) * 500,
        np.array([3, 0, 1, 2, 3, 0, 1, 2, 3], dtype=np.int8),
        np.array([-1, 9, 9, 9, 9, 0, 0, 7, 7], dtype=np.int8),
        np.array([0, 1, 1, 1, 1, 0, 0, 0, 2], dtype=np.int8),
        np.array([0, 0, 0, 0, 0, 1, 1, 1, 1], dtype=np.int8),
    )
    assert chart.lines(2) == ["| N | Am |", "| C G G7 |"]
    assert chart.crop(0, 2_200).lines() == ["| N | Am |"]
    assert chart.letters == "AAB"
    assert (chart.first_downbeat, chart.bar_beats.tolist()) == (1, [0, 1, 5])
