"""MIDI files as pieces, and pieces as MIDI files: the only place where ticks and seconds exist.

Reading takes what a player would play, and says what it mended. The bytes are taken apart in ``midi_events``, and
become notes in ``midi_notes``. Time is exact (every tempo change of every track, SMPTE division), and each tick is
rounded to the nearest millisecond. Writing uses a grid on which one tick is one millisecond, so a piece survives a
file unchanged.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from emogen.errors import UnusableFile
from emogen.music.chart import Chart
from emogen.music.midi_events import Events, bytes_of, count_of, first_text, read_events
from emogen.music.midi_notes import NEVER, Notes
from emogen.music.notes import HIGHEST_KEY, LOWEST_KEY, Ints, Piece
from emogen.system.files import whole

if TYPE_CHECKING:
    import pretty_midi

MAX_MS = 2**40
"""Times beyond this (34 years) come from damaged bytes, and would overflow."""

PIANO_PROGRAMS = range(8)
DRUMS = 9
"""The channel of each port that has no pitches."""

ALREADY_MS, ALREADY_SHARE = 50, 0.55
"""When durations count as including the pedal already: see ``_piece``."""

LAST_NOTE_MS = 8000
"""Longest that a last note sounds which is never released, and longest that the pedal holds after the last release:
a track may well end half an hour after its music."""

DEFAULT_TEMPO_US = 500_000
LONGEST_BEAT_MS = 3800
"""Longer beats have ticks of more than a millisecond in ``midi_bars``: such pieces have no bars in their file."""
_NTSC_FRAMES = {29: 30_000 / 1001}
"""Frames per second that SMPTE's names round."""


class Reading(NamedTuple):
    """A file as it was read."""

    piece: Piece
    remarks: tuple[str, ...]
    """What was mended or left out, in plain words."""


class Instruments(NamedTuple):
    """Who plays in a file."""

    piano: bool
    others: bool
    """Whether other pitched instruments do."""
    drums: bool
    tracks: int
    """Tracks with notes."""


def instruments(source: Path | bytes) -> Instruments:
    """Who plays in a MIDI file, whatever of it ``read_midi`` takes.

    Raises:
        UnusableFile: not a MIDI file.
    """
    notes = Notes.of(read_events(bytes_of(source)))
    drums = notes.channel % 16 == DRUMS
    piano = np.isin(notes.program, PIANO_PROGRAMS) & ~drums
    others = ~piano & ~drums
    return Instruments(bool(piano.any()), bool(others.any()), bool(drums.any()), len(np.unique(notes.track)))


def read_piece(source: Path | bytes, any_instrument: bool = False) -> Piece:
    """The piano music of a standard MIDI file: see ``read_midi``, which also says what was mended."""
    return read_midi(source, any_instrument).piece


def read_midi(source: Path | bytes, any_instrument: bool = False) -> Reading:
    """The piano music of a standard MIDI file, given as a path or as its bytes, and what was mended in it.

    All notes whose channel has a piano program (0..7; a channel that names none is a piano) are merged, drums never.
    With ``any_instrument`` a file without a piano gives all its pitched instruments instead. Pitches off the piano's
    keys are dropped. The sustain pedal is folded into durations: a key released while the pedal is down sounds until
    the pedal rises or the key is struck again. A note that is never released ends where its key is struck again, or
    with the music. Files whose durations already include the pedal are left as they are (see ``_piece``). A file of
    format 2 (separate patterns, not one piece) is read if only one of its tracks has notes.

    Raises:
        UnusableFile: not a MIDI file, or no such notes in it; the message says why, without the file's name.
    """
    events = read_events(bytes_of(source))
    notes = Notes.of(events)
    if not len(notes):
        raise UnusableFile("no notes")
    if events.file_format == 2 and (patterns := len(np.unique(notes.track))) > 1:
        raise UnusableFile(f"MIDI format 2 with {patterns} tracks: separate patterns, not one piece")
    pitched = notes.channel % 16 != DRUMS
    if not pitched.any():
        raise UnusableFile("no notes but drums")
    piano = pitched & np.isin(notes.program, PIANO_PROGRAMS)
    if not piano.any() and not any_instrument:
        raise UnusableFile("no piano (--any-instrument takes other instruments)")
    chosen = piano if piano.any() else pitched
    keys = chosen & (notes.pitch >= LOWEST_KEY) & (notes.pitch <= HIGHEST_KEY)
    if not keys.any():
        raise UnusableFile("no notes on the piano's keys")
    notes = notes.only(keys)
    remarks = list(events.remarks)
    if off := int(chosen.sum() - keys.sum()):
        remarks.append(f"{count_of(off, 'note')} off the piano's keys left out")
    if hanging := int((notes.release == NEVER).sum()):
        remarks.append(f"{count_of(hanging, 'note')} never released: ended with the music")
    return Reading(_piece(notes, events), tuple(remarks))


def _piece(notes: Notes, events: Events) -> Piece:
    """The piece of some notes, the pedal folded in where their durations lack it.

    Transcribers of recordings often lengthen notes to the pedal's end and write the pedal too. Such files are known
    by where their notes end: of the notes that folding would lengthen, most end within ALREADY_MS of the pedal's
    rise (median over EMOPIA's files 90 %; in POP909, played on keyboards, 4 %; chords that are released just before
    the pedal make up to half). Folding again would only stretch the rest by mistake.
    """
    clock = _Clock(events)
    onset = clock.ms(notes.onset)
    hanging = notes.release == NEVER
    release = clock.ms(np.where(hanging, 0, notes.release))
    end = int(release.max())
    if hanging.any():
        last = int(onset[hanging].max())
        if last >= end:
            track_end = int(clock.ms(events.track_end[notes.track[hanging]]).max())
            end = min(track_end, last + LAST_NOTE_MS)
        release[hanging] = end
    plain = Piece.of(onset, notes.pitch, notes.velocity, release - onset)
    longer = notes.held > notes.release
    if not longer.any():
        return plain
    rise = clock.ms(np.where(longer & (notes.held != NEVER), notes.held, 0))
    rise[longer & (notes.held == NEVER)] = end
    held = np.where(longer, np.maximum(np.minimum(rise, end + LAST_NOTE_MS), release), release)
    pedalled = Piece.of(onset, notes.pitch, notes.velocity, held - onset)
    longer_ms = pedalled.duration_ms - plain.duration_ms
    longer_ms = longer_ms[longer_ms > 0]
    already = len(longer_ms) and (longer_ms <= ALREADY_MS).mean() > ALREADY_SHARE
    return plain if already else pedalled


class _Clock:
    """Ticks to milliseconds, by a straight line between tempo changes."""

    def __init__(self, events: Events) -> None:
        if events.division < 0:  # SMPTE: minus the frames per second in the first byte, ticks per frame in the second
            frames = -(events.division >> 8)
            self.change_tick = np.zeros(1, dtype=np.int64)
            self.ms_per_tick = np.array([1000 / (_NTSC_FRAMES.get(frames, frames) * (events.division & 0xFF))])
        else:
            changes = np.array([(0, DEFAULT_TEMPO_US), *events.tempo], dtype=np.int64)
            self.change_tick = changes[:, 0]
            self.ms_per_tick = changes[:, 1] / (1000 * events.division)
        self.change_ms = np.concatenate([[0.0], np.cumsum(np.diff(self.change_tick) * self.ms_per_tick[:-1])])

    def ms(self, tick: Ints) -> Ints:
        """Whole milliseconds (N,) of some ticks (N,).

        Raises:
            UnusableFile: one is beyond MAX_MS.
        """
        segment = np.searchsorted(self.change_tick, tick, side="right") - 1
        at = self.change_ms[segment] + (tick - self.change_tick[segment]) * self.ms_per_tick[segment]
        if (at > MAX_MS).any():
            raise UnusableFile("damaged MIDI data (times beyond any clock)")
        whole_ms: Ints = np.rint(at).astype(np.int64)
        return whole_ms


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


def midi_bytes(piece: Piece, text: str = "", bars: Chart | None = None) -> bytes:
    """The standard MIDI file of a piece, see ``to_pretty_midi``; the same bytes for the same piece.

    With the ``bars`` that it was composed on it lies on them, see ``midi_bars``, where these begin with the piece. A
    ``text`` is written as the first text event, at time 0, in UTF-8; ``read_text`` gives it back.
    """
    if bars and bars.beats_ms[0] == 0 and np.diff(bars.beats_ms).max() < LONGEST_BEAT_MS:
        from emogen.music.midi_bars import bytes_on_bars  # imports mido, which reading never needs

        return bytes_on_bars(piece, bars, text)
    file = io.BytesIO()
    to_pretty_midi(piece, text).write(file)
    return file.getvalue()


def write_piece(piece: Piece, path: Path, text: str = "", bars: Chart | None = None) -> None:
    """Write ``midi_bytes`` to a file, which appears whole or not at all; one of that name is replaced."""
    with whole(path) as draft:
        draft.write_bytes(midi_bytes(piece, text, bars))


def read_bars(data: bytes) -> Chart | None:
    """The chart in a file that ``midi_bytes`` wrote on bars; None in others."""
    from emogen.music.midi_bars import bars_of  # imports mido, which reading other files never needs

    return bars_of(data)


def read_text(source: Path | bytes) -> str:
    """The first text event among those that open a MIDI file's first track; empty where there is none.

    Raises:
        UnusableFile: the file cannot be read or is not a MIDI file.
    """
    return first_text(bytes_of(source)).decode("utf-8", "replace")
