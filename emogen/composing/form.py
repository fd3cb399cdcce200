"""A chart for a wish, before any note: tempo, bars, sections and chords.

Whole bars fill the wanted seconds exactly: the tempo gives way by the few per cent that this takes. Sections are
phrases of four bars; a section that returns has the same chords. Chords are those of real clips of the emotion, see
``songbook``; the last bar is the tonic's, and the one before leads to it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from emogen.composing.wish import MOST_LETTERS
from emogen.errors import UsageError
from emogen.music.chart import Chart
from emogen.music.harmony import NO_CHORD
from emogen.music.lead_sheet import NAMES, Bars
from emogen.music.notes import Ints
from emogen.music.songbook import LEAST_BARS, Progression

PHRASE_BARS = 4
"""Bars of a section."""
FORMS = ("A", "AA", "ABA", "AABA", "AABAA", "AABABA")
"""Forms of 1 to 6 phrases."""
VERSE, CHORUS, BRIDGE = "AABB", "AACC", "DDBB"
"""What longer forms are made of, in turn."""
STEADY = 0.7
"""The clarity of a steady clock, about that of POP909, which was played to one."""
DOMINANT = 7 * len(NAMES) + NAMES.index("7")
"""The chord that leads to the tonic, in both modes."""
PLAIN = Progression(tempo_bpm=100, beats_per_bar=4, clarity=STEADY, chords=16 * (-1,), letters="AAAA")
"""Bars without chords, where no clip's are known."""


def form(phrases: int) -> str:
    """The section of each of some phrases, as letters."""
    if phrases <= len(FORMS):
        return FORMS[phrases - 1]
    parts = (VERSE, CHORUS, VERSE, BRIDGE)
    letters = "".join(parts[number % len(parts)] for number in range(-(-phrases // 4)))
    return letters[: phrases - 2] + "BA" if phrases % 4 else letters[:phrases]


def bars_for(seconds: float, tempo_bpm: float, beats_per_bar: int) -> int:
    """The number of bars whose tempo, when they fill the seconds, is nearest to the wanted one; at least two."""
    exact = seconds * tempo_bpm / 60 / beats_per_bar
    below = max(2, int(exact))
    return below if exact / below < (below + 1) / exact else below + 1


class Form(NamedTuple):
    """A chart to compose on, and what comes back in it."""

    chart: Chart
    earlier: Ints
    """(K,): how many beats before each beat its section was heard last; 0 for never."""


class Material(NamedTuple):
    """What a passage is made of."""

    tonic: int
    """0 (C) to 11 (B); added to the roots of ``source``."""
    minor: bool | None
    """See ``compose``."""
    source: Progression


def asked(chords: Bars, source: Progression) -> Progression:
    """Bars of chords that somebody asked for, at the tempo and in the meter of others."""
    per_bar = source.beats_per_bar
    beats = [bar[beat * len(bar) // per_bar] for bar in chords for beat in range(per_bar)]
    return source.model_copy(update={"chords": tuple(beats), "letters": "A" * len(chords)})


def compose(
    seconds: float, tonic: int, minor: bool | None, source: Progression, rng: np.random.Generator, letters: str = ""
) -> Form:
    """A form that fills some seconds with whole bars of a progression, in a key with a tonic from 0 (C) to 11 (B).

    Args:
        minor: the mode of the last chord, to which a dominant leads; None leaves the progression as it is: it begins
            with its first bar, and goes round.
        letters: the sections, of bars as even as can be; if empty, ``form`` gives them, in phrases of PHRASE_BARS.

    Raises:
        UsageError: more sections than bars.
    """
    per_bar = source.beats_per_bar
    bars = bars_for(seconds, source.tempo_bpm, per_bar)
    if len(letters) > bars:
        has = f"{seconds:g} s at {source.tempo_bpm:.0f} beats per minute have {bars} bars"
        raise UsageError(f"the form {letters} has {len(letters)} sections, and {has}", "take fewer, or more seconds")
    chords, section, begins = harmonised(np.full(bars, per_bar), Material(tonic, minor, source), rng, letters)
    if minor is not None:
        close(chords, per_bar, tonic, minor)
    chart = written(even(seconds, len(chords)), chords, section, np.arange(len(chords)) % per_bar, per_bar)
    return Form(chart, heard_before(chart.section, begins))


def harmonised(
    lengths: Ints, material: Material, rng: np.random.Generator, letters: str = "", first_bar: int = 0
) -> tuple[Ints, Ints, Ints]:
    """The chords (K,) of bars of some beats (N,), K in all, their sections (K,), and the beats at which these begin.

    Args:
        letters: see ``compose``.
        first_bar: with which bar a progression that goes round begins.
    """
    bars, source = len(lengths), material.source
    begins: Ints = np.linspace(0, bars, len(letters), endpoint=False).astype(np.int64)
    if not letters:
        letters = form(-(-bars // PHRASE_BARS))
        begins = PHRASE_BARS * np.arange(len(letters))
    of_letter = np.append(begins[1:], bars) - begins
    if material.minor is None:
        number = first_bar + np.arange(bars)
    else:
        first = dict(zip(dict.fromkeys(letters), _starts(source, rng), strict=False))
        of_section = np.repeat([first[letter] for letter in letters], of_letter)
        number = of_section + np.arange(bars) - np.repeat(begins, of_letter)
    parts = [source.bar(bar)[:beats] for bar, beats in zip(number.tolist(), lengths.tolist(), strict=True)]
    chords = moved(np.concatenate(parts), material.tonic)
    of_bar = np.repeat([ord(letter) - ord("A") for letter in letters], of_letter)
    first_beat = np.append(0, np.cumsum(lengths))
    return chords, np.repeat(of_bar, lengths), first_beat[begins]


def moved(chords: Ints, semitones: int) -> Ints:
    """Chords (K,), as ``Progression`` has them, in another key."""
    qualities = len(NAMES)
    return np.where(chords < 0, chords, (chords + semitones * qualities) % (12 * qualities))


def close(chords: Ints, per_bar: int, tonic: int, minor: bool) -> None:
    """Let chords (K,) end on the tonic in their last bar, after a dominant."""
    chords[-per_bar:] = moved(np.array([NAMES.index("m" if minor else "")]), tonic)
    chords[-2 * per_bar : -per_bar][per_bar // 2 :] = moved(np.array([DOMINANT]), tonic)


def even(seconds: float, count: int) -> Ints:
    """When beats (K + 1,) fall that divide some seconds evenly, in ms."""
    return np.rint(np.arange(count + 1) * (seconds * 1000 / count)).astype(np.int64)


def _starts(progression: Progression, rng: np.random.Generator) -> list[int]:
    """At which bars of a clip the phrases of new sections may begin, in the order in which they are taken."""
    phrases = max(1, progression.bars // PHRASE_BARS)
    starts = (rng.permutation(phrases) * PHRASE_BARS).tolist()
    return (starts * MOST_LETTERS)[: max(MOST_LETTERS, phrases)]


def like(chart: Chart, seconds: float) -> Chart:
    """The whole bars of a chart, from its first on and round again, at its tempo as they fill some seconds.

    Raises:
        UsageError: it has too few whole bars.
    """
    source = Progression.of(chart, 0)
    if source is None:
        raise UsageError(f"fewer than {LEAST_BARS} whole bars are heard in it", "take a longer piece with a clear beat")
    per_bar = source.beats_per_bar
    bars = bars_for(seconds, source.tempo_bpm, per_bar)
    chords = np.concatenate([source.bar(number) for number in range(bars)])
    letters = (source.letters * -(-bars // source.bars))[:bars]
    section = np.repeat([ord(letter) - ord("A") for letter in letters], per_bar)
    return written(even(seconds, len(chords)), chords, section, np.arange(len(chords)) % per_bar, per_bar)


def continued(chart: Chart, seconds: float) -> Chart:
    """A chart that goes on until some seconds: its bars, from the first whole one, go round at its tempo.

    Whole bars fill the time, for which the tempo of the new ones bends; the last bar has the first one's chords.
    """
    end_ms, per_bar = round(seconds * 1000), chart.beats_per_bar
    count = int(np.searchsorted(chart.beats_ms, end_ms))
    if count < 2:
        return chart
    kept = replace(
        chart, **{name: getattr(chart, name)[:count] for name in ("beats_ms", "place", "root", "quality", "section")}
    )
    left_ms, begun = end_ms - int(kept.beats_ms[-1]), int(kept.place[-1])
    period_ms = 60_000 / kept.tempo_bpm
    bars = max(1, round((left_ms / period_ms + begun) / per_bar))
    new = bars * per_bar - begun
    if new < 1 or left_ms < period_ms / 2:
        return kept
    first = min(kept.first_downbeat, count - 1)
    span = max(1, (count - first) // per_bar * per_bar)
    source = first + (np.arange(count - 1, count - 1 + new) - first) % span
    source[-per_bar:] = first + np.arange(min(per_bar, new)) % span
    index = np.concatenate([np.arange(count - 1), source, source[-1:]])
    beats_ms = np.rint(kept.beats_ms[-1] + left_ms * np.arange(1, new + 1) / new).astype(np.int64)
    place = np.concatenate([kept.place, (begun + np.arange(1, new + 1)) % per_bar]).astype(np.int8)
    columns = {name: getattr(kept, name)[index] for name in ("root", "quality", "section")}
    return replace(kept, beats_ms=np.concatenate([kept.beats_ms, beats_ms]), place=place, **columns)


def written(beats_ms: Ints, chords: Ints, section: Ints, place: Ints, beats_per_bar: int) -> Chart:
    """The chart of chords (K,), as ``Progression`` has them, a beat each, at beats (K + 1,); the last one ends it."""
    code = np.append(chords, chords[-1])
    there = code >= 0
    return Chart(
        beats_ms=beats_ms,
        place=np.append(place, 0).astype(np.int8),
        root=np.where(there, code // len(NAMES), NO_CHORD).astype(np.int8),
        quality=np.where(there, code % len(NAMES), 0).astype(np.int8),
        section=np.append(section, section[-1]).astype(np.int8),
        beats_per_bar=beats_per_bar,
        clarity=STEADY,
    )


def heard_before(section: npt.NDArray[np.integer], begins: Ints) -> Ints:
    """How many beats before each beat (K,) its section was heard last; 0 for never.

    Args:
        section: of each beat (K,).
        begins: the beats at which sections begin (S,), rising.
    """
    earlier = np.zeros(len(section), dtype=np.int64)
    latest: dict[int, tuple[int, int]] = {}
    for start, stop in zip(begins.tolist(), [*begins[1:].tolist(), len(section)], strict=False):
        name = int(section[start])
        if name in latest:
            then, length = latest[name]
            earlier[start : min(stop, start + length)] = start - then
        latest[name] = start, stop - start
    return earlier
