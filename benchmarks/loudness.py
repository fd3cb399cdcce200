"""How loud pieces sound: a row for each folder of MIDI files, RMS and peaks, in dB below full scale.

for e in happy excited angry tense sad calm; do
    emogen generate --emotion $e --seconds 30 --count 34 --seed 1000000 --checkpoint default --out pieces/$e; done
python -m benchmarks.loudness pieces/* --soundfont FILE
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from emogen.composing.piece import Piece
from emogen.sound.render import KNEE, PEAK, audio


def unrounded(level: float) -> float:
    """The level that ``render.limit`` made this of."""
    if level <= KNEE:
        return level
    return float(KNEE + (PEAK - KNEE) * np.arctanh((level - KNEE) / (PEAK - KNEE)))


def main() -> None:
    """Print a row for each folder: the mean of its pieces' RMS, their lowest and highest, and the highest peak,
    as it is and as it was before it was rounded off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--soundfont", type=Path)
    parser.add_argument("--dry", action="store_true")
    args = parser.parse_args()
    for folder in args.folders:
        rms_db, peak_db = [], []
        for file in sorted(folder.glob("*.mid")):
            samples = audio(Piece.read(file), args.soundfont, dry=args.dry).samples
            rms_db.append(10 * np.log10((samples**2).mean()))
            peak_db.append(20 * np.log10(np.abs(samples).max()))
        spread = f"{min(rms_db):.1f} to {max(rms_db):.1f}"
        print(
            f"{folder.name:8} RMS {np.mean(rms_db):.1f} dB ({spread}), peak at most {max(peak_db):.1f} dB "
            f"({20 * np.log10(unrounded(10 ** (max(peak_db) / 20))):.1f} before rounding off)",
            flush=True,
        )


if __name__ == "__main__":
    main()
