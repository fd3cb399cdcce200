"""Other shapes of the same MIDI file: one track, and the pedal.

Notes stay as they are. Our durations hold what the pedal holds; written, the pedal is down only where no note is
released, so that a player who hears it lengthens nothing, and a reader finds the same piece.
"""

from __future__ import annotations

import io
from bisect import bisect_left, bisect_right
from itertools import pairwise

import mido

PEDAL = 64
"""The controller of the sustain pedal."""
LEAST_NOTES = 2
"""The pedal holds this number of notes or more."""


def shaped(data: bytes, single_track: bool = False, pedal: bool = False) -> bytes:
    """A file that ``midi_bytes`` wrote, with the pedal as controller 64, or as format 0: one track and one channel."""
    file = mido.MidiFile(file=io.BytesIO(data), charset="utf-8")
    if single_track:
        first, *others = file.tracks
        merged = mido.merge_tracks([first, *([one for one in track if one.type != "track_name"] for track in others)])
        file.tracks = [mido.MidiTrack(m.copy(channel=0) if hasattr(m, "channel") else m for m in merged)]
        file.type = 0
    if pedal:
        changes = _pedal(file)
        for track in file.tracks:
            _add(track, changes)
    stream = io.BytesIO()
    file.save(file=stream)
    return stream.getvalue()


def _pedal(file: mido.MidiFile) -> list[tuple[int, int]]:
    """When the pedal goes down and up, in ticks: half a beat or longer, between two releases, under held notes."""
    strikes, releases = [], []
    for track in file.tracks:
        now = 0
        for message in track:
            now += message.time
            if message.type == "note_on" and message.velocity:
                strikes.append(now)
            elif message.type in ("note_on", "note_off"):
                releases.append(now)
    strikes.sort()
    releases.sort()
    found = []
    for before, after in pairwise(sorted({0, *releases})):
        sounding = bisect_left(strikes, after) - bisect_right(releases, before)
        struck = bisect_left(strikes, before)
        first = strikes[struck] if struck < len(strikes) and strikes[struck] < after else before
        if sounding >= LEAST_NOTES and after - first >= file.ticks_per_beat // 2:
            found.append((first + 1, after))
    return found


def _add(track: mido.MidiTrack, changes: list[tuple[int, int]]) -> None:
    """Write the pedal into a track that has notes; on one tick it rises after the notes are released."""
    channel = next((message.channel for message in track if message.type == "note_on"), None)
    if channel is None:
        return
    now, events = 0, []
    for order, message in enumerate(track):
        now += message.time
        rank = {"note_off": 0, "note_on": 2, "end_of_track": 4}.get(message.type, -1)
        events.append((now, rank if now else -1, order, message))
    for down, up in changes:
        for at, rank, value in ((down, 3, 127), (up, 1, 0)):
            event = mido.Message("control_change", channel=channel, control=PEDAL, value=value)
            events.append((at, rank, 0, event))
    events.sort(key=lambda event: event[:3])
    last = max(event[0] for event in events)
    track.clear()
    now = 0
    for at, _, _, message in events:
        at = last if message.type == "end_of_track" else at
        track.append(message.copy(time=at - now))
        now = at
