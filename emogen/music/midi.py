"""MIDI files: the only place where files, ticks and seconds exist.

Reading keeps time exact (every tempo change of every track, SMPTE division) and rounds each tick to the nearest
millisecond. Writing uses a grid on which one tick is one millisecond, so a piece survives a file unchanged.
"""

from __future__ import annotations

import io
import struct
from collections import Counter
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import miditoolkit
import numpy as np
import numpy.typing as npt

from emogen.errors import UnusableFile
from emogen.music.notes import HIGHEST_KEY, LOWEST_KEY, Ints, Piece
from emogen.system.files import whole

if TYPE_CHECKING:
    import pretty_midi

MAX_BYTES = 4_000_000
"""Largest file read: twenty hours of dense playing. The parser takes about a hundred bytes of memory a byte of file."""

MAX_MS = 2**40
"""Times beyond this (34 years) come from damaged bytes, and would overflow."""

PIANO_PROGRAMS = range(8)
SUSTAIN_PEDAL, PEDAL_DOWN = 64, 64
"""The controller's number, and its lowest value that holds the dampers up."""

ALREADY_MS, ALREADY_SHARE = 50, 1 / 3
"""When durations count as including the pedal already: see ``_merge``."""

DEFAULT_TEMPO_US = 500_000
_HEADER = struct.Struct(">4sIHHh")
_NTSC_FRAMES = {29: 30_000 / 1001}
"""Frames a second that SMPTE's names round."""


def read_piece(source: Path | bytes, any_instrument: bool = False) -> Piece:
    """The piano music of a standard MIDI file, given as a path or as its bytes.

    All tracks with a piano program (0..7; a track that names none is a piano) are merged, drums never. With
    ``any_instrument`` a file without a piano gives all its pitched instruments instead. Pitches off the piano's keys
    are dropped. The sustain pedal is folded into durations: a key released while the pedal is down sounds until the
    pedal rises or the key is struck again. A note that is never released ends the same way, or with its track.
    Files whose durations already include the pedal are left as they are (see ``_merge``).

    Raises:
        UnusableFile: not a readable MIDI file, or no such notes in it; the message says why, without the file's name.
    """
    data = _bytes_of(source)
    file_format, track_count, division = _header(data)
    if file_format > 2:
        raise UnusableFile(f"unknown MIDI format {file_format}")
    if file_format == 2 and track_count > 1:
        raise UnusableFile(f"MIDI format 2 with {track_count} tracks: separate patterns, not one piece")
    if not track_count:
        raise UnusableFile("no notes")
    try:
        midi = _MidiFile(file=io.BytesIO(data))
    except EOFError:
        raise UnusableFile("the file ends too early (truncated)") from None
    except Exception as error:  # the parser answers damaged bytes with whatever exception they lead it into
        raise UnusableFile(f"damaged MIDI data ({error or type(error).__name__})") from None

    pitched = [instrument for instrument in midi.instruments if instrument.notes and not instrument.is_drum]
    piano = [instrument for instrument in pitched if instrument.program in PIANO_PROGRAMS]
    if not midi.instruments:
        raise UnusableFile("no notes")
    if not pitched:
        raise UnusableFile("no notes but drums")
    if not piano and not any_instrument:
        raise UnusableFile("no piano (--any-instrument takes other instruments)")
    try:
        return _merge(piano or pitched, _Clock(midi.tempo_changes, division))
    except OverflowError:
        raise UnusableFile("damaged MIDI data (times beyond any clock)") from None


def _bytes_of(source: Path | bytes) -> bytes:
    """The whole file, unless it is too large."""
    if isinstance(source, bytes):
        data = source
    else:
        try:
            with source.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise UnusableFile(f"cannot be read ({error.strerror or error})") from None
    if len(data) > MAX_BYTES:
        raise UnusableFile(f"larger than {MAX_BYTES // 1_000_000} MB")
    return data


def _header(data: bytes) -> tuple[int, int, int]:
    """Format, number of tracks and division of a file that begins like a MIDI file."""
    if not data:
        raise UnusableFile("empty file")
    if not data.startswith(b"MThd"):
        raise UnusableFile("not a MIDI file")
    if len(data) < _HEADER.size:
        raise UnusableFile("the file ends too early (truncated)")
    _, _, file_format, track_count, division = _HEADER.unpack_from(data)
    if division == 0 or (division < 0 and division & 0xFF == 0):
        raise UnusableFile("damaged MIDI data (no ticks in a beat)")
    return file_format, track_count, division


class _MidiFile(miditoolkit.MidiFile):  # type: ignore[misc]  # the library ships no types
    """miditoolkit's reader, with the tempo changes of all tracks in order, no hanging notes and no empty tracks."""

    @staticmethod
    def _load_tempo_changes(mido_obj: Any) -> list[tuple[int, int]]:
        """(tick, microseconds a beat), by tick; the library's own list drops and misorders those of later tracks."""
        changes = [
            (event.time, event.tempo) for track in mido_obj.tracks for event in track if event.type == "set_tempo"
        ]
        return sorted(changes, key=itemgetter(0))

    @staticmethod
    def _convert_delta_to_cumulative(mido_obj: Any) -> None:
        mido_obj.tracks = [track for track in mido_obj.tracks if track]
        miditoolkit.MidiFile._convert_delta_to_cumulative(mido_obj)
        for track in mido_obj.tracks:
            _release_hanging(track)


def _release_hanging(track: list[Any]) -> None:
    """Add the missing releases of keys struck more often than released: at the next strike, or at the track's end."""
    strikes: Counter[tuple[int, int]] = Counter()
    for event in track:
        if event.type == "note_on" and event.velocity:
            strikes[event.channel, event.note] += 1
        elif event.type in ("note_on", "note_off"):
            strikes[event.channel, event.note] -= 1
    hanging = {key for key, surplus in strikes.items() if surplus > 0}
    if not hanging:
        return
    mended: list[Any] = []
    sounding: dict[tuple[int, int], Any] = {}
    for event in track:
        if event.type in ("note_on", "note_off") and (key := (event.channel, event.note)) in hanging:
            struck = sounding.pop(key, None)
            if event.type == "note_on" and event.velocity:
                sounding[key] = event
                if struck is not None:
                    mended.append(event.copy(velocity=0))
        mended.append(event)
    mended += [event.copy(velocity=0, time=track[-1].time) for event in sounding.values()]
    track[:] = mended


class _Clock:
    """Ticks to milliseconds, by a straight line between tempo changes."""

    def __init__(self, tempo_changes: list[tuple[int, int]], division: int) -> None:
        if division < 0:  # SMPTE: minus the frames a second in the first byte, ticks a frame in the second; no tempo
            frames = -(division >> 8)
            self.change_tick = np.zeros(1, dtype=np.int64)
            self.ms_per_tick = np.array([1000 / (_NTSC_FRAMES.get(frames, frames) * (division & 0xFF))])
        else:
            changes = np.array([(0, DEFAULT_TEMPO_US), *tempo_changes], dtype=np.int64)
            self.change_tick = changes[:, 0]
            self.ms_per_tick = changes[:, 1] / (1000 * division)
        self.change_ms = np.concatenate([[0.0], np.cumsum(np.diff(self.change_tick) * self.ms_per_tick[:-1])])

    def ms(self, ticks: list[int]) -> Ints:
        """Whole milliseconds (N,) of some ticks (N,)."""
        tick = np.array(ticks, dtype=np.int64)
        segment = np.searchsorted(self.change_tick, tick, side="right") - 1
        at = self.change_ms[segment] + (tick - self.change_tick[segment]) * self.ms_per_tick[segment]
        if (at > MAX_MS).any():
            raise OverflowError
        whole: Ints = np.rint(at).astype(np.int64)
        return whole


def _merge(instruments: list[Any], clock: _Clock) -> Piece:
    """The notes of some instruments on the piano's keys, their pedals folded in where their durations lack them.

    Transcribers of recordings often lengthen notes to the pedal's end and write the pedal too. Such files are known
    by where their notes end: of the notes that folding would lengthen, most end within ALREADY_MS of the pedal's
    rise (median over EMOPIA's files 90 %; in POP909, played on keyboards, 4 %). Folding again would only
    stretch the rest by mistake.
    """
    parts = [_notes(instrument, clock) for instrument in instruments]
    onset, release, held, pitch, velocity = (np.concatenate(column) for column in zip(*parts, strict=True))
    keys = (pitch >= LOWEST_KEY) & (pitch <= HIGHEST_KEY)
    if not keys.any():
        raise UnusableFile("no notes on the piano's keys")
    onset, release, held, pitch, velocity = (column[keys] for column in (onset, release, held, pitch, velocity))
    plain = Piece.of(onset, pitch, velocity, release - onset)
    if (held == release).all():
        return plain
    pedalled = Piece.of(onset, pitch, velocity, held - onset)
    longer_ms = pedalled.duration_ms - plain.duration_ms
    longer_ms = longer_ms[longer_ms > 0]
    already = len(longer_ms) and (longer_ms <= ALREADY_MS).mean() > ALREADY_SHARE
    return plain if already else pedalled


def _notes(instrument: Any, clock: _Clock) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Onset, release, release by the pedal (in ms), pitch and velocity of an instrument's notes, each (N,)."""
    notes = instrument.notes
    onset, release = clock.ms([note.start for note in notes]), clock.ms([note.end for note in notes])
    pitch, velocity = np.array([note.pitch for note in notes]), np.array([note.velocity for note in notes])
    changes = [change for change in instrument.control_changes if change.number == SUSTAIN_PEDAL]
    held = _held(release, clock.ms([c.time for c in changes]), np.array([c.value >= PEDAL_DOWN for c in changes]))
    return onset, release, held, pitch, velocity


def _held(release: Ints, change: Ints, down: npt.NDArray[np.bool_]) -> Ints:
    """Releases (N,) moved to the pedal's next rise where they fall while it is down.

    The pedal is ``down`` or up (M,) from each ``change`` (M,) on, in ms and in order; one that never rises again
    does so with the last release.
    """
    if not len(change):
        return release
    never = np.iinfo(np.int64).max
    next_rise = np.minimum.accumulate(np.where(down, never, change)[::-1])[::-1]
    next_rise[next_rise == never] = release.max()
    at = np.searchsorted(change, release, side="right") - 1
    return np.where((at >= 0) & down[at], next_rise[at], release)


def to_pretty_midi(piece: Piece, text: str = "") -> pretty_midi.PrettyMIDI:
    """A piece as ``pretty_midi`` has it: one grand piano, a tick per millisecond, ``text`` as its first text event."""
    import pretty_midi  # slow to import, and reading never needs it

    midi = pretty_midi.PrettyMIDI(resolution=500, initial_tempo=120.0, charset="utf-8")
    if text:
        midi.text_events.append(pretty_midi.Text(text, 0.0))
    piano = pretty_midi.Instrument(program=0, name="piano")
    columns = (piece.velocity, piece.pitch, piece.onset_ms / 1000, (piece.onset_ms + piece.duration_ms) / 1000)
    piano.notes = [pretty_midi.Note(*note) for note in zip(*(column.tolist() for column in columns), strict=True)]
    midi.instruments.append(piano)
    return midi


def midi_bytes(piece: Piece, text: str = "") -> bytes:
    """The standard MIDI file of a piece, see ``to_pretty_midi``; the same bytes for the same piece.

    A ``text`` is written as the first text event, at time 0, in UTF-8; ``read_text`` gives it back.
    """
    file = io.BytesIO()
    to_pretty_midi(piece, text).write(file)
    return file.getvalue()


def write_piece(piece: Piece, path: Path, text: str = "") -> None:
    """Write ``midi_bytes`` to a file, which appears whole or not at all; one of that name is replaced."""
    with whole(path) as draft:
        draft.write_bytes(midi_bytes(piece, text))


def read_text(source: Path | bytes) -> str:
    """The first text event among those that open a MIDI file's first track; empty where there is none.

    Raises:
        UnusableFile: the file cannot be read or does not begin like a MIDI file.
    """
    data = _bytes_of(source)
    _header(data)
    at = 8 + int.from_bytes(data[4:8], "big") + 8
    while True:
        _, at = _variable_length(data, at)
        if at + 2 > len(data) or data[at] != 0xFF:
            return ""
        kind = data[at + 1]
        length, at = _variable_length(data, at + 2)
        if kind == 0x01:
            return data[at : at + length].decode("utf-8", "replace")
        at += length


def _variable_length(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte that begins at ``at``, and the place after it."""
    value = 0
    while at < len(data):
        value = value << 7 | data[at] & 0x7F
        at += 1
        if data[at - 1] < 0x80:
            break
    return value, at
