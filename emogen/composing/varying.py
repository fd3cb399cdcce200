"""Pieces from pieces: variations, in whole or in part, and longer ones.

What a piece is like (its bars and chords, its plan, its emotion) is measured on its notes, so any MIDI file will do;
of a file that emogen wrote, bars and emotion are those that it was composed with. A part is composed as everything is,
after the notes before it; what lies outside it stays note for note.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np

from emogen.composing import feelings
from emogen.composing.drafts import beside
from emogen.composing.feelings import Change, Passage
from emogen.composing.piece import Piece
from emogen.composing.provenance import UNTRUSTED, emotion_of
from emogen.composing.wish import Wish
from emogen.emotion import QUADRANTS
from emogen.errors import UsageError, check_range
from emogen.music.notes import Piece as Notes
from emogen.music.plan import ENTRIES, HARMONY, measure
from emogen.music.tokens import encode

LONGEST_S = 600
"""As long as a piece can be."""
LEAST_S = 0.5
"""The shortest part that is composed again."""

Window = tuple[int, int]
"""From and until, in ms."""


def wish_like(piece: Piece, seconds: float, charted: bool) -> Wish:
    """A wish for a piece of the same kind: emotion, plan, and with ``charted`` its bars as far as they go.

    Raises:
        UsageError: a piece without notes, or longer than ``LONGEST_S``.
    """
    if not len(piece):
        raise UsageError("the piece has no notes", "take another")
    if piece.seconds > LONGEST_S:
        raise UsageError(
            f"the piece lasts {piece.seconds:.0f} s", f"take one of at most {LONGEST_S} s, or a part of it"
        )
    chart = piece.chart if charted and len(piece.chart) > 1 else None
    if path := _path(piece):
        mean = feelings.mean(path, seconds, "over")
        return Wish(mean, seconds, chart=chart, passages=path, change=_change(piece))
    notes = encode(piece)
    plan = measure(notes[None], [len(notes)])[0]
    pins = {name: round(float(value), 4) for name, value in zip(ENTRIES[: HARMONY.start], plan, strict=False)}
    emotion = emotion_of(piece.made_by)
    if not emotion:
        names = QUADRANTS[int(piece.judge().quadrant[1])]
        emotion = {name: 1 / len(names) for name in names}
    return Wish(emotion, seconds, pins=pins, chart=chart)


def _path(piece: Piece) -> tuple[Passage, ...]:
    """The passages of a piece whose feelings change, each with its own plans; empty for others."""
    try:
        passages = (piece.made_by or {})["passages"]
        told = [Passage(float(at_s), emotion_of({"emotion": emotion})) for at_s, emotion in passages]
        return feelings.fitted(told, piece.seconds, even=False) if all(one.emotion for one in told) else ()
    except (*UNTRUSTED, UsageError):
        return ()


def _change(piece: Piece) -> Change:
    known: tuple[Change, ...] = get_args(Change)
    return next((one for one in known if one == (piece.made_by or {}).get("change")), "over")


def windows(
    piece: Piece, section: str | None = None, start: float | None = None, end: float | None = None
) -> list[Window]:
    """The parts that a user names: everywhere that a section is, or from and until some seconds; empty for all of it.

    Raises:
        UsageError: there is no such section, or no such time.
    """
    if section is not None:
        if start is not None or end is not None:
            raise UsageError("a section has its own times", "give a section, or from and to")
        return _of_section(piece, section)
    if start is None and end is None:
        return []
    first, last = start or 0.0, piece.seconds if end is None else end
    check_range("from", first, 0, LONGEST_S)
    check_range("to", last, 0, LONGEST_S)
    if last > piece.seconds or last - first < LEAST_S:
        what = f"from {first:g} to {last:g} s is not a part of a piece of {piece.seconds:g} s"
        raise UsageError(what, f"parts last {LEAST_S:g} s or more, and end with the piece or earlier")
    return [(round(first * 1000), round(last * 1000))]


def _of_section(piece: Piece, section: str) -> list[Window]:
    chart, wanted = piece.chart, section.strip().upper()
    if wanted not in set(chart.letters) or len(wanted) != 1:
        there = ", ".join(sorted(set(chart.letters))) or "none: no bars are heard in it"
        raise UsageError(f"the piece has no section {section!r}", f"its sections are {there}")
    begins = [*chart.bar_beats[: len(chart.letters)].tolist(), len(chart) - 1]
    found: list[Window] = []
    for bar, letter in enumerate(chart.letters):
        if letter != wanted:
            continue
        start, end = (int(chart.beats_ms[begins[at]]) for at in (bar, bar + 1))
        if found and found[-1][1] == start:
            found[-1] = found[-1][0], end
        else:
            found.append((max(start, 0), end))
    return [(start, min(end, piece.end_ms)) for start, end in found if min(end, piece.end_ms) > start]


def outside(piece: Notes, window: Window) -> tuple[Notes, Notes]:
    """The notes struck before a window, and those struck after it."""
    start, end = np.searchsorted(piece.onset_ms, window).tolist()
    return Notes(*(column[:start] for column in piece.columns)), Notes(*(column[end:] for column in piece.columns))


def joined(before: Notes, new: Notes, after: Notes) -> Notes:
    """Given notes, exactly as they are, and new ones between them, which end where their keys are struck again."""
    new = beside(new, before)
    columns = [np.concatenate(parts) for parts in zip(before.columns, new.columns, after.columns, strict=True)]
    return Notes.of(*columns)


def resembling(wish: Wish, piece: Notes, amount: float, seed: int, window: Window | None = None) -> Wish:
    """The wish for a variation."""
    window_s = None if window is None else (window[0] / 1000, window[1] / 1000)
    return replace(wish, like=piece, amount=amount, seed=seed, window_s=window_s)


def part(piece: Notes, start: float | None, end: float | None) -> Notes:
    """The notes struck from ``start`` until ``end``, in s, with their own lengths; ``start`` is the new zero.

    Raises:
        UsageError: there are none, or there is no such time.
    """
    first, last = start or 0.0, piece.end_ms / 1000 if end is None else end
    if not 0 <= first < last <= piece.end_ms / 1000:
        what = f"from {first:g} to {last:g} s is not a part of a piece of {piece.end_ms / 1000:g} s"
        raise UsageError(what, "parts begin before they end, and end with the piece or earlier")
    start_ms, end_ms = round(first * 1000), round(last * 1000)
    inside = slice(*np.searchsorted(piece.onset_ms, (start_ms, end_ms)).tolist())
    onset, *others = (column[inside] for column in piece.columns)
    if not len(onset):
        raise UsageError(f"no note is struck from {first:g} to {last:g} s", "take another part")
    return Notes(onset - start_ms, *others)
