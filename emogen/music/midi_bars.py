"""MIDI files on bars: a piece with the chart that it was composed on, as a sequencer or a score program wants it.

A beat is a quarter note. Tempo and meter say where beats and bars fall, so the notes lie on the grid as they are
played; sections and chords are markers. Each hand has a track. A tick is less than a millisecond, and a millisecond is
the same after reading.
"""

from __future__ import annotations

import io

import mido
import numpy as np
import numpy.typing as npt
from mido.midifiles.meta import KeySignatureError

from emogen.errors import EmogenError
from emogen.music.chart import Chart
from emogen.music.harmony import NO_CHORD
from emogen.music.lead_sheet import NAMES, read_chords
from emogen.music.notes import Ints, Piece

TICKS = 3840
"""Ticks of a beat: down to 16 beats per minute a tick is shorter than a millisecond."""
MIDDLE, SPAN = 60, 16
"""Where the hands part if nothing speaks against it, and the widest that one of them reaches: a tenth."""
MOST_BEATS = 40_000
"""More come from damaged bytes."""
EARLY = 0.05
"""A piece may end this part of a beat later than its last bar."""
STEADY = 0.7
"""The clarity of a chart that is read, as of one that is composed."""
BOTH_AT_ONCE_MS = 35
"""Notes this near to each other are one chord, see ``tokens.CHORD_MS``."""


def bytes_on_bars(piece: Piece, chart: Chart, text: str = "") -> bytes:
    """The standard MIDI file (format 1) of a piece on a chart that begins at time 0; see ``midi.midi_bytes``."""
    grid = _Grid(chart)
    file = mido.MidiFile(type=1, ticks_per_beat=TICKS, charset="utf-8")
    file.tracks.append(_conductor(chart, grid, text))
    right = in_right_hand(piece)
    for channel, (name, hand) in enumerate((("right hand", right), ("left hand", ~right))):
        start, end = piece.onset_ms[hand], (piece.onset_ms + piece.duration_ms)[hand]
        keys = zip(piece.pitch[hand].tolist(), piece.velocity[hand].tolist(), strict=True)
        events = [(0, 0, mido.MetaMessage("track_name", name=name)), (0, 1, _program(channel))]
        for (pitch, velocity), on, off in zip(keys, grid.tick(start).tolist(), grid.tick(end).tolist(), strict=True):
            events.append((on, 3, mido.Message("note_on", channel=channel, note=pitch, velocity=velocity)))
            events.append((off, 2, mido.Message("note_off", channel=channel, note=pitch, velocity=0)))
        file.tracks.append(_track(events))
    stream = io.BytesIO()
    file.save(file=stream)
    return stream.getvalue()


def bars_of(data: bytes) -> Chart | None:
    """The chart in a file that ``bytes_on_bars`` wrote, to the millisecond; None in others."""
    try:
        file = mido.MidiFile(file=io.BytesIO(data), charset="utf-8")
        if file.type == 2 or file.ticks_per_beat != TICKS:
            return None
        return _read(file)
    except (EOFError, OSError, ValueError, LookupError, TypeError, OverflowError, EmogenError, KeySignatureError):
        return None


def _read(file: mido.MidiFile) -> Chart | None:
    ends = [sum(message.time for message in track) for track in file.tracks]
    beats = -int(-(max(ends) / TICKS - EARLY) // 1)
    if not 2 <= beats <= MOST_BEATS:
        return None
    tempo_us, place, chord, section = np.zeros((4, beats), dtype=np.int64)
    meter, now = 4, 0
    for message in file.tracks[0]:
        now += message.time
        at = now // TICKS
        if at >= beats or not message.is_meta:
            continue
        if message.type == "set_tempo":
            tempo_us[at:] = message.tempo
        elif message.type == "time_signature":
            place[at:] = np.arange(beats - at) % message.numerator
            meter = message.numerator if message.numerator in (3, 4) else meter
        elif message.type == "marker" and message.text.startswith("section "):
            section[at:] = ord(message.text[-1]) - ord("A")
        elif message.type == "marker":
            ((chord[at:],),) = read_chords(message.text)
    beats_ms = np.rint(np.cumsum([0, *tempo_us.tolist()]) / 1000).astype(np.int64)
    if np.diff(beats_ms).min() < 1 or not 0 <= section.min() <= section.max() < 26:
        return None
    there = chord >= 0
    columns = place, np.where(there, chord // len(NAMES), NO_CHORD), np.where(there, chord % len(NAMES), 0), section
    bar, root, quality, letter = (np.append(column, column[-1]).astype(np.int8) for column in columns)
    bar[-1] = 0  # the last beat ends the last bar
    return Chart(beats_ms, bar, root, quality, letter, meter, STEADY)


class _Grid:
    """Milliseconds to ticks. Beat k of a chart, whose first is at 0, is at tick k times TICKS."""

    def __init__(self, chart: Chart) -> None:
        beats_ms = chart.beats_ms.astype(np.float64)
        even = np.linspace(beats_ms[0], beats_ms[-1], len(beats_ms))
        steady = np.abs(beats_ms - even).max() <= 1
        us = np.diff(even if steady else beats_ms) * 1000
        self.tempo_us = np.rint(us).astype(np.int64)
        """Microseconds of each beat (K - 1,), the last of which goes on."""
        self.beats_us = np.concatenate([[0], np.cumsum(self.tempo_us)])

    def tick(self, times_ms: Ints) -> Ints:
        """Of some times (N,)."""
        us = np.asarray(times_ms) * 1000
        beat = np.clip(np.searchsorted(self.beats_us, us, side="right") - 1, 0, len(self.tempo_us) - 1)
        ticks: Ints = np.rint((beat + (us - self.beats_us[beat]) / self.tempo_us[beat]) * TICKS).astype(np.int64)
        return ticks


def _conductor(chart: Chart, grid: _Grid, text: str) -> mido.MidiTrack:
    """The track of what both hands share."""
    events = [(0, 0, mido.MetaMessage("text", text=text))] if text else []
    changes = np.flatnonzero(np.diff(grid.tempo_us, prepend=-1)).tolist()
    events += [(beat * TICKS, 1, mido.MetaMessage("set_tempo", tempo=int(grid.tempo_us[beat]))) for beat in changes]
    begins = chart.bar_beats.tolist()
    lengths = np.diff([*begins, len(chart)]).tolist()
    lengths[-1] = chart.beats_per_bar  # the last beat only ends the bar before
    before = 0
    for beat, beats in zip(begins, lengths, strict=True):
        if beats != before:
            events.append((beat * TICKS, 2, mido.MetaMessage("time_signature", numerator=beats, denominator=4)))
        before = beats
    names, letters = chart.names(), chart.letters
    for bar, (letter, beat) in enumerate(zip(letters, begins, strict=False)):
        if not bar or letter != letters[bar - 1]:
            events.append((beat * TICKS, 3, mido.MetaMessage("marker", text=f"section {letter}")))
    for beat, name in enumerate(names[:-1]):
        if not beat or name != names[beat - 1]:
            events.append((beat * TICKS, 4, mido.MetaMessage("marker", text=name)))
    return _track(events)


def _program(channel: int) -> mido.Message:
    return mido.Message("program_change", channel=channel, program=0)


def _track(events: list[tuple[int, int, mido.Message | mido.MetaMessage]]) -> mido.MidiTrack:
    """A track of messages, each with its tick and its rank among those of the same tick."""
    track, now = mido.MidiTrack(), 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):
        track.append(message.copy(time=tick - now))
        now = tick
    track.append(mido.MetaMessage("end_of_track", time=0))
    return track


def in_right_hand(piece: Piece) -> npt.NDArray[np.bool_]:
    """Which notes (N,) the right hand plays.

    Those from middle C on, as long as neither hand spans more than a tenth in a chord: then the hands part at the
    widest gap at which both can reach their notes, or, where there is none, at the widest gap of all.
    """
    right = piece.pitch >= MIDDLE
    first = np.flatnonzero(np.diff(piece.onset_ms, prepend=-(10**6)) > BOTH_AT_ONCE_MS)
    top, bottom = (ufunc.reduceat(piece.pitch, first) if len(first) else first for ufunc in (np.maximum, np.minimum))
    for chord in np.flatnonzero(top - bottom > SPAN).tolist():
        notes = np.arange(first[chord], first[chord + 1] if chord + 1 < len(first) else len(piece))
        pitch = np.sort(piece.pitch[notes])
        gap = np.diff(pitch)
        reach = (pitch[:-1] - pitch[0] <= SPAN) & (pitch[-1] - pitch[1:] <= SPAN)
        here = np.searchsorted(pitch, MIDDLE) - 1
        if 0 <= here < len(gap) and reach[here]:
            continue
        part = np.where(reach, gap, -1).argmax() if reach.any() else gap.argmax()
        right[notes] = piece.pitch[notes] > pitch[part]
    return right
