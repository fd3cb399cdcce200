"""Pieces as scores: two staves of MusicXML, from the notes and the chart they lie on.

A performance is written as it would be read: in each beat onsets are snapped to sixteenths or to triplets, whichever
are nearer; each hand has one voice, in which a chord lasts until the next, or until the other hand takes one of its
keys over; chords are named above the staff.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from emogen.errors import EmogenError
from emogen.music.chart import Chart
from emogen.music.harmony import QUALITIES
from emogen.music.measures import TONICS, measure
from emogen.music.midi_bars import in_right_hand
from emogen.music.notes import Ints, Piece

DIVISIONS = 12
"""Parts of a beat: sixteenths have 3, notes of a triplet 4."""
TRIPLETS_COST = 0.04
"""How much nearer, on average in beats, onsets must be to triplets than to sixteenths."""
LEGATO = 6
"""A rest this short before the next chord is not written."""
VALUES = {
    3: ("16th", 0, False), 6: ("eighth", 0, False), 9: ("eighth", 1, False), 4: ("eighth", 0, True),
    8: ("quarter", 0, True), 12: ("quarter", 0, False), 24: ("half", 0, False), 36: ("half", 1, False),
    48: ("whole", 0, False),
}  # fmt: skip
"""The note value of each length: its name, its dots, and whether it is of a triplet."""
FIFTHS = "FCGDAEB"

Sounding = tuple[int, int, tuple[int, ...]]
"""From and until, in parts of a beat, and the pitches; none for a rest."""


def musicxml(piece: Piece, chart: Chart, title: str) -> bytes:
    """The score of a piece, as a file of MusicXML 4.0.

    Raises:
        EmogenError: it has no beats, or partitura, which writes the file, is not installed.
    """
    if not len(piece) or len(chart) < 2:
        raise EmogenError("no beats are heard in the piece, and a score has bars", "take a piece with a clear beat")
    try:
        from partitura import save_musicxml, score
    except ImportError:
        raise EmogenError("scores are written by partitura, which is not installed", "pip install partitura") from None
    at, until = snapped(piece, chart)
    bars = bars_of(chart, int(until.max()))
    part = score.Part("P1", "Piano", quarter_duration=DIVISIONS)
    fifths, mode = key_signature(measure(piece).key)
    part.add(score.KeySignature(fifths, mode), 0)
    part.add(score.Tempo(round(chart.tempo_bpm), "q"), 0)
    part.add(score.Clef(1, "G", 2, 0), 0)
    part.add(score.Clef(2, "F", 4, 0), 0)
    beats_before = 0
    for number, (start, end) in enumerate(pairwise(bars), 1):
        part.add(score.Measure(number, str(number)), start, end)
        if (beats := (end - start) // DIVISIONS) != beats_before:
            part.add(score.TimeSignature(beats, 4), start)
        beats_before = beats
    right = in_right_hand(piece)
    for staff, hand in ((1, right), (2, ~right)):
        other = at[~hand], piece.pitch[~hand]
        sounding = voice(at[hand], until[hand], piece.pitch[hand], bars[-1], other)
        _write_hand(score, part, staff, sounding, bars, fifths)
    score.tie_notes(part)
    return _named(save_musicxml(part), title, chart, bars, fifths)


def _named(data: Any, title: str, chart: Chart, bars: list[int], fifths: int) -> bytes:
    """The file with what partitura leaves out: title and instrument, and chords as MusicXML's schema has them."""
    from lxml import etree

    root = etree.fromstring(data if isinstance(data, bytes) else data.encode())
    work = etree.Element("work")
    etree.SubElement(work, "work-title").text = title
    root.insert(0, work)
    told = root.find("part-list/score-part")
    instrument = etree.SubElement(told, "score-instrument", id="P1-I1")
    etree.SubElement(instrument, "instrument-name").text = "Piano"
    sound = etree.SubElement(told, "midi-instrument", id="P1-I1")
    for name in ("midi-channel", "midi-program"):
        etree.SubElement(sound, name).text = "1"
    measures, names = root.findall("part/measure"), chart.names()
    for beat in reversed(range(len(chart) - 1)):
        if names[beat] == "N" or (beat and names[beat] == names[beat - 1]):
            continue
        at = beat * DIVISIONS
        number = int(np.searchsorted(bars, at, side="right")) - 1
        harmony = etree.Element("harmony")
        step, alter, _ = spelt(60 + int(chart.root[beat]), fifths)
        named = etree.SubElement(harmony, "root")
        etree.SubElement(named, "root-step").text = step
        if alter:
            etree.SubElement(named, "root-alter").text = str(alter)
        suffix = tuple(QUALITIES)[chart.quality[beat]]
        etree.SubElement(harmony, "kind", text=suffix).text = KINDS[suffix]
        etree.SubElement(harmony, "offset").text = str(at - bars[number])
        measures[number].insert(1 if measures[number].find("attributes") is not None else 0, harmony)
    written: bytes = etree.tostring(root, xml_declaration=True, encoding="UTF-8", doctype=DOCTYPE, pretty_print=True)
    return written


KINDS = {
    "": "major", "m": "minor", "7": "dominant", "maj7": "major-seventh", "m7": "minor-seventh", "dim": "diminished",
    "aug": "augmented", "sus": "suspended-fourth",
}  # fmt: skip
"""What MusicXML calls the qualities of chords."""


DOCTYPE = (
    '<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 4.0 Partwise//EN" '
    '"http://www.musicxml.org/dtds/partwise.dtd">'
)


def snapped(piece: Piece, chart: Chart) -> tuple[Ints, Ints]:
    """When notes (N,) begin and end on the score, in parts of a beat; each lasts one at least."""
    onset = np.maximum(chart.beat_at(piece.onset_ms), 0)
    release = np.maximum(chart.beat_at(piece.onset_ms + piece.duration_ms), onset)
    last = int(np.ceil(release.max())) + 1
    beat = np.floor(onset + 1 / 24).astype(np.int64)
    errors = [np.abs(onset - np.rint(onset * parts) / parts) for parts in (4, 3)]
    four, three = (np.bincount(beat, error, minlength=last + 1) for error in errors)
    count = np.bincount(beat, minlength=last + 1)
    parts = np.where(three + TRIPLETS_COST * count < four, 3, 4)

    def on_grid(position: Any) -> Ints:
        of = parts[np.minimum(np.floor(position + 1 / 24).astype(np.int64), last)]
        found: Ints = np.rint(position * of).astype(np.int64) * (DIVISIONS // of)
        return found

    at = on_grid(onset)
    step = DIVISIONS // parts[np.minimum(at // DIVISIONS, last)]
    return at, np.maximum(on_grid(release), at + step)


def bars_of(chart: Chart, until: int) -> list[int]:
    """Where bars begin, and the last one ends, in parts of a beat: those of the chart, and more until a time."""
    found = [int(beat) * DIVISIONS for beat in chart.bar_beats]
    found[0] = 0
    if found[-1] != (len(chart) - 1) * DIVISIONS or len(found) == 1:
        found.append(found[-1] + chart.beats_per_bar * DIVISIONS)
    while found[-1] < until:
        found.append(found[-1] + chart.beats_per_bar * DIVISIONS)
    return found


def voice(at: Ints, until: Ints, pitch: Ints, end: int, other: tuple[Ints, Ints]) -> Iterator[Sounding]:
    """One hand as chords and rests, one after the other until the end.

    Args:
        other: when the other hand strikes, and which pitches: a chord ends where one of its keys is struck there.
    """
    now = 0
    starts = np.unique(at)
    for start, following in zip(starts.tolist(), [*starts[1:].tolist(), end], strict=True):
        here = at == start
        stop = min(int(until[here].max()), following)
        if following - stop <= LEGATO:
            stop = following
        taken = other[0][np.isin(other[1], pitch[here]) & (other[0] > start)]
        stop = min(stop, int(taken.min(initial=stop)))
        if start > now:
            yield now, start, ()
        yield start, stop, tuple(np.unique(pitch[here]).tolist())
        now = stop
    if now < end:
        yield now, end, ()


def values(start: int, end: int, bars: Iterable[int]) -> Iterator[tuple[int, int]]:
    """A stretch of time in parts that note values can write: within beats, or whole beats within a bar."""
    edges = [bar for bar in bars if start < bar < end]
    for first, last in zip([start, *edges], [*edges, end], strict=True):
        now = first
        while now < last:
            begun = now % DIVISIONS
            whole = (last - now) // DIVISIONS
            stop = now + min(whole, 4) * DIVISIONS if not begun and whole else min(last, now - begun + DIVISIONS)
            yield now, stop
            now = stop


def _write_hand(score: Any, part: Any, staff: int, sounding: Iterable[Sounding], bars: list[int], fifths: int) -> None:
    for start, end, pitches in sounding:
        before: list[Any] = []
        for first, last in values(start, end, bars):
            name, dots, is_triplet = VALUES[last - first]
            value = {"type": name, "dots": dots}
            if is_triplet:
                value |= {"actual_notes": 3, "normal_notes": 2}
            how = {"voice": staff, "staff": staff, "symbolic_duration": value}
            if not pitches:
                part.add(score.Rest(id=f"r{staff}-{first}", **how), first, last)
                continue
            now = [
                score.Note(step, octave, alter or None, id=f"n{staff}-{first}-{pitch}", **how)
                for pitch in pitches
                for step, alter, octave in (spelt(pitch, fifths),)
            ]
            for note in now:
                part.add(note, first, last)
            for one, other in zip(before, now, strict=False):
                one.tie_next, other.tie_prev = other, one
            before = now


def key_signature(key: str) -> tuple[int, str]:
    """Sharps, or minus the flats, and the mode of a key such as "A minor"."""
    tonic, _, mode = key.partition(" ")
    major = (TONICS.index(tonic) + 3 * (mode == "minor")) % 12
    fifths = major * 7 % 12
    return (fifths if fifths <= 6 else fifths - 12), mode or "major"


def spelt(pitch: int, fifths: int) -> tuple[str, int, int]:
    """Step, alteration and octave of a pitch in a key: as near to it on the line of fifths as can be."""
    low = fifths - 3  # from the minor third above the tonic to the augmented fifth
    place = low + (pitch * 7 - low) % 12
    alter, step = divmod(place + 1, 7)
    return FIFTHS[step], alter, (pitch - alter) // 12 - 1
