"""Originality: no long run of notes is copied from the songs that a voice was trained on.

Beside a voice lies a filter of all runs of NOTES notes in its training songs, by their intervals: in any key and
rhythm. While composing, a note that would complete such a run is not drawn. A Bloom filter (Bloom, "Space/time
trade-offs in hash coding with allowable errors", 1970) never overlooks a run; now and then it takes another one for
known, which only makes a rare choice rarer. Runs cannot be read back from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emogen.errors import EmogenError
from emogen.music.notes import Ints
from emogen.music.tokens import COLUMN, SIZES, Tokens
from emogen.system.files import opened, whole

Hashes = npt.NDArray[np.uint64]

FILE = "originality.safetensors"
"""Its name beside the weights of a voice."""
NOTES = 14
"""Notes of a run. Real test songs share stretches of up to 21 notes with training songs. With 12, pieces hold together
less well; with 16, they copy more (benchmarks/recipe.md, "Runs that are not copied")."""
BITS = 44_000_000
"""Size of the filter, 5.5 MB."""
PROBES = 6
"""Bits that are set for each run."""
MOST_BYTES = 64 * 2**20
NUMBER = np.arange(PROBES, dtype=np.uint64)
KEYS = np.arange(SIZES[COLUMN.pitch])
BIT = np.uint8(128) >> np.arange(8, dtype=np.uint8)
"""Of each place in a byte its bit."""
POWERS: Hashes = np.cumprod(np.full(NOTES - 1, 0x9E3779B97F4A7C15, dtype=np.uint64), dtype=np.uint64)[::-1]


@dataclass(frozen=True, slots=True, eq=False)
class Originality:
    """The filter of some songs."""

    bits: npt.NDArray[np.uint8]
    """Packed."""

    @classmethod
    def of(cls, songs: Iterable[Tokens], bits: int = BITS) -> Originality:
        """The filter of songs, each of notes (N, 4)."""
        found = [np.zeros(0, dtype=np.uint64)]
        for notes in songs:
            pitch = notes[:, COLUMN.pitch].astype(np.int64)
            if len(pitch) >= NOTES:
                runs = np.lib.stride_tricks.sliding_window_view(np.diff(pitch), NOTES - 1)
                found.append(_hash(runs[:, :-1], runs[:, -1:])[:, 0])
        there = np.zeros(bits, dtype=bool)
        there[_places(np.unique(np.concatenate(found)), bits)] = True
        return cls(np.packbits(there))

    def knows(self, pitch: Ints) -> npt.NDArray[np.bool_]:
        """Which keys (B, 88) would complete a run of these songs after the pitches (B, NOTES - 1), as ids."""
        after = KEYS - pitch[:, -1:]
        place = _places(_hash(pitch[:, 1:] - pitch[:, :-1], after), 8 * len(self.bits))
        known: npt.NDArray[np.bool_] = (self.bits[place >> np.uint64(3)] & BIT[place & np.uint64(7)]).all(axis=0)
        return known

    def save(self, file: Path) -> None:
        """Write it as one file."""
        from safetensors.numpy import save as serialise

        with whole(file) as draft:
            draft.write_bytes(serialise({"bits": self.bits}, metadata={"notes": str(NOTES), "probes": str(PROBES)}))

    @classmethod
    def beside(cls, path: Path) -> Originality | None:
        """The filter beside the weights of a checkpoint's folder; None where there is none.

        Raises:
            EmogenError: it is damaged, or of another emogen.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        file = path / FILE
        if not file.is_file():
            return None
        try:
            with opened(file) as stream:
                data = stream.read(MOST_BYTES)
            bits = load(data)["bits"]
            if bits.dtype != np.uint8 or bits.ndim != 1 or not len(bits) or str(NOTES).encode() not in data[:256]:
                raise ValueError("it holds something else")
        except (OSError, SafetensorError, LookupError, ValueError) as error:
            raise EmogenError(f"{file} cannot be used: {error}", "install emogen again, or remove the file") from None
        return cls(bits)


def _hash(before: Ints, last: Ints) -> Hashes:
    """Hashes (B, M) of runs of intervals: (B, NOTES - 2), and each of (B, M) after them.

    A polynomial, then the finisher of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", 2014).
    """
    first = ((before + 256).astype(np.uint64) * POWERS[:-1]).sum(-1, dtype=np.uint64)
    mixed = first[:, None] + (last + 256).astype(np.uint64) * POWERS[-1]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    hashed: Hashes = mixed ^ (mixed >> np.uint64(31))
    return hashed


def _places(hashed: Hashes, bits: int) -> Hashes:
    """The bits (PROBES, ...) of hashes (...)."""
    first, step = hashed >> np.uint64(32), hashed & np.uint64(0xFFFFFFFF) | np.uint64(1)
    places: Hashes = (first + np.multiply.outer(NUMBER, step)) % np.uint64(bits)
    return places
