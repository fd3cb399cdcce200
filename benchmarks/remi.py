"""MidiTok's side of ``benchmarks.prepare``: ``python remi.py FOLDER PROCESSES OUT`` writes all tokens as one array."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from miditok import REMI


@cache
def tokenizer() -> Any:
    """One for each process, with MidiTok's defaults."""
    return REMI()


def encode(path: Path) -> Any:
    """The tokens (N,) of a file."""
    return np.array([one for track in tokenizer()(path) for one in track.ids], dtype=np.uint16)


def main() -> None:
    """Read all files in so many processes."""
    folder, processes, out = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    with ProcessPoolExecutor(processes) as pool:
        tokens = list(pool.map(encode, sorted(folder.glob("*.mid")), chunksize=32))
    np.save(out, np.concatenate(tokens))


if __name__ == "__main__":
    main()
