"""A chart for a wish, before any note: tempo, bars, sections and chords.

Whole bars fill the wanted seconds exactly: the tempo gives way by the few per cent that this takes. Sections are
phrases of four bars; a section that returns has the same chords. Chords are those of real clips of the emotion, see
``songbook``; the last bar is the tonic's, and the one before leads to it.
"""

from __future__ import annotations

import numpy as np

from emogen.composing.wish import Wish
from emogen.music.chart import Chart
from emogen.music.harmony import NO_CHORD, QUALITIES
from emogen.music.notes import Ints
from emogen.music.plan import Plans, PlanTable
from emogen.music.songbook import Progression

PHRASE_BARS = 4
"""Bars of a section."""
FORMS = ("A", "AA", "ABA", "AABA", "AABAA", "AABABA")
"""Forms of 1 to 6 phrases."""
VERSE, CHORUS, BRIDGE = "AABB", "AACC", "DDBB"
"""What longer forms are made of, in turn."""
STEADY = 0.7
"""The clarity of a steady clock, about that of POP909, which was played to one."""
NAMES = tuple(QUALITIES)
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


def chart_for(
    wish: Wish, plan: Plans, progression: Progression | None, plans: PlanTable, rng: np.random.Generator
) -> Chart:
    """A chart for a wish after a real clip: its plan (P,), standardised, and its bars; steady quavers without one."""
    tonic, minor = plans.key_of(np.nan_to_num(plan))
    if "mode" in wish.pins:
        minor = wish.pins["mode"] < 0
    return compose(wish.seconds, tonic if wish.tonic is None else wish.tonic, minor, progression or PLAIN, rng)


def compose(seconds: float, tonic: int, minor: bool, progression: Progression, rng: np.random.Generator) -> Chart:
    """A chart that fills some seconds with whole bars of a progression, in a key with a tonic from 0 (C) to 11 (B)."""
    per_bar = progression.beats_per_bar
    bars = bars_for(seconds, progression.tempo_bpm, per_bar)
    letters = form(-(-bars // PHRASE_BARS))
    first = dict(zip(dict.fromkeys(letters), _starts(progression, rng), strict=False))
    of_bar = "".join(letter * PHRASE_BARS for letter in letters)[:bars]
    chords = np.concatenate([progression.bar(first[letter] + bar % PHRASE_BARS) for bar, letter in enumerate(of_bar)])
    section = np.repeat([ord(letter) - ord("A") for letter in of_bar], per_bar)
    chords[-per_bar:] = NAMES.index("m" if minor else "")
    chords[-2 * per_bar : -per_bar][per_bar // 2 :] = DOMINANT
    return written(seconds, chords, section, per_bar, tonic)


def _starts(progression: Progression, rng: np.random.Generator) -> list[int]:
    """At which bars of a clip the phrases of new sections may begin, in the order in which they are taken."""
    phrases = max(1, progression.bars // PHRASE_BARS)
    starts = (rng.permutation(phrases) * PHRASE_BARS).tolist()
    return (starts * 8)[: max(8, phrases)]


def written(seconds: float, chords: Ints, section: Ints, beats_per_bar: int, tonic: int) -> Chart:
    """The chart of chords (K,) as ``Progression`` has them, a beat each, that fill some seconds evenly."""
    count = len(chords)
    beats_ms = np.rint(np.arange(count + 1) * (seconds * 1000 / count)).astype(np.int64)
    code = np.append(chords, chords[-1])
    there = code >= 0
    return Chart(
        beats_ms=beats_ms,
        place=(np.arange(count + 1) % beats_per_bar).astype(np.int8),
        root=np.where(there, (code // len(NAMES) + tonic) % 12, NO_CHORD).astype(np.int8),
        quality=np.where(there, code % len(NAMES), 0).astype(np.int8),
        section=np.append(section, section[-1]).astype(np.int8),
        beats_per_bar=beats_per_bar,
        clarity=STEADY,
    )


def heard_before(chart: Chart) -> Ints:
    """How many beats before each beat (K,) of a composed chart the same section was heard last; 0 for never."""
    earlier = np.zeros(len(chart), dtype=np.int64)
    latest: dict[int, int] = {}
    per_phrase = PHRASE_BARS * chart.beats_per_bar
    for start in range(0, len(chart), per_phrase):
        section = int(chart.section[start])
        if section in latest:
            earlier[start : start + per_phrase] = start - latest[section]
        latest[section] = start
    return earlier
