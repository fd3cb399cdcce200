"""The bytes of a standard MIDI file as events, however badly it is made.

A reader of our own, because none that we tried takes what players take. mido, which miditoolkit and pretty_midi stand
on, refuses a file for a key signature out of range, for one data byte above 127, for a running status that goes on
after a meta event; symusic 0.6.0 reads more, but refuses wrong track lengths, cut files and RIFF, drops notes that
are never released, and cannot say what it mended. Repairing the bytes first would mean parsing them twice. What is
not used (keys, meters, texts, system messages) is passed over here by its length alone, so it cannot do harm.

The format: MIDI Manufacturers Association, "Standard MIDI Files 1.0" (RP-001, 1996). (Above 300 lines: each way in
which files are badly made takes a few of them.)
"""

from __future__ import annotations

import stat
import struct
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from emogen.errors import UnusableFile
from emogen.music.notes import Ints

MAX_BYTES = 4_000_000
"""Largest file read: twenty hours of dense playing."""

OFF, ON, CONTROL, PROGRAM = 0x80, 0x90, 0xB0, 0xC0
PEDAL, ALL_SOUND_OFF, RESET, ALL_NOTES_OFF = 64, 120, 121, 123
"""Numbers of controllers; those from ALL_NOTES_OFF on release all keys (MIDI 1.0, "Channel Mode Messages")."""

MAX_ALIENS = 64
"""Most chunks that are no tracks in a row; bounds the time that a file made of nothing else takes."""

_HEADER = struct.Struct(">4sIHHh")
_END, _TEMPO, _PORT, _TEXT = 0x2F, 0x51, 0x21, 0x01
_SYSTEM_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1}
"""Data bytes of system messages, which have no place in a file; the others have none."""


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """The E events of a file that decide how its notes sound, by track, in each track by time."""

    file_format: int
    division: int
    """Ticks per beat; if negative, SMPTE: minus the frames per second times 256, plus the ticks per frame."""
    tick: Ints
    """(E,), from the beginning of the piece."""
    track: npt.NDArray[np.int32]
    """(E,), counted from 0."""
    channel: npt.NDArray[np.int32]
    """(E,): 16 times the port plus 0..15."""
    kind: npt.NDArray[np.uint8]
    """(E,): OFF, ON (never with velocity 0), CONTROL or PROGRAM."""
    number: npt.NDArray[np.uint8]
    """(E,): pitch, controller or program, 0..127."""
    value: npt.NDArray[np.uint8]
    """(E,): velocity or the controller's value, 0..127; 0 for OFF and PROGRAM."""
    tempo: list[tuple[int, int]]
    """(tick, microseconds per beat) of all tracks, in time order."""
    track_end: Ints
    """(tracks,): tick of each track's last event."""
    remarks: tuple[str, ...]
    """What was mended, in plain words."""


class _Layout(NamedTuple):
    """Where a file's parts are."""

    file_format: int
    track_count: int
    """As the header has it."""
    division: int
    start: int
    """First byte of the header."""
    chunks: int
    """First byte after it."""


def bytes_of(source: Path | bytes) -> bytes:
    """The whole file.

    Raises:
        UnusableFile: it is too large, or cannot be read.
    """
    if isinstance(source, bytes):
        data = source
    else:
        try:
            if stat.S_ISFIFO(source.stat().st_mode):
                raise UnusableFile("not a file")  # opening one would wait for whoever writes to it
            with source.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise UnusableFile(f"cannot be read ({error.strerror or error})") from None
    if len(data) > MAX_BYTES:
        raise UnusableFile(f"larger than {MAX_BYTES // 1_000_000} MB")
    return data


def read_events(data: bytes) -> Events:
    """The events of a file, given as its bytes.

    Where a track's length is wrong, the track ends with its end event or where the next one begins. Data bytes above
    127 count as 127. A running status survives system messages and meta events. The number of tracks in the header,
    chunks that are no tracks, and bytes before the header do not matter.

    Raises:
        UnusableFile: not a MIDI file, or a number in it is longer than four bytes.
    """
    layout = _layout(data)
    parser = _Parser(data)
    at, aliens = layout.chunks, 0
    while 0 <= at < len(data) and not data.startswith(b"MThd", at):
        if data.startswith(b"MTrk", at):
            at = parser.track(at)
        elif (end := _chunk_end(data, at)) and _is_boundary(data, end):
            at = end
        else:
            aliens += 1
            at = data.find(b"MTrk", at)
    remarks = []
    riff = data.startswith(b"RIFF")  # the header of a .rmi file, which may hold more than the music
    if layout.start and not riff:
        remarks.append(f"{count_of(layout.start, 'byte')} before the header passed over")
    if layout.file_format > 2:
        remarks.append(f"unknown format {layout.file_format} read as format 1")
    if aliens and not riff:
        remarks.append("bytes that are no track passed over")
    if 0 <= at < len(data):
        remarks.append("a second file that follows in it left out")
    if layout.track_count != len(parser.base):
        remarks.append(f"{count_of(len(parser.base), 'track')}, not the {layout.track_count} that the header promises")
    return parser.events(layout, remarks)


def first_text(data: bytes) -> bytes:
    """The first text event among the meta events that open a file's first track; empty where there is none."""
    at = data.find(b"MTrk", _layout(data).chunks) + 8
    try:
        while at > 7:
            _, at = number(data, at)
            if data[at] != 0xFF:
                break
            kind = data[at + 1]
            length, at = number(data, at + 2)
            if kind == _TEXT:
                return data[at : at + length]
            at += length
    except (IndexError, UnusableFile):
        pass
    return b""


def number(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits per byte that begins at ``at``, and the place after it.

    Raises:
        IndexError: the data end within it.
        UnusableFile: it has more than four bytes, which no file may have.
    """
    value = 0
    for place in range(at, at + 4):
        byte = data[place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + 1
    raise UnusableFile("damaged MIDI data (a number longer than four bytes)")


def _layout(data: bytes) -> _Layout:
    """What the header says, and where the chunks after it begin."""
    if not data:
        raise UnusableFile("empty file")
    start = data.find(b"MThd")
    if start < 0:
        raise UnusableFile("not a MIDI file", "MIDI files end in .mid, .midi, .kar, .smf or .rmi")
    if len(data) < start + _HEADER.size:
        raise UnusableFile("the file ends within its header")
    _, length, file_format, track_count, division = _HEADER.unpack_from(data, start)
    if division == 0 or (division < 0 and division & 0xFF == 0):
        raise UnusableFile("damaged MIDI data (no ticks in a beat)")
    end = start + 8 + length
    chunks = end if length > 6 and _is_boundary(data, end) else start + _HEADER.size
    return _Layout(file_format, track_count, division, start, chunks)


def _chunk_end(data: bytes, at: int) -> int:
    """Where the chunk that begins at ``at`` says that it ends; 0 where no chunk begins."""
    name = data[at : at + 4]
    return at + 8 + int.from_bytes(data[at + 4 : at + 8], "big") if name.isalnum() and len(data) >= at + 8 else 0


def _is_boundary(data: bytes, at: int) -> bool:
    """Whether a track begins at ``at``, or the file ends, or other chunks lead to either."""
    for _ in range(MAX_ALIENS):
        if at == len(data) or data.startswith(b"MTrk", at):
            return True
        if not (at := _chunk_end(data, at)):
            break
    return False


@dataclass(slots=True, eq=False)
class _Parser:
    """Goes through the tracks of a file one after the other, and keeps where their channel messages are."""

    data: bytes
    tick: array[int] = field(default_factory=lambda: array("q"))
    place: array[int] = field(default_factory=lambda: array("I"))
    """First data byte of each message, from its track's first byte."""
    status: bytearray = field(default_factory=bytearray)
    tempo: list[tuple[int, bytes]] = field(default_factory=list)
    ports: list[tuple[int, int]] = field(default_factory=list)
    """(first message, port): until the next entry the messages are for that port."""
    base: list[int] = field(default_factory=list)
    """Of each track: its first byte, its first message, its last tick."""
    first: list[int] = field(default_factory=list)
    end_tick: list[int] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    def track(self, at: int) -> int:
        """Read the track whose chunk begins at ``at``; where the next chunk begins, or -1 where none does."""
        data, start = self.data, at + 8
        declared = start + int.from_bytes(data[at + 4 : start], "big")
        sound = _is_boundary(data, declared)
        limit = declared if sound else data.find(b"MTrk", start)
        body = data[start : limit if limit >= 0 else len(data)]
        self.base.append(start)
        self.first.append(len(self.tick))
        self.ports.append((len(self.tick), 0))
        stopped, ended = self._messages(body)
        if sound or start + stopped == declared:
            self.faults["cut"] += stopped > len(body)
            return declared
        if ended or limit >= 0:
            self.faults["length"] += 1
        else:
            self.faults["cut"] += 1
        return data.find(b"MTrk", min(start + stopped, len(data)))

    def _messages(self, data: bytes) -> tuple[int, bool]:
        """Read one track's bytes: where it stopped (beyond the last byte if within an event), and if by its end."""
        keep_tick, keep_place, keep_status = self.tick.append, self.place.append, self.status.append
        size = len(data)
        at = now = status = 0
        ended = False
        try:
            while at < size:  # the one loop that is run for every event: kept tight
                step = data[at]
                at += 1
                if step > 0x7F:
                    step, at = number(data, at - 1)
                now += step
                byte = data[at]
                if byte > 0x7F:
                    at += 1
                    if byte < 0xF0:
                        status = byte
                    elif byte == 0xFF and data[at] == _END:
                        at, ended = at + 2, True
                        break
                    else:
                        at = self._system(data, at, byte, now)
                        continue
                elif not status:
                    self.faults["status"] += 1
                    at += 1
                    continue
                keep_tick(now)
                keep_place(at)
                keep_status(status)
                at += 1 if 0xC0 <= status < 0xE0 else 2
        except IndexError:
            at = size + 1
        if len(self.tick) > self.first[-1] and self.place[-1] + (1 if 0xC0 <= self.status[-1] < 0xE0 else 2) > size:
            for column in (self.tick, self.place, self.status):
                column.pop()  # not all of its data bytes are there
        self.end_tick.append(now)
        return at, ended

    def _system(self, data: bytes, at: int, status: int, now: int) -> int:
        """Pass over a system message or meta event, whose status byte ended before ``at``; where it ends."""
        if status == 0xFF:
            kind = data[at]
            length, at = number(data, at + 1)
            if kind == _TEMPO:
                self.tempo.append((now, data[at : at + length]))
            elif kind == _PORT and length:
                self.ports.append((len(self.tick), data[at]))
            return at + length
        if status in (0xF0, 0xF7):
            length, at = number(data, at)
            return at + length
        self.faults["system"] += 1
        return at + _SYSTEM_BYTES.get(status, 0)

    def events(self, layout: _Layout, remarks: list[str]) -> Events:
        """What was read, without the messages that nothing depends on."""
        tick = np.frombuffer(self.tick, np.int64)
        status = np.frombuffer(self.status, np.uint8)
        count = _spans(np.array(self.first, np.int64), len(tick))
        track = np.repeat(np.arange(len(count), dtype=np.int32), count)
        place = np.frombuffer(self.place, np.uint32) + np.repeat(np.array(self.base, np.uint32), count)
        raw = np.frombuffer(self.data, np.uint8)
        number, value = raw[place], raw[np.minimum(place + np.uint32(1), np.uint32(len(raw) - 1))]
        kind = status & np.uint8(0xF0)
        of_use = np.isin(number, (PEDAL, ALL_SOUND_OFF, RESET)) | ((number >= ALL_NOTES_OFF) & (number < 0x80))
        keep = np.flatnonzero((kind == OFF) | (kind == ON) | (kind == PROGRAM) | ((kind == CONTROL) & of_use))
        started, port = np.array(self.ports, np.int64).reshape(-1, 2).T
        of_port = np.repeat(port, _spans(started, len(tick)))
        channel = 16 * of_port[keep] + (status[keep] & 0x0F)
        kind, number, value = kind[keep], number[keep], value[keep]
        value[(kind == PROGRAM) | (kind == OFF)] = 0
        above = int((number > 0x7F).sum() + (value > 0x7F).sum())
        number, value = np.minimum(number, np.uint8(0x7F)), np.minimum(value, np.uint8(0x7F))
        kind[(kind == ON) & (value == 0)] = OFF
        tempo = sorted(self._tempos(), key=lambda change: change[0])
        return Events(
            layout.file_format,
            layout.division,
            tick[keep],
            track[keep],
            channel.astype(np.int32),
            kind,
            number,
            value,
            tempo,
            np.array(self.end_tick, np.int64),
            (*remarks, *self._remarks(above)),
        )

    def _tempos(self) -> Iterator[tuple[int, int]]:
        """The tempo changes that say something: three bytes, and not 0."""
        for tick, stated in self.tempo:
            microseconds = int.from_bytes(stated[:3], "big")
            if len(stated) >= 3 and microseconds:
                yield tick, microseconds
            else:
                self.faults["tempo"] += 1

    def _remarks(self, above: int) -> Iterator[str]:
        """What was mended within the tracks."""
        if count := self.faults["cut"]:
            yield f"cut off within {count_of(count, 'track')}"
        if count := self.faults["length"]:
            yield f"wrong length of {count_of(count, 'track')} ignored"
        if above:
            yield f"{count_of(above, 'data byte')} above 127 read as 127"
        if count := self.faults["status"]:
            yield f"{count_of(count, 'byte')} without a status passed over"
        if count := self.faults["system"]:
            yield f"{count_of(count, 'system message')} passed over"
        if count := self.faults["tempo"]:
            yield f"{count_of(count, 'tempo change')} without a tempo ignored"


def _spans(start: Ints, end: int) -> Ints:
    """From each start to the next one, and from the last to the end."""
    spans: Ints = np.append(start[1:], end) - start
    return spans


def count_of(number: int, what: str) -> str:
    """As in "1 track" or "2 tracks"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
