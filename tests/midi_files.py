"""Standard MIDI files made byte by byte, so that what the tests read is what they say."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from emogen.music.notes import Piece
from emogen.settings import TEST_DATA

EMOPIA = Path(os.environ.get(TEST_DATA, Path(__file__).parents[2] / "shared")) / "EMOPIA_1.0"
"""Where the real corpus is, if it is anywhere."""
needs_emopia = pytest.mark.skipif(not EMOPIA.is_dir(), reason=f"EMOPIA is not there: {EMOPIA}")

Event = tuple[int, bytes]
"""A tick and the bytes that follow the delta time."""


def variable_length(value: int) -> bytes:
    """Seven bits a byte, the highest first; all but the last have their top bit set."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F | 0x80)
    return bytes(reversed(digits))


def note(start: int, end: int, pitch: int = 60, velocity: int = 80, channel: int = 0) -> list[Event]:
    return [(start, bytes([0x90 | channel, pitch, velocity])), (end, bytes([0x80 | channel, pitch, 0]))]


def strike(tick: int, pitch: int = 60, velocity: int = 80) -> list[Event]:
    return [(tick, bytes([0x90, pitch, velocity]))]


def program(number: int, channel: int = 0, tick: int = 0) -> list[Event]:
    return [(tick, bytes([0xC0 | channel, number]))]


def pedal(tick: int, value: int, channel: int = 0) -> list[Event]:
    return [(tick, bytes([0xB0 | channel, 64, value]))]


def tempo(tick: int, microseconds_a_beat: int) -> list[Event]:
    return [(tick, b"\xff\x51\x03" + microseconds_a_beat.to_bytes(3, "big"))]


def text(tick: int, words: bytes) -> list[Event]:
    return [(tick, b"\xff\x01" + variable_length(len(words)) + words)]


def track(*parts: Iterable[Event], end: int | None = None) -> bytes:
    """A track of some events, which are put in order; it ends with the last of them or at tick ``end``."""
    events = sorted((event for part in parts for event in part), key=lambda event: event[0])
    body, now = b"", 0
    last = end if end is not None else max((tick for tick, _ in events), default=0)
    for tick, data in [*events, (last, b"\xff\x2f\x00")]:
        body += variable_length(tick - now) + data
        now = tick
    return b"MTrk" + struct.pack(">I", len(body)) + body


def midi(*tracks: bytes, file_format: int = 1, division: int = 500) -> bytes:
    """A whole file. With the default division and no tempo, a tick is a millisecond."""
    return b"MThd" + struct.pack(">IHHH", 6, file_format, len(tracks), division & 0xFFFF) + b"".join(tracks)


def tune(seed: int = 0, notes: int = 24) -> bytes:
    """A file with music of its own for every seed."""
    rng = np.random.default_rng(seed)
    starts = np.cumsum(rng.integers(50, 600, notes)).tolist()
    return midi(track(*(note(start, start + 200, int(rng.integers(40, 90))) for start in starts)))


def random_piece(seed: int, notes: int = 300) -> Piece:
    """Any valid piece: chords, repeated keys that touch, notes of a millisecond, silences."""
    rng = np.random.default_rng(seed)
    onset = np.cumsum(rng.choice([0, 0, 1, 7, 40, 333, 20_000], notes))
    pitch = rng.integers(21, 109, notes) if seed % 2 else rng.integers(60, 64, notes)
    return Piece.of(onset, pitch, rng.integers(1, 128, notes), rng.integers(1, 9_000, notes))


def dataset(folder: Path, songs: int = 12, clips: int = 2) -> Path:
    """A folder of made clips named as EMOPIA names them, the quadrants in turn, with its ``label.csv``."""
    (folder / "midis").mkdir(parents=True)
    rows = ["ID,4Q,annotator"]
    for song in range(songs):
        for clip in range(clips):
            name = f"Q{song % 4 + 1}_{'song_' + str(song):_<11}_{clip}"
            (folder / "midis" / f"{name}.mid").write_bytes(tune(song * clips + clip))
            rows.append(f"{name},{song % 4 + 1},A")
    (folder / "label.csv").write_text("\n".join(rows) + "\n")
    return folder


def zip_of(folder: Path, path: Path, leading: str = "") -> Path:
    """A zip archive of a folder's files, under a leading folder."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, leading + file.relative_to(folder).as_posix())
    return path
