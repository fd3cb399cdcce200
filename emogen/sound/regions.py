"""What a SoundFont says of its piano: samples, and the ranges of keys and velocities that play them in their ways.

Sections are those of the SoundFont 2.04 description (E-mu, 2006).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from functools import cache
from math import log10
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

SILENT_DB, RING_DB = 100.0, 70.0
"""The range of an envelope; how far it falls until a released tone is inaudible."""
RING_S = (0.02, 10.0)
"""Limits of the time that takes: a tone that ends at once would click."""
VELOCITY_STEP = 8
"""Velocities that share a tone, but for its loudness, where a file's modulators let the timbre depend on velocity."""

LEFT, COMPRESSED, ROM = 0x4, 0x10, 0x8000
_BAG: list[Any] = [("gen", "<u2"), ("mod", "<u2")]
_GENERATOR: list[Any] = [("op", "<u2"), ("amount", "<i2")]
_MODULATOR: list[Any] = [("source", "<u2"), ("op", "<u2"), ("amount", "<i2"), ("by", "<u2"), ("transform", "<u2")]
TABLES: dict[bytes, list[Any]] = {
    b"phdr": [("name", "S20"), ("program", "<u2"), ("bank", "<u2"), ("bag", "<u2"), ("unused", "V12")],
    b"pbag": _BAG,
    b"pmod": _MODULATOR,
    b"pgen": _GENERATOR,
    b"inst": [("name", "S20"), ("bag", "<u2")],
    b"ibag": _BAG,
    b"imod": _MODULATOR,
    b"igen": _GENERATOR,
    b"shdr": [
        ("name", "S20"), ("start", "<u4"), ("end", "<u4"), ("loop_start", "<u4"), ("loop_end", "<u4"),
        ("rate", "<u4"), ("root", "u1"), ("correction", "i1"), ("link", "<u2"), ("kind", "<u2"),
    ],
}  # fmt: skip


class Gen(IntEnum):
    """The generators of the format that are supported, by number (section 8.1.2 of its description)."""

    START, END, LOOP_START, LOOP_END = 0, 1, 2, 3
    START_COARSE, END_COARSE, LOOP_START_COARSE, LOOP_END_COARSE = 4, 12, 45, 50
    FILTER_CENTS, RESONANCE_CB, TO_FILTER_CENTS, PAN = 8, 9, 11, 17
    FILTER_DELAY, FILTER_ATTACK, FILTER_HOLD, FILTER_DECAY, FILTER_SUSTAIN = 25, 26, 27, 28, 29
    KEY_TO_FILTER_HOLD, KEY_TO_FILTER_DECAY, KEY_TO_HOLD, KEY_TO_DECAY = 31, 32, 39, 40
    DELAY, ATTACK, HOLD, DECAY, SUSTAIN_CB, RELEASE = 33, 34, 35, 36, 37, 38
    INSTRUMENT, KEYS, VELOCITIES, ATTENUATION_CB, SEMITONES, CENTS = 41, 43, 44, 48, 51, 52
    SAMPLE, LOOPS, CENTS_A_KEY, ROOT = 53, 54, 56, 58


Modulator = tuple[int, int, int]
"""What moves a generator: a source, the generator, and a second source that scales the first."""
Zone = dict[int | Modulator, int]
"""Amounts by generator and by modulator."""

_VELOCITY, _KEY = 2, 3
_VELOCITY_TO_ATTENUATION: Modulator = (0x500 | _VELOCITY, Gen.ATTENUATION_CB, 0)
DEFAULTS: Zone = {
    Gen.FILTER_CENTS: 13_500, Gen.CENTS_A_KEY: 100, Gen.ROOT: -1, _VELOCITY_TO_ATTENUATION: 960,
    **dict.fromkeys((*range(25, 29), *range(33, 37), Gen.RELEASE), -12_000),
}  # fmt: skip
"""Defaults of generators that a zone leaves out; all others are 0. Times are in timecents: 2 ** (t / 1200) seconds."""
_NOT_ADDED = {0, 1, 2, 3, 4, 12, 45, 50, Gen.INSTRUMENT, Gen.KEYS, Gen.VELOCITIES, Gen.SAMPLE, Gen.LOOPS, Gen.ROOT}
"""Generators of a preset's zone that are not added to the instrument's."""
_KNOWN = frozenset(map(int, Gen))
_MOVABLE = _KNOWN - _NOT_ADDED
"""Generators that modulators may move."""
_PITCH = (Gen.SEMITONES, Gen.CENTS, Gen.CENTS_A_KEY, Gen.ROOT)
"""Both sides of a stereo pair take these from the right one (section 7.10)."""
MOST_MODULATORS = 128
"""Of a zone; the pianos that people share have up to seven."""
_BY_KEY = {
    Gen.KEY_TO_FILTER_HOLD: Gen.FILTER_HOLD, Gen.KEY_TO_FILTER_DECAY: Gen.FILTER_DECAY,
    Gen.KEY_TO_HOLD: Gen.HOLD, Gen.KEY_TO_DECAY: Gen.DECAY,
}  # fmt: skip
"""Generators that make a time longer by their amount for each key below middle C."""


class Sample(NamedTuple):
    """A recorded tone."""

    at: tuple[int, int]
    """Where it lies in the chunk ``smpl``: frames, or bytes of an Ogg Vorbis file."""
    frames: int
    loop: tuple[int, int]
    """Its loop's first frame and the one behind its last."""
    rate: int
    root: int
    """The key that it sounds at, unless its zone names another."""
    correction_cents: int
    compressed: bool


class Region(NamedTuple):
    """A sample, and how a range of keys and velocities plays it."""

    keys: range
    velocities: range
    zone: Zone
    sample: Sample

    def amount(self, generator: int | Modulator) -> int:
        """The amount of a generator or modulator."""
        return self.zone.get(generator, DEFAULTS.get(generator, 0))

    def seconds(self, generator: Gen) -> float:
        """The time, in seconds, that a generator stands for."""
        return float(2 ** (np.clip(self.amount(generator), -12_000, 8_000) / 1200))

    @property
    def ring_s(self) -> float:
        """How long a released tone is heard."""
        return float(np.clip(self.seconds(Gen.RELEASE) * RING_DB / SILENT_DB, *RING_S))

    @property
    def modulators(self) -> list[Modulator]:
        """What moves its generators."""
        return [one for one in {_VELOCITY_TO_ATTENUATION: 0, **self.zone} if isinstance(one, tuple)]

    @property
    def velocity_step(self) -> int:
        """How many velocities share a tone: all of them, unless velocity changes more than loudness."""
        moved = any(
            {source & 0xFF, by & 0xFF} & {_VELOCITY} and generator != Gen.ATTENUATION_CB
            for source, generator, by in self.modulators
        )
        return VELOCITY_STEP if moved else 128

    def moved(self, generator: Gen, key: int, velocity: int) -> float:
        """By how much modulators move a generator for a key and velocity."""
        return sum(
            self.amount(one) * _source(one[0], key, velocity) * _source(one[2], key, velocity)
            for one in self.modulators
            if one[1] == generator
        )

    def struck(self, key: int, velocity: int) -> Region:
        """The region as one key and velocity play it: what modulators do is in its zone, except for its loudness."""
        zone = dict(self.zone)
        for generator in {generator for _, generator, _ in self.modulators} - {Gen.ATTENUATION_CB}:
            zone[generator] = round(self.amount(generator) + self.moved(Gen(generator), key, velocity))
        for by_key, time in _BY_KEY.items():
            if by_key in zone:
                zone[time] = zone.get(time, DEFAULTS[time]) + (60 - key) * zone[by_key]
        return self._replace(zone=zone)

    def loudness(self, key: int, velocity: int) -> float:
        """Gain of a key and velocity, 0..1."""
        fixed_cb = min(max(self.amount(Gen.ATTENUATION_CB), 0), 1_440)  # the format's bounds
        moved_cb = self.moved(Gen.ATTENUATION_CB, key, velocity)
        return float(10 ** (-max(0.4 * fixed_cb + moved_cb, 0) / 200))  # 0.4: as E-mu's chips and all players since do


def _source(code: int, key: int, velocity: int) -> float:
    """The value, -1..1, of a modulator's source (section 8.2 of the format's description); 0 is no source: 1.

    Controllers (other sources) are at rest: 0.
    """
    if not code:
        return 1.0
    if code & 0xFF not in (_VELOCITY, _KEY):
        return 0.0
    value = min(max(key if code & 0xFF == _KEY else velocity, 0), 127) / 127
    value = 1 - value if code & 0x100 else value
    sign = 1.0
    if code & 0x200:  # from -1 to 1
        sign, value = np.sign(2 * value - 1), abs(2 * value - 1)
    kind = code >> 10

    def concave(share: float) -> float:
        return min(1.0, -400 / 960 * log10(1 - share)) if share < 1 else 1.0

    shape = (value, concave(value), 1 - concave(1 - value), float(value >= 0.5))
    return sign * shape[kind] if kind < len(shape) else 0.0


def chunks_of(data: npt.NDArray[np.uint8], at: int, end: int) -> Iterator[tuple[bytes, npt.NDArray[np.uint8]]]:
    """The chunks of a RIFF file by name, including those in lists."""
    while at + 8 <= end:
        name, size = struct.unpack("<4sI", data[at : at + 8].tobytes())
        if name == b"LIST":
            yield from chunks_of(data, at + 12, min(at + 8 + size, end))
        elif at + 8 + size > len(data):
            raise ValueError
        else:
            yield name, data[at + 8 : at + 8 + size]
        at += 8 + size
        at += size % 2 and not data[at : at + 1].any()  # SF3 writers leave out the padding byte, which is 0


def regions_of(tables: dict[bytes, npt.NDArray[Any]]) -> Iterator[Region]:
    """The regions of the piano; the preset's amounts are added to the instrument's."""
    presets, instruments, samples = tables[b"phdr"], tables[b"inst"], tables[b"shdr"]
    piano = np.flatnonzero((presets["bank"][:-1] == 0) & (presets["program"][:-1] == 0))
    chosen = int(piano[0]) if len(piano) else 0

    @cache
    def played_by(instrument: int) -> list[Zone]:
        return list(_zones(tables, b"i", instruments["bag"], instrument, Gen.SAMPLE))

    for outer in _zones(tables, b"p", presets["bag"], chosen, Gen.INSTRUMENT):
        inners = played_by(outer[Gen.INSTRUMENT])
        right = {(_span(one.get(Gen.KEYS)), _span(one.get(Gen.VELOCITIES)), one[Gen.SAMPLE]): one for one in inners}
        for inner in inners:
            header = samples[inner[Gen.SAMPLE]]
            spans = _span(inner.get(Gen.KEYS)), _span(inner.get(Gen.VELOCITIES))
            zone = inner
            if header["kind"] & LEFT and (pair := right.get((*spans, int(header["link"])))):
                zone = inner | {one: pair.get(one, DEFAULTS.get(one, 0)) for one in _PITCH}
            added = {
                generator: amount + zone.get(generator, DEFAULTS.get(generator, 0))
                for generator, amount in outer.items()
                if generator not in _NOT_ADDED
            }
            keys, velocities = (
                range(max(a.start, b.start), min(a.stop, b.stop))
                for a, b in zip((_span(outer.get(Gen.KEYS)), _span(outer.get(Gen.VELOCITIES))), spans, strict=True)
            )
            yield Region(keys, velocities, zone | added, header)


def _zones(
    tables: dict[bytes, npt.NDArray[Any]], kind: bytes, bag: npt.NDArray[Any], which: int, leads_to: Gen
) -> Iterator[Zone]:
    """The zones of a preset or an instrument that lead somewhere, each with the global zone's amounts.

    Raises:
        ValueError: zones share generators, so that a short table stands for a long one; or one has too many modulators.
    """
    bags, generators, modulators = (tables[kind + name] for name in (b"bag", b"gen", b"mod"))
    if any((np.diff(bags[name].astype(int)) < 0).any() for name in ("gen", "mod")):
        raise ValueError
    everywhere: Zone = {}
    for index in range(bag[which], bag[which + 1]):
        own = generators[bags["gen"][index] : bags["gen"][index + 1]]
        zone: Zone = {op: amount for op, amount in own.tolist() if op in _KNOWN}
        moving = modulators[bags["mod"][index] : bags["mod"][index + 1]].tolist()
        zone |= {(source, op, by): amount for source, op, amount, by, _ in moving if op in _MOVABLE}
        if len(zone) > len(Gen) + MOST_MODULATORS:
            raise ValueError
        if leads_to in zone:
            yield everywhere | zone | {leads_to: zone[leads_to] & 0xFFFF}
        elif index == bag[which]:
            everywhere = zone


def at_once(regions: list[Region]) -> int:
    """The most regions that sound where one key is struck at one velocity."""
    edges = np.zeros((129, 129), dtype=np.int64)  # at each corner of a region's rectangle, so that sums fill it
    for keys, velocities, *_ in regions:
        if keys and velocities:
            first, last = (
                np.minimum(place, 128) for place in ((keys.start, velocities.start), (keys.stop, velocities.stop))
            )
            edges[first[0], first[1]] += 1
            edges[last[0], first[1]] -= 1
            edges[first[0], last[1]] -= 1
            edges[last[0], last[1]] += 1
    return int(edges.cumsum(0).cumsum(1).max())


def _span(amount: int | None) -> range:
    """The keys or velocities that an amount stands for: the lowest in its low byte, the highest in its high byte."""
    return range(128) if amount is None else range(amount & 0xFF, (amount >> 8 & 0xFF) + 1)
