"""A piano from a SoundFont: its samples, played at any pitch and loudness.

The format is SoundFont 2.04 (E-mu, 2006). Supported: zones of keys and velocities, loops, tuning, both
envelopes, the low-pass filter with its envelope, pan, and velocity by the format's default curve. Not supported:
vibrato, a file's modulators, chorus, reverb, compressed samples (SF3).

It is ours because no library does it without a system install. Measured, RMS of middle C at velocities 30, 64 and 110:
symusic 0.5.9 .0233 .0233 .0233 (and it cuts the last tone; 0.6.0 plays nothing), this module .0056 .0253 .0747.
tinysoundfont 0.3.7 renders well (.0033 .0071 .0122; 20 s in 0.25 s, here 0.43 s), but needs pyaudio, which on Linux and
macOS is built from C with PortAudio's headers, and has wheels for Python 3.11 and 3.12 alone.

(Above 300 lines: a whole format.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from emogen.errors import UnusableFile
from emogen.music.notes import Piece
from emogen.system.files import opened

Floats = npt.NDArray[np.float32]

SAMPLE_RATE = 44_100
SILENT_DB, RING_DB = 100.0, 70.0
"""The range of an envelope; how far it falls until a released tone is inaudible."""
RING_S = (0.02, 10.0)
"""Limits of the time that takes: a tone that ends at once would click."""
LONGEST_TONE_S = 60.0
"""Longer notes are cut: a piano's strings are silent by then, and memory stays bounded."""
MOST_REGIONS, MOST_AT_ONCE = 16_384, 16
"""Regions of a piano, and how many of them one key may sound at one velocity: the largest pianos that people share have
some three thousand, of which up to six sound at once. A few kilobytes could stand for millions."""
HOP = 256
"""Samples between two updates of the filter: 6 ms."""

_COMPRESSED = 0x10
_BAG: list[Any] = [("gen", "<u2"), ("mod", "<u2")]
_GENERATOR: list[Any] = [("op", "<u2"), ("amount", "<i2")]
_TABLES: dict[bytes, list[Any]] = {
    b"phdr": [("name", "S20"), ("program", "<u2"), ("bank", "<u2"), ("bag", "<u2"), ("unused", "V12")],
    b"pbag": _BAG,
    b"pgen": _GENERATOR,
    b"inst": [("name", "S20"), ("bag", "<u2")],
    b"ibag": _BAG,
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
    DELAY, ATTACK, HOLD, DECAY, SUSTAIN_CB, RELEASE = 33, 34, 35, 36, 37, 38
    INSTRUMENT, KEYS, VELOCITIES, ATTENUATION_CB, SEMITONES, CENTS = 41, 43, 44, 48, 51, 52
    SAMPLE, LOOPS, CENTS_A_KEY, ROOT = 53, 54, 56, 58


_DEFAULTS: dict[int, int] = {Gen.FILTER_CENTS: 13_500, Gen.CENTS_A_KEY: 100, Gen.ROOT: -1} | dict.fromkeys(
    (*range(Gen.FILTER_DELAY, Gen.FILTER_SUSTAIN), *range(Gen.DELAY, Gen.SUSTAIN_CB), Gen.RELEASE), -12_000
)
"""Defaults of generators that a zone leaves out; all others are 0. Times are in timecents: 2 ** (t / 1200) seconds."""
_NOT_ADDED = {0, 1, 2, 3, 4, 12, 45, 50, Gen.INSTRUMENT, Gen.KEYS, Gen.VELOCITIES, Gen.SAMPLE, Gen.LOOPS, Gen.ROOT}
"""Generators of a preset's zone that are not added to the instrument's."""

Zone = dict[int, int]
"""Amounts by generator."""


class Region(NamedTuple):
    """A sample, and how a range of keys and velocities plays it."""

    keys: range
    velocities: range
    zone: Zone
    sample: Any
    """Its header, of the file's table ``shdr``."""

    def amount(self, generator: Gen) -> int:
        """The amount of a generator."""
        return self.zone.get(generator, _DEFAULTS.get(generator, 0))

    def seconds(self, generator: Gen) -> float:
        """The time, in seconds, that a generator stands for."""
        return float(2 ** (np.clip(self.amount(generator), -12_000, 8_000) / 1200))

    @property
    def ring_s(self) -> float:
        """How long a released tone is heard."""
        return float(np.clip(self.seconds(Gen.RELEASE) * RING_DB / SILENT_DB, *RING_S))


class SoundFont:
    """The piano of a .sf2 file: bank 0, program 0; if it has none, the first preset."""

    def __init__(self, file: Path) -> None:
        """Read its tables; samples are read when they are played.

        Raises:
            UnusableFile: it cannot be read, is not a SoundFont, is damaged, or its samples are compressed.
        """
        try:
            with opened(file) as stream:
                if stream.read(4) != b"RIFF":
                    raise UnusableFile("not a SoundFont")
            data = np.memmap(file, np.uint8, "r")
        except OSError as error:
            raise UnusableFile(f"cannot be read ({error.strerror or error})") from None
        try:
            chunks = dict(_chunks(data, 12, len(data)))
            tables = {name: np.frombuffer(chunks[name].tobytes(), fields) for name, fields in _TABLES.items()}
            regions = list(islice(_regions(tables), MOST_REGIONS + 1))
            self._waves = chunks[b"smpl"][: len(chunks[b"smpl"]) // 2 * 2].view("<i2")
        except (LookupError, ValueError, RecursionError):
            raise UnusableFile("a damaged SoundFont") from None
        if len(regions) > MOST_REGIONS or _at_once(regions) > MOST_AT_ONCE:
            raise UnusableFile(
                f"a SoundFont of more than {MOST_REGIONS:,} regions, or of more than {MOST_AT_ONCE} that sound at once"
            )
        if any(region.sample["kind"] & _COMPRESSED for region in regions):
            raise UnusableFile("a SoundFont of compressed samples (SF3)")
        self.regions = [
            region
            for region in regions
            if region.sample["start"] < region.sample["end"] <= len(self._waves) and region.sample["rate"]
        ]
        if not self.regions:
            raise UnusableFile("a SoundFont without samples for a piano")

    def play(self, piece: Piece) -> Floats:
        """The sound (N, channels) of a piece at SAMPLE_RATE; it ends when the last tone has died away.

        There are two channels, left and right, unless all tones have the same pan. Memory is that of the sound and of
        one tone: each key's tone is made once, and its notes are scaled and shortened copies of it.
        """
        ring_s = max(region.ring_s for region in self.regions)
        pans = {region.amount(Gen.PAN) for region in self.regions}
        length = round((piece.end_ms / 1000 + ring_s) * SAMPLE_RATE) + 1
        sound = np.zeros((length, 2 if len(pans) > 1 else 1), dtype=np.float32)
        onset = np.rint(piece.onset_ms * (SAMPLE_RATE / 1000)).astype(np.int64)
        held_s = np.minimum(piece.duration_ms / 1000, LONGEST_TONE_S)
        held = np.rint(held_s * SAMPLE_RATE).astype(np.int64)
        gain = ((piece.velocity / 127) ** 2).astype(np.float32)
        for region in self.regions:
            struck = (piece.velocity >= region.velocities.start) & (piece.velocity < region.velocities.stop)
            for key in set(piece.pitch[struck].tolist()).intersection(region.keys):
                notes = np.flatnonzero(struck & (piece.pitch == key))
                ring = round(region.ring_s * SAMPLE_RATE)
                fading = np.logspace(0, -RING_DB / 20, ring, dtype=np.float32)
                tone = self.tone(region, key, int(held[notes].max()) + ring)
                pan = np.clip(region.amount(Gen.PAN) / 1000 + 0.5, 0, 1) * np.pi / 2
                sides = np.array([np.cos(pan), np.sin(pan)] if len(pans) > 1 else [1], dtype=np.float32)
                for note in notes:
                    start, released = onset[note], held[note]
                    played = tone[: released + ring] * gain[note]
                    played[released:] *= fading[: len(played[released:])]
                    sound[start : start + len(played)] += played[:, None] * sides
        return sound

    def tone(self, region: Region, key: int, length: int) -> Floats:
        """A region's tone (N,) for a held key; N is ``length``, or less if the tone dies away before."""
        sample, waves = region.sample, self._waves
        root = region.amount(Gen.ROOT) if region.amount(Gen.ROOT) >= 0 else min(int(sample["root"]), 127)
        cents = (key - root) * region.amount(Gen.CENTS_A_KEY) + int(sample["correction"])
        cents += 100 * region.amount(Gen.SEMITONES) + region.amount(Gen.CENTS)
        step = 2 ** (np.clip(cents, -12_000, 12_000) / 1200) * int(sample["rate"]) / SAMPLE_RATE
        start, end, loop_start, loop_end = (
            int(np.clip(int(sample[name]) + region.amount(fine) + 32_768 * region.amount(coarse), 0, len(waves)))
            for name, fine, coarse in (
                ("start", Gen.START, Gen.START_COARSE), ("end", Gen.END, Gen.END_COARSE),
                ("loop_start", Gen.LOOP_START, Gen.LOOP_START_COARSE), ("loop_end", Gen.LOOP_END, Gen.LOOP_END_COARSE),
            )
        )  # fmt: skip
        looped = region.amount(Gen.LOOPS) & 1 and start <= loop_start < loop_end
        if not looped:
            length = max(0, min(length, int((end - start) / step)))
        level = _envelope(region, length)
        wave: Floats = waves[start : (loop_end if looped else end) + 2].astype(np.float32) / np.float32(32_768)
        tone = np.empty(len(level), dtype=np.float32)
        for first in range(0, len(level), SAMPLE_RATE):  # a second at a time
            at = np.arange(first, min(first + SAMPLE_RATE, len(level))) * step
            if looped:
                begin, span = loop_start - start, loop_end - loop_start
                at = np.where(at < begin, at, begin + (at - begin) % span)
            tone[first : first + SAMPLE_RATE] = _between(wave, at)
        tone *= level
        return _filtered(tone, region)


def _chunks(data: npt.NDArray[np.uint8], at: int, end: int) -> Iterator[tuple[bytes, npt.NDArray[np.uint8]]]:
    """The chunks of a RIFF file by name, including those in lists."""
    while at + 8 <= end:
        name, size = struct.unpack("<4sI", data[at : at + 8].tobytes())
        if name == b"LIST":
            yield from _chunks(data, at + 12, min(at + 8 + size, end))
        elif at + 8 + size > len(data):
            raise ValueError
        else:
            yield name, data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _regions(tables: dict[bytes, npt.NDArray[Any]]) -> Iterator[Region]:
    """The regions of the piano; the preset's amounts are added to the instrument's."""
    presets, instruments, samples = tables[b"phdr"], tables[b"inst"], tables[b"shdr"]
    piano = np.flatnonzero((presets["bank"][:-1] == 0) & (presets["program"][:-1] == 0))
    chosen = int(piano[0]) if len(piano) else 0

    @cache
    def played_by(instrument: int) -> list[Zone]:
        return list(_zones(tables, b"i", instruments["bag"], instrument, Gen.SAMPLE))

    for outer in _zones(tables, b"p", presets["bag"], chosen, Gen.INSTRUMENT):
        for inner in played_by(outer[Gen.INSTRUMENT]):
            added = {
                generator: amount + inner.get(generator, _DEFAULTS.get(generator, 0))
                for generator, amount in outer.items()
                if generator not in _NOT_ADDED
            }
            keys, velocities = (
                range(max(a.start, b.start), min(a.stop, b.stop))
                for a, b in ((_span(outer.get(one)), _span(inner.get(one))) for one in (Gen.KEYS, Gen.VELOCITIES))
            )
            yield Region(keys, velocities, inner | added, samples[inner[Gen.SAMPLE]])


def _zones(
    tables: dict[bytes, npt.NDArray[Any]], kind: bytes, bag: npt.NDArray[Any], which: int, leads_to: Gen
) -> Iterator[Zone]:
    """The zones of a preset or an instrument that lead somewhere, each with the global zone's amounts.

    Raises:
        ValueError: zones share generators, so that a short table stands for a long one.
    """
    bags, generators = tables[kind + b"bag"], tables[kind + b"gen"]
    if (np.diff(bags["gen"].astype(int)) < 0).any():
        raise ValueError
    everywhere: Zone = {}
    for index in range(bag[which], bag[which + 1]):
        own = generators[bags["gen"][index] : bags["gen"][index + 1]]
        zone = dict(zip(own["op"].tolist(), own["amount"].tolist(), strict=True))
        if leads_to in zone:
            yield everywhere | zone | {leads_to: zone[leads_to] & 0xFFFF}
        elif index == bag[which]:
            everywhere = zone


def _at_once(regions: list[Region]) -> int:
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


def _envelope(region: Region, length: int) -> Floats:
    """Gain (N,) of a tone while its key is held: linear attack, hold, exponential decay to the sustain level."""
    delay_s, attack_s, hold_s = (region.seconds(one) for one in (Gen.DELAY, Gen.ATTACK, Gen.HOLD))
    sustain_db = float(np.clip(region.amount(Gen.SUSTAIN_CB) / 10, 0, SILENT_DB))
    db_a_second = SILENT_DB / region.seconds(Gen.DECAY)
    begin_s = delay_s + attack_s + hold_s
    if sustain_db >= SILENT_DB:
        length = min(length, round((begin_s + SILENT_DB / db_a_second) * SAMPLE_RATE))
    attenuation_cb = min(max(region.amount(Gen.ATTENUATION_CB), 0), 1_440)  # the format's bounds
    loud = 10 ** (-0.4 * attenuation_cb / 200)  # 0.4: as E-mu's chips and all players since do
    time_s = np.arange(length, dtype=np.float32) / SAMPLE_RATE
    level = 10 ** (-np.clip((time_s - begin_s) * db_a_second, 0, sustain_db) / 20)
    level *= np.clip((time_s - delay_s) / attack_s, 0, 1) * loud
    return level.astype(np.float32)


def _between(wave: Floats, at: npt.NDArray[np.float64]) -> Floats:
    """A wave at fractional positions (N,): cubic interpolation through four samples (Catmull and Rom)."""
    index = at.astype(np.int64)
    t = (at - index).astype(np.float32)
    last = len(wave) - 1
    a, b, c, d = (wave[np.clip(index + offset, 0, last)] for offset in (-1, 0, 1, 2))
    middle: Floats = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return middle


def _filtered(tone: Floats, region: Region) -> Floats:
    """A tone (N,) through the region's low-pass filter, whose cutoff follows its envelope.

    The filter has two poles and is updated every HOP samples: overlapping frames, each times its response.
    """
    closed, opened = region.amount(Gen.FILTER_CENTS), region.amount(Gen.TO_FILTER_CENTS)
    if min(closed, closed + opened) >= _DEFAULTS[Gen.FILTER_CENTS]:
        return tone
    q = 10 ** ((min(max(region.amount(Gen.RESONANCE_CB), 0), 960) / 10 - 3.01) / 20)
    size, frames = 2 * HOP, -(-len(tone) // HOP) + 1
    window = np.hanning(size + 1)[:-1].astype(np.float32)  # half overlapping, they add up to one
    hz = np.fft.rfftfreq(2 * size, 1 / SAMPLE_RATE).astype(np.float32)
    padded = np.pad(tone, (HOP, frames * HOP - len(tone)))
    views = np.lib.stride_tricks.sliding_window_view(padded, size)[::HOP]
    out = np.zeros((frames + 3, HOP), dtype=np.float32)
    for first in range(0, frames, 256):
        some = views[first : first + 256]
        moved = opened * _filter_envelope(region, np.arange(first, first + len(some)) * (HOP / SAMPLE_RATE))
        cutoff_hz = 8.176 * 2 ** (np.clip(closed + moved, 1_500, 13_500) / 1200)
        ratio = hz / cutoff_hz[:, None].astype(np.float32)
        response = 1 / np.sqrt((1 - ratio**2) ** 2 + (ratio / q) ** 2)
        # zero phase: ringing before a frame wraps around to its end, so the padding is rotated by half
        back = np.roll(np.fft.irfft(np.fft.rfft(some * window, 2 * size) * response), HOP, axis=1)
        for part in range(4):
            out[first + part : first + part + len(some)] += back[:, part * HOP : (part + 1) * HOP]
    return out.ravel()[2 * HOP :][: len(tone)]


def _filter_envelope(region: Region, time_s: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The filter's envelope (N,), 0..1, at times (N,) since the key was struck."""
    delay_s, attack_s, hold_s = (region.seconds(one) for one in (Gen.FILTER_DELAY, Gen.FILTER_ATTACK, Gen.FILTER_HOLD))
    sustain = 1 - float(np.clip(region.amount(Gen.FILTER_SUSTAIN) / 1000, 0, 1))
    rising = np.clip((time_s - delay_s) / attack_s, 0, 1)
    falling = 1 - (time_s - delay_s - attack_s - hold_s) / region.seconds(Gen.FILTER_DECAY)
    return rising * np.clip(falling, sustain, 1)
