"""Files on bars, read back by our reader and by mido."""

from __future__ import annotations

import io

import mido
import numpy as np
import pytest

from emogen.composing.form import compose
from emogen.music.chart import Chart
from emogen.music.midi import midi_bytes, read_piece, read_text
from emogen.music.midi_bars import SPAN, TICKS, bars_of, bytes_on_bars, in_right_hand
from emogen.music.notes import Piece
from tests.music import random_piece
from tests.test_form import BARS


def chart(seconds: float = 30.0, tempo_bpm: float = 87.0) -> Chart:
    bars = BARS.model_copy(update={"tempo_bpm": tempo_bpm})
    return compose(seconds, 0, True, bars, np.random.default_rng(0)).chart


def file_of(piece: Piece, bars: Chart, text: str = "") -> mido.MidiFile:
    return mido.MidiFile(file=io.BytesIO(midi_bytes(piece, text, bars)))


@pytest.mark.parametrize("tempo_bpm", [30.0, 87.0, 239.0])
def test_a_millisecond_is_the_same_after_reading(tempo_bpm: float) -> None:
    piece = random_piece(0, 150)
    assert read_piece(midi_bytes(piece, "what made it", chart(60, tempo_bpm))) == piece
    assert read_text(midi_bytes(piece, "what made it", chart(60, tempo_bpm))) == "what made it"


def test_a_beat_that_bends_is_written_beat_by_beat() -> None:
    steady = chart(60)
    beats_ms = (steady.beats_ms + 200 * np.sin(np.arange(len(steady)))).astype(np.int64)
    beats_ms[0] = 0
    bent = Chart(beats_ms, steady.place, steady.root, steady.quality, steady.section)
    piece = random_piece(1, 150)
    assert read_piece(midi_bytes(piece, "", bent)) == piece
    on_beats = Piece.of(
        beats_ms[:-1], np.full(len(beats_ms) - 1, 60), np.full(len(beats_ms) - 1, 64), np.full(len(beats_ms) - 1, 50)
    )
    ticks = np.cumsum([message.time for message in file_of(on_beats, bent).tracks[1]])
    on = [message.type == "note_on" for message in file_of(on_beats, bent).tracks[1]]
    assert (ticks[on] == np.arange(len(beats_ms) - 1) * TICKS).all()


def test_beats_lie_on_the_grid_and_the_last_bar_ends_with_the_piece() -> None:
    bars = chart(30.0)
    piece = Piece.of([0, *bars.beats_ms[1:-1]], [60] * (len(bars) - 1), [64] * (len(bars) - 1), [200] * (len(bars) - 1))
    file = file_of(piece, bars)
    tempos = [message.tempo for message in file.tracks[0] if message.type == "set_tempo"]
    assert len(tempos) == 1
    assert (len(bars) - 1) * tempos[0] / 1000 == pytest.approx(30_000, abs=1)
    at = np.cumsum([message.time for message in file.tracks[1]])
    on = np.array([message.type == "note_on" for message in file.tracks[1]])
    off_grid = np.abs(at[on] - np.arange(on.sum()) * TICKS)
    assert off_grid.max() <= TICKS / 500  # beats are whole milliseconds


def test_meter_sections_and_chords_are_written_where_they_begin() -> None:
    bars = compose(38.4, 9, True, BARS, np.random.default_rng(0), "AB").chart
    at, meters = 0, []
    markers: dict[float, list[str]] = {}
    for message in file_of(random_piece(0, 20), bars).tracks[0]:
        at += message.time
        if message.type == "marker":
            markers.setdefault(at / TICKS, []).append(message.text)
        if message.type == "time_signature":
            meters.append((at, message.numerator, message.denominator))
    assert meters == [(0, 4, 4)]
    assert markers[0.0] == ["section A", bars.names()[0]]
    assert markers[32.0][0] == "section B"
    names = bars.names()
    assert all(names[int(beat)] == texts[-1] for beat, texts in markers.items() if not texts[-1].startswith("section"))


def test_each_hand_has_a_track_and_reaches_a_tenth_at_most_where_that_can_be() -> None:
    piece = random_piece(3, 120)
    file = file_of(piece, chart(60))
    assert [track.name for track in file.tracks[1:]] == ["right hand", "left hand"]
    assert sum(message.type == "note_on" for track in file.tracks for message in track) == len(piece)
    chord = Piece.of([0] * 6, [50, 55, 62, 64, 67, 74], [64] * 6, [500] * 6)
    right = in_right_hand(chord)
    for hand in (right, ~right):
        assert np.ptp(chord.pitch[hand]) <= SPAN
    assert in_right_hand(Piece.of([0, 500], [40, 80], [64, 64], [100, 100])).tolist() == [False, True]


def test_a_chart_that_begins_elsewhere_or_has_no_beats_gives_a_plain_file() -> None:
    piece = random_piece(0, 20)
    plain = midi_bytes(piece)
    steady = chart()
    later = Chart(steady.beats_ms + 300, steady.place, steady.root, steady.quality, steady.section)
    assert midi_bytes(piece, "", Chart.none()) == midi_bytes(piece, "", later) == plain
    assert midi_bytes(piece, "", steady) != plain


def test_the_chart_is_found_again_in_the_file() -> None:
    bars = chart()
    piece = Piece.of([0, 900, 1800], [60, 64, 67], [70] * 3, [800, 800, int(bars.beats_ms[-1]) - 1800])
    found = bars_of(bytes_on_bars(piece, bars, "{}"))
    assert found is not None
    for name in ("beats_ms", "place", "root", "quality", "section"):
        np.testing.assert_array_equal(getattr(found, name), getattr(bars, name), name)
    assert found.beats_per_bar == bars.beats_per_bar


@pytest.mark.parametrize("damage", ["cut", "other ticks", "bytes", "chord", "key"])
def test_other_files_and_damaged_ones_have_no_chart(damage: str) -> None:
    data = bytes_on_bars(Piece.of([0], [60], [70], [5000]), chart())
    broken = {
        "cut": data[:60],
        "other ticks": midi_bytes(Piece.of([0], [60], [70], [5000])),
        "bytes": b"MThd" + bytes(40),
        "key": data.replace(b"\xff\x58\x04\x04\x02", b"\xff\x59\x04\x7e\x30"),
        "chord": data.replace(b"section A", b"section \xff"),
    }
    assert bars_of(broken[damage]) is None
