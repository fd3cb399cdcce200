"""Makes the filter that keeps a voice from copying the songs it was trained on: see ``composing/originality``.

    python -m benchmarks.originality --data EMOPIA_1.0 --data pop909 emogen/voices/default/originality.safetensors

The training songs of the prepared corpora go in. It prints how often the filter takes a run for known that is not.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from emogen.composing.originality import NOTES, Originality
from emogen.data.corpus import open_corpus
from emogen.music.tokens import SIZES
from emogen.settings import load


def main() -> None:
    """Make it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, help="a prepared corpus; may be given again")
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    corpora = [open_corpus(load().settings.paths.data_home, name) for name in args.data]
    songs = [corpus.notes(clip) for corpus in corpora for clip in corpus.clips("train").tolist()]
    made = Originality.of(songs)
    made.save(args.file)
    random = np.random.default_rng(0).integers(0, SIZES[1], (10_000, NOTES - 1))
    print(f"{sum(map(len, songs)):,} notes of {len(songs):,} pieces, {len(made.bits) / 1e6:.1f} MB")
    print(f"bits set: {np.unpackbits(made.bits).mean():.3f}")
    print(f"random runs taken for known: {made.knows(random).mean():.1e}")


if __name__ == "__main__":
    main()
