"""Small SoundFonts made chunk by chunk, so that what is played of them is known."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from emogen.sound.regions import Gen

RATE = 22_050
PERIOD = 50
"""Samples of a wave: 441 Hz, the A above middle C but for two cents."""

Zone = list[tuple[Gen, int]]
Moved = Sequence[tuple[int, Gen, int, int]]
"""Modulators: source, what is moved, amount, and the source of the amount."""
VELOCITY, KEY = 2, 3
FALLING, AROUND, CONCAVE, CONVEX = 0x100, 0x200, 0x400, 0x800
"""What is added to a source: from 1 to 0; from -1 to 1; curves."""


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def unpadded(name: bytes, body: bytes) -> bytes:
    """A chunk as SF3 writers write it: without the byte that makes an odd number of them even."""
    return name + struct.pack("<I", len(body)) + body


def span(low: int, high: int) -> int:
    """A range of keys or velocities as the format writes it."""
    return struct.unpack("<h", bytes([low, high]))[0]


def sine(amplitude: float = 0.5, periods: int = 40) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return np.rint(amplitude * 32_767 * np.sin(2 * np.pi * np.arange(PERIOD * periods) / PERIOD)).astype(np.int16)


def ogg(samples: np.ndarray[tuple[int], np.dtype[np.int16]], channels: int = 1) -> bytes:
    """An Ogg Vorbis file, as SF3 has one for each sample; always of an odd number of bytes."""
    file = io.BytesIO()
    soundfile.write(file, np.tile(samples[:, None], channels), RATE, "VORBIS", format="OGG")
    return file.getvalue() + bytes(1 - len(file.getvalue()) % 2)


def soundfont(
    path: Path,
    *zones: Zone,
    waves: bytes | None = None,
    kind: int = 1,
    preset: tuple[int, int] = (0, 0),
    outer: Zone | None = None,
    whole: Zone | None = None,
    moved: Moved = (),
    outer_moved: Moved = (),
    compressed: bool = False,
) -> Path:  # the parts of a file that may be wrong
    """A SoundFont of one preset (program, bank) with one instrument of some zones, which play one looped sine of A4.

    ``outer`` are amounts of the preset's zone, ``whole`` those of the instrument's global zone; ``moved`` and
    ``outer_moved`` are the modulators of the instrument's first zone and of the preset's. There are two samples, the
    left and the right of a pair, alike; a zone that names none plays the first. ``compressed`` makes it an SF3 file.
    """
    samples = (ogg(sine()) if compressed else sine().tobytes()) if waves is None else waves
    length = len(sine())
    end, kind = (len(samples), kind | 0x10) if compressed else (length, kind)
    inner = [*([whole] if whole else []), *([*zone, (Gen.LOOPS, 1)] for zone in zones or [[]])]
    for zone in inner[bool(whole) :]:
        zone += [(Gen.SAMPLE, 0)] * (Gen.SAMPLE not in dict(zone))
    generators = [one for zone in inner for one in zone]
    places = np.cumsum([0, *map(len, inner)]).tolist()
    outside = [*(outer or []), (Gen.INSTRUMENT, 0)]
    headers = [
        struct.pack("<20s5IBbHH", b"sine", 0, end, PERIOD, length - PERIOD, RATE, 69, 0, 1 - side, kind | (4, 2)[side])
        for side in (0, 1)
    ]
    moving = [
        b"".join(struct.pack("<HHhHH", *one, 0) for one in (*some, (0, 0, 0, 0))) for some in (moved, outer_moved)
    ]
    tables = {
        b"phdr": b"".join(struct.pack("<20sHHH12x", b"piano", *preset, bag) for bag in (0, 1)),
        b"pbag": struct.pack("<4H", 0, 0, len(outside), len(outer_moved)),
        b"pmod": moving[1],
        b"pgen": b"".join(struct.pack("<Hh", *one) for one in [*outside, (0, 0)]),
        b"inst": b"".join(struct.pack("<20sH", b"piano", bag) for bag in (0, len(inner))),
        b"ibag": b"".join(struct.pack("<HH", place, len(moved) * bool(place)) for place in places),
        b"imod": moving[0],
        b"igen": b"".join(struct.pack("<Hh", *one) for one in [*generators, (0, 0)]),
        b"shdr": b"".join(headers) + bytes(46),
    }
    parts = [
        chunk(b"LIST", b"INFO" + chunk(b"ifil", struct.pack("<HH", 2, 1))),
        unpadded(b"LIST", b"sdta" + unpadded(b"smpl", samples))
        if compressed
        else chunk(b"LIST", b"sdta" + chunk(b"smpl", samples)),
        chunk(b"LIST", b"pdta" + b"".join(chunk(name, body) for name, body in tables.items())),
    ]
    path.write_bytes(chunk(b"RIFF", b"sfbk" + b"".join(parts)))
    return path
