"""A form for a wish, with its passages and markers.

The piece is divided into legs: at each change of feeling and at each marker a bar begins. A leg has whole beats, and
the tempo of its passage as nearly as they allow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from emogen.composing import feelings
from emogen.composing.form import (
    DOMINANT,
    PLAIN,
    Form,
    Material,
    asked,
    close,
    compose,
    harmonised,
    heard_before,
    moved,
    written,
)  # fmt: skip
from emogen.composing.wish import Wish
from emogen.errors import UsageError
from emogen.music.chart import Chart
from emogen.music.lead_sheet import NAMES
from emogen.music.notes import Ints
from emogen.music.plan import PlanTable

if TYPE_CHECKING:
    from emogen.composing.steering import Source

MOST_BEND = 0.04
"""How much the tempo of a leg may differ from that of its passage, so that a marker is met."""
TEMPO_SEARCH = 1 + 0.01 * np.array(sorted(range(-20, 26), key=abs))
"""Of the tempo that a clip has, the shares that are tried until markers are met, the nearest first."""


def form_for(wish: Wish, sources: Mapping[int, Source], plans: PlanTable, rng: np.random.Generator) -> Form:
    """The form for a wish after real clips, one for each of its themes: their plans (P,) and their bars.

    Raises:
        UsageError: more sections were asked for than there are bars, or markers that no tempo nearby can meet.
    """
    if wish.chart is not None:
        section = wish.chart.section
        return Form(wish.chart, heard_before(section, np.flatnonzero(np.diff(section, prepend=-1))))
    materials = _materials(wish, sources, plans)
    if len(wish.path) == 1 and not wish.markers_s:
        tonic, minor, source = materials[0]
        found = compose(wish.seconds, tonic, minor, source, rng, wish.form)
    else:
        found = _in_legs(wish, materials, rng)
    return found._replace(chart=turned(found.chart)) if wish.loop and not wish.chords else found


def turned(chart: Chart) -> Chart:
    """A chart whose last half bar is the dominant seventh of its first chord, which leads to its beginning."""
    sounding = np.flatnonzero(chart.root >= 0)
    if not len(sounding):
        return chart
    root, quality = chart.root.copy(), chart.quality.copy()
    last = slice(len(chart) - 1 - chart.beats_per_bar // 2, len(chart))
    root[last] = (chart.root[sounding[0]] + DOMINANT // len(NAMES)) % 12
    quality[last] = DOMINANT % len(NAMES)
    return replace(chart, root=root, quality=quality)


def _materials(wish: Wish, sources: Mapping[int, Source], plans: PlanTable) -> dict[int, Material]:
    """The material of each theme, in one meter, and in the key of the first or its relative."""
    found: dict[int, Material] = {}
    for theme, (plan, progression) in sources.items():
        tonic, minor = plans.key_of(np.nan_to_num(plan))
        if "mode" in wish.pins:
            minor = wish.pins["mode"] < 0
        if wish.tonic is not None:
            tonic = wish.tonic
        if found:
            first = found[0]
            tonic = first.tonic if minor == first.minor else (first.tonic + (9 if minor else 3)) % 12
        source = progression or PLAIN
        if wish.tempo_bpm:
            source = source.model_copy(update={"tempo_bpm": wish.tempo_bpm})
        meter = wish.beats_per_bar or (found[0].source.beats_per_bar if found else None)
        if meter:
            source = source.in_bars_of(meter)
        if wish.chords:  # their roots are pitch classes, not steps above a tonic
            found[theme] = Material(0, None, asked(wish.chords, source))
        else:
            found[theme] = Material(tonic, minor, source)
    return found


def _in_legs(wish: Wish, materials: Mapping[int, Material], rng: np.random.Generator) -> Form:
    """A form with passages and markers: legs between them, each of whole beats, which begin bars."""
    themes, starts_s = feelings.themes(wish.path), feelings.begins(wish.path, wish.change)
    per_bar = materials[0].source.beats_per_bar
    edges_s = sorted({*starts_s, *wish.markers_s, wish.seconds})
    beats, chords, section, place, begins = [np.zeros(1, dtype=np.int64)], [], [], [], []
    known: dict[tuple[int, int], int] = {}
    count = bars = 0
    for passage, (start_s, end_s) in enumerate(zip(starts_s, [*starts_s[1:], wish.seconds], strict=True)):
        material = materials[themes[passage]]
        inner_s = [edge for edge in edges_s if start_s <= edge <= end_s]
        lengths: list[int] = []
        for bar_beats, beats_ms in _legs(wish, inner_s, lambda at_s: _tempo(wish, materials, at_s), per_bar):
            lengths += bar_beats
            beats.append(beats_ms)
        own, letters, first = harmonised(np.array(lengths), material, rng, first_bar=bars)
        names = [known.setdefault((themes[passage], letter), len(known)) for letter in letters.tolist()]
        chords.append(own)
        section.append(np.array(names))
        place.append(np.concatenate([np.arange(length) for length in lengths]))
        begins.append(count + first)
        count, bars = count + len(own), bars + len(lengths)
    for before, material in zip(chords, [materials[theme] for theme in themes[1:]], strict=False):
        if material.minor is not None:  # the next key is prepared
            before[-(per_bar // 2) :] = moved(np.array([DOMINANT]), material.tonic)
    last = materials[themes[-1]]
    if last.minor is not None and len(chords[-1]) >= 2 * per_bar:
        close(chords[-1], per_bar, last.tonic, last.minor)
    joined = [np.concatenate(parts) for parts in (beats, chords, section, place, begins)]
    chart = written(joined[0], joined[1], joined[2], joined[3], per_bar)
    return Form(chart, heard_before(chart.section, joined[4]))


def _tempo(wish: Wish, materials: Mapping[int, Material], at_s: float) -> float:
    """The tempo wanted at a time: on an even path it goes from that of one passage to that of the next."""
    themes, path = feelings.themes(wish.path), wish.path
    tempi = [materials[theme].source.tempo_bpm for theme in themes]
    if wish.change == "even":
        return float(np.exp(np.interp(at_s, [one.at_s for one in path], np.log(tempi))))
    begun = [number for number, one in enumerate(path) if one.at_s <= at_s]
    return tempi[begun[-1]]


def _legs(
    wish: Wish, edges_s: Sequence[float], tempo_at: Callable[[float], float], per_bar: int
) -> list[tuple[list[int], Ints]]:
    """The legs of a passage between edges: the beats of each bar, and when the beats end, in ms.

    Raises:
        UsageError: no tempo near the wanted one has a beat at each marker.
    """
    spans = list(pairwise(edges_s))
    free = [np.mean([tempo_at(a + (b - a) * (part + 0.5) / 8) for part in range(8)]) * (b - a) / 60 for a, b in spans]
    is_marked = len(spans) > 1
    for share in TEMPO_SEARCH if wish.tempo_bpm is None else TEMPO_SEARCH[:1]:
        counts = [_beats(share * beats, per_bar, is_marked) for beats in free]
        if None not in counts:
            break
    else:
        times = ", ".join(f"{edge:g} s" for edge in wish.markers_s)
        raise UsageError(
            f"no steady tempo has strong beats at {times}",
            "move a marker, leave --tempo out, or let markers be farther from each other",
        )
    found = []
    for (start_s, end_s), beats in zip(spans, filter(None, counts), strict=True):
        bars = [per_bar] * (beats // per_bar) + ([beats % per_bar] if beats % per_bar else [])
        inside = start_s + (end_s - start_s) * (np.arange(beats) + 0.5) / beats
        lasts = np.cumsum([1 / tempo_at(at_s) for at_s in inside.tolist()])
        found.append((bars, np.rint(1000 * (start_s + (end_s - start_s) * lasts / lasts[-1])).astype(np.int64)))
    return found


def _beats(wanted: float, per_bar: int, is_marked: bool) -> int | None:
    """How many beats a leg has that would have ``wanted``: whole bars if possible; None where the tempo would bend."""
    for unit in (per_bar, 2, 1) if per_bar % 2 == 0 else (per_bar, 1):
        beats = max(unit, unit * round(wanted / unit))
        if abs(wanted / beats - 1) <= MOST_BEND:
            return beats
    return None if is_marked else max(per_bar, per_bar * round(wanted / per_bar))
