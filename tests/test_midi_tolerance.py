"""Files as the world has them: each kind of damage made many times over by a seeded generator, and read as the file
without it; and what the events of a channel mean for its notes."""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emogen.errors import UnusableFile
from emogen.music.midi import LAST_NOTE_MS, read_midi, read_piece, read_text
from emogen.music.midi_events import MAX_BYTES
from tests.midi_files import Event, midi, note, pedal, program, strike, tempo, text, track, variable_length
from tests.test_midi import reason, rows

Rng = np.random.Generator
Tracks = list[list[Event]]
SEEDS = range(6)


def tracks_of(rng: Rng, count: int = 0) -> Tracks:
    """The events of one to three tracks of music, none with the pedal; each track has a channel."""
    tracks: Tracks = []
    for channel in range(count or int(rng.integers(1, 4))):
        starts = np.cumsum(rng.integers(20, 400, 30)).tolist()
        notes = [note(at, at + int(rng.integers(20, 600)), int(rng.integers(30, 90)), 80, channel) for at in starts]
        tracks.append(sorted((event for part in notes for event in part), key=lambda event: event[0]))
    return tracks


def chunk(events: list[Event], running: bool = False, end: bytes = b"\x00\xff\x2f\x00") -> bytes:
    """A track of events in order; with ``running`` a status is written only where it changes."""
    body, now, status = b"", 0, -1
    for tick, data in events:
        body += variable_length(tick - now)
        now = tick
        if data[0] >= 0xF0:
            body += data  # the running status survives it
        else:
            body += data[1:] if running and data[0] == status else data
            status = data[0]
    return b"MTrk" + struct.pack(">I", len(body + end)) + body + end


def file_of(tracks: Tracks, running: bool = False, file_format: int = 1) -> bytes:
    return midi(*(chunk(events, running) for events in tracks), file_format=file_format)


def scattered(rng: Rng, tracks: Tracks, make: Callable[[Rng], bytes], count: int = 12) -> Tracks:
    """The tracks with other events among theirs, at ticks of the others' and between."""
    mixed = []
    for events in tracks:
        ticks = rng.integers(0, events[-1][0] + 1, count).tolist()
        ticks[:3] = [events[int(at)][0] for at in rng.integers(0, len(events), 3)]
        added = [(int(tick), make(rng)) for tick in ticks]
        mixed.append(sorted(events + added, key=lambda event: event[0]))
    return mixed


def meta(kinds: tuple[int, ...], longest: int = 9) -> Callable[[Rng], bytes]:
    def make(rng: Rng) -> bytes:
        body = rng.bytes(int(rng.integers(0, longest)))
        return bytes([0xFF, int(rng.choice(kinds))]) + variable_length(len(body)) + body

    return make


def system_exclusive(rng: Rng) -> bytes:
    body = rng.bytes(int(rng.integers(0, 300))) + b"\xf7"
    return bytes([int(rng.choice([0xF0, 0xF7]))]) + variable_length(len(body)) + body


def system_message(rng: Rng) -> bytes:
    status = int(rng.choice([0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF8, 0xFA, 0xFB, 0xFC, 0xFE]))
    return bytes([status]) + rng.integers(0, 128, {0xF1: 1, 0xF2: 2, 0xF3: 1}.get(status, 0)).astype(np.uint8).tobytes()


def unused_message(rng: Rng) -> bytes:
    """Pitch bends, aftertouch and controllers that change no note, with any data bytes."""
    status = int(rng.choice([0xA0, 0xB0, 0xD0, 0xE0])) | int(rng.integers(0, 16))
    first = int(rng.choice([0, 1, 7, 10, 66, 67, 91, 168, 255])) if status < 0xC0 else int(rng.integers(0, 256))
    return bytes([status, first]) + (b"" if status & 0xF0 == 0xD0 else rng.bytes(1))


UNUSED_METAS = tuple(set(range(128)) - {0x21, 0x2F, 0x51})

HARMLESS = {
    "keys": meta((0x59,)),
    "meters": meta((0x58,)),
    "SMPTE offsets": meta((0x54,)),
    "channel prefixes": meta((0x20,), 3),
    "texts of any encoding": meta((1, 2, 3, 4, 5, 6, 7), 400),
    "metas of any kind": meta(UNUSED_METAS),
    "SysEx": system_exclusive,
    "other messages": unused_message,
}


@pytest.mark.parametrize("kind", HARMLESS)
@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_not_used_cannot_hurt(kind: str, running: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tracks = tracks_of(rng)
    piece, remarks = read_midi(file_of(scattered(rng, tracks, HARMLESS[kind]), running))
    assert rows(piece) == rows(read_piece(file_of(tracks)))
    assert len(piece) > 20
    assert remarks == ()


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_system_messages_are_passed_over_with_a_remark(running: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tracks = tracks_of(rng, 1)
    piece, remarks = read_midi(file_of(scattered(rng, tracks, system_message), running))
    assert rows(piece) == rows(read_piece(file_of(tracks)))
    assert remarks == ("12 system messages passed over",)


@pytest.mark.parametrize("seed", SEEDS)
def test_data_bytes_above_127_count_as_127(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tracks = tracks_of(rng, 1)
    struck = [at for at, (_, data) in enumerate(tracks[0]) if data[0] & 0xF0 == 0x90]
    wrong, right = tracks[0].copy(), tracks[0].copy()
    for at in rng.choice(struck, 5, replace=False).tolist():
        tick, data = tracks[0][at]
        wrong[at] = tick, data[:2] + bytes([int(rng.integers(128, 256))])
        right[at] = tick, data[:2] + b"\x7f"
    piece, remarks = read_midi(file_of([wrong]))
    assert rows(piece) == rows(read_piece(file_of([right])))
    assert remarks == ("5 data bytes above 127 read as 127",)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("off", ["a little", "zero", "huge"])
def test_wrong_lengths_of_tracks_do_not_matter(seed: int, off: str) -> None:
    rng = np.random.default_rng(seed)
    tracks = tracks_of(rng)
    chunks = []
    for events in tracks:
        good = chunk(events)
        length = len(good) - 8
        wrong = {"a little": length + int(rng.choice([-9, -3, -2, -1, 1, 2, 3, 4, 50])), "zero": 0, "huge": 2**31}[off]
        chunks.append(good[:4] + struct.pack(">I", wrong) + good[8:])
    piece, remarks = read_midi(midi(*chunks))
    assert rows(piece) == rows(read_piece(file_of(tracks)))
    assert remarks == (f"wrong length of {len(tracks)} track{'s' * (len(tracks) > 1)} ignored",)


@pytest.mark.parametrize("missing", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_file_cut_within_its_end_loses_nothing(seed: int, missing: int) -> None:
    tracks = tracks_of(np.random.default_rng(seed))
    piece, remarks = read_midi(file_of(tracks)[:-missing])
    assert rows(piece) == rows(read_piece(file_of(tracks)))
    assert remarks == ("cut off within 1 track",)


@pytest.mark.parametrize("seed", SEEDS)
def test_of_a_file_cut_anywhere_all_is_read_that_came_before(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tracks = tracks_of(rng, 1)
    data, whole = file_of(tracks), rows(read_piece(file_of(tracks)))
    for at in rng.integers(40, len(data) - 4, 20).tolist():
        piece, remarks = read_midi(data[:at])
        assert rows(piece)[:-6] == whole[: max(len(piece) - 6, 0)]  # the last ones may lack their release
        assert [onset for onset, *_ in rows(piece)] == [onset for onset, *_ in whole[: len(piece)]]
        assert remarks[0] == "cut off within 1 track"
    assert len(piece) > 5


@pytest.mark.parametrize("promised", [0, 1, 4, 65_535])
def test_the_number_of_tracks_in_the_header_does_not_matter(promised: int) -> None:
    data = file_of(tracks_of(np.random.default_rng(0), 2))
    piece, remarks = read_midi(data[:10] + struct.pack(">H", promised) + data[12:])
    assert rows(piece) == rows(read_piece(data))
    assert remarks == (f"2 tracks, not the {promised} that the header promises",)


def test_tracks_without_an_end_event_are_whole() -> None:
    tracks = tracks_of(np.random.default_rng(1), 3)
    piece, remarks = read_midi(midi(*(chunk(events, end=b"") for events in tracks)))
    assert rows(piece) == rows(read_piece(file_of(tracks)))
    assert remarks == ()


@pytest.mark.parametrize("seed", SEEDS)
def test_chunks_that_are_no_tracks_and_longer_headers_are_passed_over(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tracks = tracks_of(rng)

    def alien() -> bytes:
        body = rng.bytes(int(rng.integers(0, 200)))
        return bytes(rng.choice(list(b"ABCXYZabc123"), 4).astype(np.uint8)) + struct.pack(">I", len(body)) + body

    chunks = [part for events in tracks for part in (alien(), chunk(events))] + [alien()]
    more = rng.bytes(int(rng.integers(0, 20)))
    header = b"MThd" + struct.pack(">IHHH", 6 + len(more), 1, len(tracks), 500) + more
    piece, remarks = read_midi(header + b"".join(chunks))
    assert rows(piece) == rows(read_piece(file_of(tracks)))
    assert remarks == ()


@pytest.mark.parametrize("seed", SEEDS)
def test_bytes_before_between_and_after_the_chunks_are_passed_over(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tracks = tracks_of(rng, 2)
    before, between, after = (bytes([0, *rng.bytes(int(rng.integers(0, 300)))]) for _ in range(3))
    data = file_of(tracks)
    second = data.rindex(b"MTrk")
    piece, remarks = read_midi(before + data[:second] + between + data[second:] + after)
    assert rows(piece) == rows(read_piece(data))
    assert remarks[0] == f"{len(before)} byte{'s' * (len(before) > 1)} before the header passed over"
    assert remarks[1] == "bytes that are no track passed over"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_riff_file_is_read_with_what_else_it_holds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = file_of(tracks_of(rng))
    info = b"LIST" + struct.pack("<I", 20) + b"INFOINAM" + struct.pack("<I", 8) + b"a title\x00"
    parts = [info] * int(rng.integers(0, 2)), [info] * int(rng.integers(0, 2))
    inside = b"data" + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    body = b"RMID" + b"".join([*parts[0], inside, *parts[1]])
    piece, remarks = read_midi(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert rows(piece) == rows(read_piece(data))
    assert remarks == ()


@pytest.mark.parametrize("file_format", [3, 5, 255, 65_535])
def test_an_unknown_format_is_read_as_format_1(file_format: int) -> None:
    tracks = tracks_of(np.random.default_rng(0), 2)
    piece, remarks = read_midi(file_of(tracks, file_format=file_format))
    assert rows(piece) == rows(read_piece(file_of(tracks)))
    assert remarks == (f"unknown format {file_format} read as format 1",)


def test_of_format_2_a_single_pattern_is_read() -> None:
    tracks = tracks_of(np.random.default_rng(0), 1)
    pattern = [list(tempo(0, 400_000)), *tracks]
    assert rows(read_piece(file_of(pattern, file_format=2))) == rows(read_piece(file_of(pattern)))
    assert "separate patterns" in reason(file_of(tracks * 2, file_format=2))


@pytest.mark.parametrize("stated", [b"", b"\x07", b"\x07\xa1", b"\x00\x00\x00", b"\x00\x00\x00\x00"])
def test_a_tempo_that_is_none_changes_nothing(stated: bytes) -> None:
    wrong = [(300, b"\xff\x51" + bytes([len(stated)]) + stated)]
    piece, remarks = read_midi(midi(track(tempo(0, 250_000), wrong, note(200, 400), note(600, 800))))
    assert [(onset, duration) for onset, _, _, duration in rows(piece)] == [(100, 100), (300, 100)]
    assert remarks == ("1 tempo change without a tempo ignored",)


def test_bytes_without_a_status_are_passed_over() -> None:
    body = b"\x00\x3c\x00\x50" + chunk(note(0, 300))[8:]
    piece, remarks = read_midi(midi(b"MTrk" + struct.pack(">I", len(body)) + body))
    assert rows(piece) == [(0, 60, 80, 300)]
    assert remarks == ("2 bytes without a status passed over",)


def test_of_two_files_in_one_the_first_is_read() -> None:
    one, other = (file_of(tracks_of(np.random.default_rng(seed))) for seed in (0, 1))
    piece, remarks = read_midi(one + other)
    assert rows(piece) == rows(read_piece(one))
    assert remarks == ("a second file that follows in it left out",)


@pytest.mark.parametrize(
    "body",
    [
        b"\xff" * 1_000_000,
        b"\x80" * 2_000_000 + b"\x01\x90\x3c\x50",
        b"\x00\x90\x3c\x50\x81\x80\x80\x80\x00\x80\x3c\x00",
        b"\x00\xff\x01\xff\xff\xff\xff\x7f" + bytes(100),
        b"\x00\xf0\x80\x80\x80\x80\x01\xf7" + bytes(100),
    ],
)
def test_numbers_longer_than_four_bytes_are_refused(body: bytes) -> None:
    assert reason(midi(b"MTrk" + struct.pack(">I", len(body)) + body)) == (
        "damaged MIDI data (a number longer than four bytes)"
    )


@pytest.mark.slow
def test_files_made_of_nothing_but_chunks_end() -> None:
    few = MAX_BYTES // 8 - 10
    assert reason(midi() + (b"MTrk" + struct.pack(">I", 2**31)) * few) == "no notes"
    assert reason(midi() + (b"ABCD" + bytes(4)) * few) == "no notes"
    half = few // 4  # tracks whose lengths all lead to a long row of chunks that leads nowhere
    aliens = half * 12
    tracks = [b"MTrk" + struct.pack(">I", aliens - 12 * at - 8) + b"\x00\xff\x2f\x00" for at in range(half)]
    assert reason(midi() + b"".join(tracks) + (b"ABCD" + bytes(4)) * half + bytes(7)) == "no notes"


def test_the_manifest_of_a_file_is_found_behind_whatever_precedes_it() -> None:
    data = midi(track(text(0, b"made by"), note(0, 100)))
    for wrapped in (
        bytes(128) + data,
        b"RIFF\0\0\0\0RMIDdata\0\0\0\0" + data,
        data.replace(b"MTrk", b"ABCD\0\0\0\0MTrk"),
    ):
        assert read_text(wrapped) == "made by"


def test_how_fast_a_key_is_released_does_not_matter() -> None:
    data = midi(track([(0, b"\x90\x3c\x50"), (300, b"\x80\x3c\xff")]))
    assert read_midi(data).remarks == ()
    assert rows(read_piece(data)) == [(0, 60, 80, 300)]


def test_memory_is_linear_in_notes_that_are_never_released() -> None:
    strikes = np.ones((300_000, 3), dtype=np.uint8)
    strikes[:, 1] = 21 + np.arange(300_000) % 88
    body = b"\x00\x90\x3c\x40" + strikes.tobytes() + b"\x00\xff\x2f\x00"
    tracemalloc.start()
    piece, remarks = read_midi(midi(b"MTrk" + struct.pack(">I", len(body)) + body))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(piece) == 300_001
    assert remarks == ("88 notes never released: ended with the music",)
    assert peak < 200 * len(piece)  # bytes; the largest file that is read holds 1.3 million notes


# ---- what the events of a channel mean


def control(tick: int, number: int, value: int = 0, channel: int = 0) -> list[Event]:
    return [(tick, bytes([0xB0 | channel, number, value]))]


def port(number: int) -> list[Event]:
    return [(0, bytes([0xFF, 0x21, 1, number]))]


def times(*tracks: bytes, any_instrument: bool = False) -> list[tuple[int, int, int]]:
    """(onset, pitch, duration) of every note."""
    return [(on, pitch, length) for on, pitch, _, length in rows(read_piece(midi(*tracks), any_instrument))]


def test_a_channel_has_its_pedal_and_its_program_over_all_tracks() -> None:
    notes = track(note(0, 100, 60), note(0, 100, 62, channel=1))
    commands = track(pedal(50, 127), pedal(900, 0), program(40, channel=1))
    for order in ((notes, commands), (commands, notes)):
        assert times(*order) == [(0, 60, 900)]


def test_a_channel_of_another_port_is_another_channel() -> None:
    notes = track(note(0, 100, 60)), track(port(1), note(0, 100, 62))
    assert times(*notes, track(port(1), pedal(50, 127), pedal(900, 0))) == [(0, 60, 100), (0, 62, 900)]
    assert times(*notes, track(port(1), program(40))) == [(0, 60, 100)]
    assert times(track(port(1), note(0, 100, 60, channel=9)), track(note(0, 50, 62))) == [(0, 62, 50)]


def test_a_note_has_the_program_that_its_channel_had_when_it_was_struck() -> None:
    data = track(note(0, 500, 60), program(48, tick=100), note(200, 400, 62), program(1, tick=600), note(600, 700, 64))
    assert times(data) == [(0, 60, 500), (600, 64, 100)]
    assert times(track(program(40), note(0, 100, 60)), track(note(0, 50, 62, channel=1))) == [(0, 62, 50)]
    assert "--any-instrument" in reason(midi(track(program(73), note(0, 100)), track(note(0, 100, 62))))


def test_all_notes_off_releases_every_key_of_its_channel_and_the_pedal_holds_them() -> None:
    for number in range(123, 128):
        others = note(0, 500, 62, channel=1)
        assert times(track(strike(0, 60), others, control(300, number), note(400, 500, 60))) == [
            (0, 60, 300),
            (0, 62, 500),
            (400, 60, 100),
        ]
        assert times(track(note(0, 500, 60), control(300, number), note(700, 800, 62)))[0] == (0, 60, 300)
        held = pedal(50, 127), control(300, number), pedal(800, 0)
        assert times(track(note(0, 500, 60), *held)) == [(0, 60, 800)]
    assert times(track(note(0, 500, 60)), track(control(300, 123))) == [(0, 60, 300)]


def test_all_sound_off_ends_what_the_pedal_holds_too() -> None:
    assert times(track(strike(0, 60), note(0, 50, 64), pedal(20, 127), control(300, 120), pedal(900, 0))) == [
        (0, 60, 300),
        (0, 64, 300),
    ]


def test_silencing_a_channel_at_the_tick_of_a_strike_leaves_the_strike() -> None:
    assert times(track(note(0, 100, 60), note(500, 600, 62), control(500, 123), control(0, 120))) == [
        (0, 60, 100),
        (500, 62, 100),
    ]


def test_resetting_the_controllers_lifts_the_pedal() -> None:
    assert times(track(note(0, 100, 60), pedal(50, 127), control(700, 121), note(900, 1000, 62))) == [
        (0, 60, 700),
        (900, 62, 100),
    ]


def test_a_release_after_the_next_strike_at_one_tick_belongs_to_the_note_before() -> None:
    for first, second in ((note(0, 500), note(500, 900)), (note(0, 500, velocity=1), note(500, 900))):
        events = [*first[:1], *second[:1], *first[1:], *second[1:]]
        assert times(chunk(events)) == [(0, 60, 500), (500, 60, 400)]
    stuck = [*strike(0), *note(100, 500)[:1], *note(500, 900)[:1], *note(100, 500)[1:], *note(500, 900)[1:]]
    assert times(chunk(stuck)) == [(0, 60, 100), (100, 60, 400), (500, 60, 400)]


def test_a_release_in_another_track_of_the_channel_ends_a_note_that_has_none() -> None:
    strikes = [*strike(0, 60), *strike(500, 60), *strike(500, 64)]
    releases = [(200, b"\x80\x3c\x00"), (900, b"\x80\x3c\x00"), (800, b"\x90\x40\x00")]
    assert times(track(strikes), track(releases)) == [(0, 60, 200), (500, 60, 400), (500, 64, 300)]


def test_releases_of_keys_that_are_up_count_for_nothing() -> None:
    off = [(tick, b"\x80\x3c\x40") for tick in (0, 50, 350, 360)]
    assert times(track(off, note(100, 300), note(500, 700))) == [(100, 60, 200), (500, 60, 200)]


def test_hanging_notes_end_with_the_music_and_are_counted() -> None:
    melody = [note(at, at + 200, 60 + at // 500) for at in range(0, 5000, 500)]
    for end in (4700, 10_000, 1_800_000):
        data = midi(track(*melody, strike(700, 40), strike(4000, 41), end=end))
        piece, remarks = read_midi(data)
        assert piece.end_ms == 4700
        assert {pitch: length for _, pitch, _, length in rows(piece) if pitch < 60} == {40: 4000, 41: 700}
        assert remarks == ("2 notes never released: ended with the music",)
    assert read_piece(midi(track(*melody), track(strike(700, 40, 80)), track(end=3_600_000))).end_ms == 4700


def test_a_last_note_that_hangs_ends_with_its_track_and_half_an_hour_is_too_long() -> None:
    assert times(track(note(0, 300, 60), strike(500, 62), end=2500)) == [(0, 60, 300), (500, 62, 2000)]
    assert times(track(strike(500, 62), end=1_800_000)) == [(500, 62, LAST_NOTE_MS)]
    assert times(track(note(0, 300, 60), strike(500, 62)), track(end=9000))[-1] == (500, 62, 1)


def test_the_pedal_does_not_hold_the_last_notes_for_half_an_hour() -> None:
    assert times(track(note(0, 300, 60), pedal(50, 127), pedal(5000, 0))) == [(0, 60, 5000)]
    assert times(track(note(0, 300, 60), pedal(50, 127), pedal(1_800_000, 0))) == [(0, 60, 300 + LAST_NOTE_MS)]


def test_chords_that_end_just_before_the_pedal_do_not_make_it_counted_twice() -> None:
    parts = []
    for at in range(0, 20_000, 2000):  # three of seven notes end 20 ms before the pedal rises
        parts += [pedal(at + 20, 127), pedal(at + 1960, 0), *(note(at, at + 1940, 48 + key) for key in (0, 4, 7))]
        parts += [note(at + 200 + 400 * key, at + 400 + 400 * key, 72 + key) for key in range(4)]
    assert {(on + length) % 2000 for on, _, length in times(track(*parts))} == {1960}


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mid")
    with pytest.raises(UnusableFile, match="not a file"):
        read_piece(tmp_path / "pipe.mid")
