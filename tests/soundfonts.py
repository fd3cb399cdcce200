"""Small SoundFonts made chunk by chunk, so that what is played of them is known."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from emogen.sound.soundfont import Gen

RATE = 22_050
PERIOD = 50
"""Samples of a wave: 441 Hz, the A above middle C but for two cents."""

Zone = list[tuple[Gen, int]]


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def span(low: int, high: int) -> int:
    """A range of keys or velocities as the format writes it."""
    return struct.unpack("<h", bytes([low, high]))[0]


def sine(amplitude: float = 0.5, periods: int = 40) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return np.rint(amplitude * 32_767 * np.sin(2 * np.pi * np.arange(PERIOD * periods) / PERIOD)).astype(np.int16)


def soundfont(
    path: Path,
    *zones: Zone,
    waves: bytes | None = None,
    kind: int = 1,
    preset: tuple[int, int] = (0, 0),
    outer: Zone | None = None,
    whole: Zone | None = None,
) -> Path:  # six: the parts of a file that may be wrong
    """A SoundFont of one preset (program, bank) with one instrument of some zones, which play one looped sine of A4.

    ``outer`` are amounts of the preset's zone, ``whole`` those of the instrument's global zone.
    """
    samples = sine().tobytes() if waves is None else waves
    length = len(sine())
    inner = [*([whole] if whole else []), *([*zone, (Gen.LOOPS, 1), (Gen.SAMPLE, 0)] for zone in zones or [[]])]
    generators = [one for zone in inner for one in zone]
    places = np.cumsum([0, *map(len, inner)]).tolist()
    outside = [*(outer or []), (Gen.INSTRUMENT, 0)]
    header = struct.pack("<20s5IBbHH", b"sine", 0, length, PERIOD, length - PERIOD, RATE, 69, 0, 0, kind)
    tables = {
        b"phdr": b"".join(struct.pack("<20sHHH12x", b"piano", *preset, bag) for bag in (0, 1)),
        b"pbag": struct.pack("<4H", 0, 0, len(outside), 0),
        b"pmod": bytes(10),
        b"pgen": b"".join(struct.pack("<Hh", *one) for one in [*outside, (0, 0)]),
        b"inst": b"".join(struct.pack("<20sH", b"piano", bag) for bag in (0, len(inner))),
        b"ibag": b"".join(struct.pack("<HH", place, 0) for place in places),
        b"imod": bytes(10),
        b"igen": b"".join(struct.pack("<Hh", *one) for one in [*generators, (0, 0)]),
        b"shdr": header + bytes(46),
    }
    parts = [
        chunk(b"LIST", b"INFO" + chunk(b"ifil", struct.pack("<HH", 2, 1))),
        chunk(b"LIST", b"sdta" + chunk(b"smpl", samples)),
        chunk(b"LIST", b"pdta" + b"".join(chunk(name, body) for name, body in tables.items())),
    ]
    path.write_bytes(chunk(b"RIFF", b"sfbk" + b"".join(parts)))
    return path
