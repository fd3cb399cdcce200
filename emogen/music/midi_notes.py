"""The notes that a file's events make: which release ends which note, what instrument plays it, what the pedal holds.

Program, pedal and the commands that silence a channel belong to a channel of a port, whichever track they stand in;
at one tick they count before the notes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import numpy.typing as npt

from emogen.music.midi_events import ALL_NOTES_OFF, ALL_SOUND_OFF, CONTROL, OFF, ON, PEDAL, PROGRAM, RESET, Events
from emogen.music.notes import Ints

NEVER = np.iinfo(np.int64).max
"""The tick of what does not happen."""
PEDAL_DOWN = 64
"""Lowest value of the sustain pedal that holds the dampers up."""

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Notes:
    """N notes of a file, in no particular order."""

    onset: Ints
    """(N,), ticks."""
    release: Ints
    """(N,), ticks: when the key is released; NEVER where nothing releases it."""
    held: Ints
    """(N,), ticks: when the sound ends if the pedal is heeded; NEVER where the pedal does not rise again."""
    pitch: npt.NDArray[np.uint8]
    velocity: npt.NDArray[np.uint8]
    program: npt.NDArray[np.uint8]
    """(N,), 0..127, of the channel when the note is struck."""
    channel: npt.NDArray[np.int32]
    track: npt.NDArray[np.int32]

    @classmethod
    def of(cls, events: Events) -> Notes:
        """The notes of a file's events."""
        control = events.kind == CONTROL
        silence = np.flatnonzero(control & ((events.number == ALL_SOUND_OFF) | (events.number >= ALL_NOTES_OFF)))
        strike, release = _pair(events, np.sort(_places(events, silence)))
        channel = events.channel[strike]
        programs = np.flatnonzero(events.kind == PROGRAM)
        programs = programs[np.argsort(_places(events, programs), kind="stable")]
        latest = _latest(_places(events, programs), _places(events, strike))
        program = np.append(events.number[programs], np.uint8(0))[latest]
        held = _held(events, channel, release)
        pitch, velocity = events.number[strike], events.value[strike]
        return cls(events.tick[strike], release, held, pitch, velocity, program, channel, events.track[strike])

    def __len__(self) -> int:
        return len(self.onset)

    def only(self, which: Flags) -> Notes:
        """Some of the notes."""
        return Notes(*(getattr(self, column.name)[which] for column in fields(self)))


def _place(channel: npt.NDArray[np.int32], tick: Ints) -> Ints:
    """One number for a channel and a tick, ordered by channel, then tick (which is below 2^50 in 4 MB of events)."""
    return (channel.astype(np.int64) << 50) + tick


def _places(events: Events, which: Ints) -> Ints:
    return _place(events.channel[which], events.tick[which])


def _latest(control: Ints, place: Ints) -> Ints:
    """Index of the last of some controls (in order) at or before each place on its channel; -1 where there is none."""
    latest = np.searchsorted(control, place, side="right") - 1
    found = latest >= 0
    found[found] = control[latest[found]] >> 50 == place[found] >> 50
    return np.where(found, latest, -1)


def _next(control: Ints, place: Ints, side: Literal["left", "right"]) -> Ints:
    """Tick of the first of some controls (in order) on each place's channel: at it or later, or NEVER.

    With ``side`` "right" later only.
    """
    after = np.append(control, NEVER)[np.searchsorted(control, place, side=side)]
    return np.where(after >> 50 == place >> 50, after & (1 << 50) - 1, NEVER)


def _held(events: Events, channel: npt.NDArray[np.int32], release: Ints) -> Ints:
    """When the sound of notes (N,) ends that are released at some ticks: where the pedal is down, with its rise."""
    control = np.flatnonzero(events.kind == CONTROL)
    number = events.number[control]
    pedal = control[(number == PEDAL) | (number == RESET)]
    if not len(pedal):
        return release
    pedal = pedal[np.argsort(_places(events, pedal), kind="stable")]
    change, down = _places(events, pedal), (events.number[pedal] == PEDAL) & (events.value[pedal] >= PEDAL_DOWN)
    held = release.copy()
    some = np.flatnonzero(release != NEVER)
    place = _place(channel[some], release[some])
    latest = _latest(change, place)
    some, place = (each[(latest >= 0) & np.append(down, False)[latest]] for each in (some, place))
    cut = np.sort(_places(events, control[number == ALL_SOUND_OFF]))
    held[some] = np.minimum(_next(change[~down], place, side="right"), _next(cut, place, side="left"))
    return held


def _pair(events: Events, silence: Ints) -> tuple[Ints, Ints]:
    """Index of each strike among the events (N,), and the tick of its release (N,).

    The first release of a key ends the note that was struck first, track by track; a release of a key that is up
    counts for nothing. From where a track's strikes of a key outnumber their releases for good, its channel hears
    them: there a release in any track ends what sounds, and so does the next strike. What silences the channel
    releases all of its keys.
    """
    notes = np.flatnonzero((events.kind == ON) | (events.kind == OFF))
    tick, channel, strike = events.tick[notes], events.channel[notes], events.kind[notes] == ON
    epoch = np.searchsorted(silence, _place(channel, tick), side="right")  # what silences a channel parts its notes
    key = (channel.astype(np.int64) * (len(silence) + 1) + epoch) * 128 + events.number[notes]
    release = np.full(len(notes), NEVER)
    by_track = events.track[notes] * (int(key.max(initial=0)) + 1) + key
    order = np.argsort(by_track, kind="stable")
    first, last, left = _match(by_track[order], strike[order])
    release[order[first]] = tick[order[last]]
    if left.any():
        order = order[left]
        order = order[np.lexsort((strike[order], tick[order], key[order]))]  # at one tick, releases first
        first, last, left = _match(key[order], strike[order])
        release[order[first]] = tick[order[last]]
        order = order[left]
        until = np.append(np.where(np.diff(key[order]) == 0, tick[order[1:]], NEVER), NEVER)
        silenced = _next(silence, _place(channel[order], tick[order]), side="right")
        release[order] = np.minimum(until, silenced)
    return notes[strike], release[strike]


def _match(key: Ints, strike: Flags) -> tuple[Ints, Ints, Flags]:
    """Strikes and releases that belong together: indices of the former and of the latter, and what is left over (M,).

    The M events are in order of their ``key``, then of time; what is no strike is a release. Left over are releases
    of keys that are up, and what happens to a key after it is up for the last time.
    """
    if not len(key):
        return np.flatnonzero(strike), np.flatnonzero(strike), strike
    start = np.flatnonzero(np.diff(key, prepend=-1))
    group = np.repeat(np.arange(len(start), dtype=np.int32), np.diff(start, append=len(key)))
    level = np.where(strike, np.int32(1), np.int32(-1)).cumsum(dtype=np.int32)
    level -= (level[start] - np.where(strike[start], 1, -1))[group].astype(np.int32)
    apart = group * np.int64(2 * len(key) + 1)  # so that a group's lowest level is below all of those before
    lowest = np.minimum(np.minimum.accumulate(level - apart) + apart, 0)
    down = (level - lowest).astype(np.int32)  # how many notes of the key sound after each event
    del apart, lowest, level
    up_before = np.roll(down, 1) == 0
    up_before[start] = True
    at = np.arange(len(key), dtype=np.int32)
    up = np.maximum.accumulate(np.where(down == 0, at, (start - 1)[group]))
    open_ = at > up[np.append(start[1:], len(key)) - 1][group]
    idle = ~strike & up_before
    return np.flatnonzero(strike & ~open_), np.flatnonzero(~strike & ~open_ & ~idle), open_ | idle
