from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pretty_midi
import pytest

from emogen.errors import UnusableFile
from emogen.music.midi import midi_bytes, read_piece, read_text, write_piece
from emogen.music.midi_events import MAX_BYTES
from emogen.music.notes import Piece
from tests.midi_files import midi, note, pedal, program, random_piece, strike, tempo, text, track, tune


def rows(piece: Piece) -> list[tuple[int, int, int, int]]:
    """(onset, pitch, velocity, duration) of every note."""
    return list(
        zip(*(a.tolist() for a in (piece.onset_ms, piece.pitch, piece.velocity, piece.duration_ms)), strict=True)
    )


def times(data: bytes) -> list[tuple[int, int]]:
    """(onset, duration) of every note."""
    return [(onset, duration) for onset, _, _, duration in rows(read_piece(data))]


def reason(source: bytes | Path, any_instrument: bool = False) -> str:
    with pytest.raises(UnusableFile) as caught:
        read_piece(source, any_instrument)
    return str(caught.value)


@pytest.mark.parametrize("seed", range(8))
def test_a_piece_survives_a_file_unchanged(tmp_path: Path, seed: int) -> None:
    piece = random_piece(seed)
    write_piece(piece, tmp_path / "a.mid", "some text")
    assert rows(read_piece(tmp_path / "a.mid")) == rows(piece)


def test_ten_hours_survive_a_file_unchanged() -> None:
    onset = np.arange(0, 36_000_000, 6_001)
    piece = Piece.of(onset, 21 + onset % 88, 1 + onset % 127, 1 + onset % 7_000)
    assert rows(read_piece(midi_bytes(piece))) == rows(piece)


def test_the_same_piece_gives_the_same_bytes_and_another_text_other_bytes() -> None:
    piece = random_piece(1)
    assert midi_bytes(piece, "a") == midi_bytes(piece, "a") != midi_bytes(piece, "b")


def test_pretty_midi_hears_the_written_times(tmp_path: Path) -> None:
    write_piece(Piece.of([0, 1_234], [60, 72], [1, 127], [500, 28_766]), tmp_path / "a.mid")
    heard = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid"))
    (piano,) = heard.instruments
    assert (piano.program, piano.is_drum) == (0, False)
    assert [(round(n.start, 6), round(n.end, 6), n.pitch, n.velocity) for n in piano.notes] == [
        (0.0, 0.5, 60, 1),
        (1.234, 30.0, 72, 127),
    ]


def test_an_empty_piece_can_be_written(tmp_path: Path) -> None:
    write_piece(Piece.of([], [], [], []), tmp_path / "a.mid", "nothing")
    assert read_text(tmp_path / "a.mid") == "nothing"


@pytest.mark.parametrize("words", ["", "plain", '{"emotion": "happy"}', "Grüße, 音楽 🎹", "long " * 100])
def test_a_text_is_the_first_text_event_at_time_zero(words: str) -> None:
    data = midi_bytes(random_piece(0), words)
    assert read_text(data) == words
    assert (b"\x00\xff\x01" in data) == bool(words)


def test_the_text_of_other_peoples_files_is_read_too() -> None:
    assert read_text(midi(track(text(0, b"first"), text(0, b"second"), note(0, 5)))) == "first"
    assert read_text(midi(track(text(0, b"caf\xe9"), note(0, 5)))) == "caf\ufffd"
    assert read_text(midi(track(note(0, 5)))) == ""
    assert read_text(midi(track(tempo(0, 400_000)))[:-5]) == ""
    with pytest.raises(UnusableFile, match="not a MIDI file"):
        read_text(b"hello")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mid").write_bytes(b"old")

    def fail(descriptor: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_piece(random_piece(0), tmp_path / "a.mid")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mid"]
    assert (tmp_path / "a.mid").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty file"),
        (b"la la la\n" * 10, "not a MIDI file"),
        (b"MThd\x00\x00", "ends within its header"),
        (tune()[:24], "no notes"),
        (tune()[:25] + b"\xf4" * 40, "longer than four bytes"),
        (midi(track(note(0, 5)), division=0), "damaged"),
        (midi(), "no notes"),
        (midi(track(tempo(0, 500_000))), "no notes"),
        (midi(track(note(0, 100, channel=9))), "drums"),
        (midi(track(program(40), note(0, 100))), "no piano"),
        (midi(track(note(0, 100, pitch=20), note(0, 100, pitch=109))), "piano's keys"),
        (midi(track(note(0, 100)), track(note(0, 100)), file_format=2), "format 2 with 2 tracks"),
        (b"MThd" + bytes(MAX_BYTES), "larger than 4 MB"),
    ],
)
def test_an_unusable_file_is_refused_with_the_reason(data: bytes, why: str) -> None:
    assert why in reason(data)


def test_damaged_bytes_never_raise_anything_else() -> None:
    whole = midi(track(tempo(0, 400_000), text(0, b"t"), pedal(0, 90), pedal(300, 0)), track(program(3), note(0, 90)))
    rng = np.random.default_rng(0)
    refused = 0
    for attempt in range(600):
        data = bytearray(whole[: rng.integers(1, len(whole))] if attempt % 2 else whole)
        data[rng.integers(0, len(data))] = rng.integers(0, 256)
        try:
            read_piece(bytes(data))
        except UnusableFile:
            refused += 1
    assert 300 < refused < 600


def test_times_beyond_any_clock_are_damage() -> None:
    slow = midi(track(tempo(0, 2**24 - 1), *(note(at << 27, (at + 1) << 27) for at in range(9))), division=1)
    assert "beyond any clock" in reason(slow)


def test_an_unreadable_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    assert "cannot be read (No such file" in reason(tmp_path / "missing.mid")
    assert "cannot be read (Is a directory" in reason(tmp_path)


@pytest.mark.parametrize("file_format", [0, 1, 2])
def test_formats_0_1_and_a_single_pattern_of_format_2_are_read(file_format: int) -> None:
    assert times(midi(track(note(100, 350)), file_format=file_format)) == [(100, 250)]


def test_piano_tracks_and_programs_are_merged_and_all_else_is_left_out() -> None:
    data = midi(
        track(program(0), note(0, 100, 60)),
        track(program(7, 1), note(10, 100, 62, channel=1), program(41, 2), note(20, 100, 64, channel=2)),
        track(note(30, 100, 36, channel=9)),
        track(note(40, 100, 65, channel=3)),  # names no program: a piano
        track(note(50, 100, 20), note(50, 100, 109)),  # off the keys
    )
    assert rows(read_piece(data)) == [(0, 60, 80, 100), (10, 62, 80, 90), (40, 65, 80, 60)]
    assert rows(read_piece(data, any_instrument=True)) == rows(read_piece(data))


def test_any_instrument_merges_all_pitched_instruments_of_a_file_without_a_piano() -> None:
    data = midi(
        track(program(40), note(0, 100, 60)),
        track(program(73, 1), note(10, 100, 62, channel=1)),
        track(note(20, 100, 36, channel=9)),
    )
    assert "--any-instrument" in reason(data)
    assert rows(read_piece(data, any_instrument=True)) == [(0, 60, 80, 100), (10, 62, 80, 90)]


def test_times_follow_every_tempo_change_to_the_millisecond() -> None:
    # 480 ticks a beat; 120 bpm for two beats, 60 bpm for one, 200 bpm from there on
    changes = [*tempo(0, 500_000), *tempo(960, 1_000_000), *tempo(1440, 300_000)]
    notes = [note(tick, tick + 240, 50 + index) for index, tick in enumerate((0, 480, 960, 1200, 1440, 1920, 48_000))]
    expected = [(0, 250), (500, 250), (1000, 500), (1500, 500), (2000, 150), (2300, 150), (31_100, 150)]
    assert times(midi(track(changes), track(*notes), division=480)) == expected
    assert times(midi(track(changes, *notes), file_format=0, division=480)) == expected
    # the changes spread over tracks, out of order, one of them at tick 0 of a later track
    scattered = [track(changes[1:2]), track(*notes, changes[2:]), track(changes[:1])]
    assert times(midi(*scattered, division=480)) == expected


def test_a_track_of_no_bytes_is_passed_over() -> None:
    assert times(midi(b"MTrk" + bytes(4), track(note(0, 100)))) == [(0, 100)]


def test_a_tempo_that_comes_back_counts() -> None:
    changes = (tempo(0, 500_000), tempo(500, 1_000_000), tempo(1000, 500_000))
    assert times(midi(track(*changes, note(500, 1000), note(1500, 2000)))) == [(500, 1000), (2000, 500)]


def test_a_file_without_a_tempo_plays_at_120() -> None:
    assert times(midi(track(note(480, 960)), division=480)) == [(500, 500)]


@pytest.mark.parametrize(
    ("frames", "ticks_a_frame", "ms_per_tick"), [(25, 40, 1.0), (24, 100, 1000 / 2400), (29, 10, 1001 / 300)]
)
def test_smpte_division_counts_frames_and_ignores_tempo(frames: int, ticks_a_frame: int, ms_per_tick: float) -> None:
    data = midi(track(tempo(0, 250_000), note(3000, 9000)), division=-frames << 8 | ticks_a_frame)
    assert times(data) == [(round(3000 * ms_per_tick), round(9000 * ms_per_tick) - round(3000 * ms_per_tick))]


def test_a_hanging_note_ends_where_its_key_is_struck_again_or_with_its_track() -> None:
    data = midi(track(strike(0), note(1000, 1200), strike(3000), strike(3500, 72), end=5000))
    assert times(data) == [(0, 1000), (1000, 200), (3000, 2000), (3500, 1500)]


def test_overlapping_notes_of_one_key_end_at_the_next_strike() -> None:
    assert times(midi(track(note(0, 900), note(300, 1500)))) == [(0, 300), (300, 1200)]
    # in two tracks, as two voices that share a key
    assert times(midi(track(note(0, 900)), track(note(300, 600)))) == [(0, 300), (300, 300)]


def test_the_pedal_holds_released_keys_until_it_rises_or_the_key_is_struck_again() -> None:
    held = [note(0, 100, 60), note(200, 300, 64), note(500, 600, 64), note(2000, 2100, 67)]
    data = midi(track(*held, pedal(50, 127), pedal(1000, 30)))
    assert rows(read_piece(data)) == [
        (0, 60, 80, 1000),
        (200, 64, 80, 300),
        (500, 64, 80, 500),
        (2000, 67, 80, 100),
    ]


def test_the_pedal_holds_beyond_the_last_release() -> None:
    assert times(midi(track(note(0, 100), note(20, 150, 62), pedal(50, 64), pedal(1000, 0)))) == [(0, 1000), (20, 980)]


def test_a_pedal_below_half_holds_nothing() -> None:
    assert times(midi(track(note(0, 100), pedal(50, 63), pedal(1000, 0)))) == [(0, 100)]


def test_a_pedal_that_never_rises_holds_until_the_last_release() -> None:
    assert times(midi(track(note(0, 100), note(500, 900, 62), pedal(50, 64), end=60_000))) == [(0, 900), (500, 400)]


def test_the_pedal_of_one_channel_does_not_hold_another() -> None:
    assert times(midi(track(note(0, 100), pedal(50, 127, channel=1), pedal(900, 0, channel=1)))) == [(0, 100)]


def test_durations_that_include_the_pedal_already_are_left_as_they_are() -> None:
    # nearly every note ends just before the pedal rises, as transcribers write it; one ends earlier by their mistake
    parts = []
    for beat in range(10):
        at = beat * 1000
        parts += [note(at, at + 970, 50 + beat), pedal(at + 10, 127), pedal(at + 980, 0)]
    data = midi(track(*parts, note(300, 400, 90)))
    assert {pitch: duration for _, pitch, _, duration in rows(read_piece(data))}[90] == 100


@pytest.mark.skipif(sys.platform != "linux", reason="resource limits and units are Linux's")
def test_a_file_of_ten_hours_and_giant_pauses_needs_little_memory() -> None:
    beats = [note(tick, tick + 240, 40 + tick // 480 % 40) for tick in range(0, 48_000, 480)]
    data = midi(track(tempo(0, 500_000), tempo(2**27, 400_000), *beats, note(2**28 - 1, 2**28 + 9)), division=480)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    piece = read_piece(data)
    assert piece.end_ms > 10 * 3_600_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB; an array a tick would be 2 GB


def test_reading_imports_neither_pretty_midi_nor_torch() -> None:
    code = "import sys, emogen.music.midi; assert not {'pretty_midi', 'torch', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
