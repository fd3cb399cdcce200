"""How pieces are best drawn: settings of ``emogen generate`` against obedience, coherence, memory, density, variety.

Each row is one setting; the pieces are composed with validation seeds and set beside the validation clips: the test
songs are left for ``emogen evaluate``. Run it from the clone:

    python -m benchmarks.sampling --checkpoint default --count 8 \\
        "" "guidance=1.5" "guidance=2" "temperature=0.95" "top_p=0.85"
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from emogen.composing.voice import Voice
from emogen.data.corpus import open_corpus
from emogen.data.shared_runs import Memory
from emogen.ear.fitted import BUNDLED, Ear
from emogen.evaluation.evaluate import composed, heard, planned_wishes
from emogen.evaluation.sections import breakage, coherence, labelled, music, obedience, variety
from emogen.settings import SampleSettings, load

SEED = 1_000_000
"""Of the first piece; ``emogen evaluate`` begins at 0."""


def main() -> None:
    """Print a row for each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", default=[""], help="such as guidance=2,temperature=0.9")
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--data", default="")
    parser.add_argument("--ear", type=Path, default=BUNDLED)
    parser.add_argument("--count", type=int, default=8, help="pieces of each emotion")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    settings = load().settings
    voice = Voice.open(args.checkpoint, settings.paths.runs)
    corpus, ear = open_corpus(settings.paths.data_home, args.data), Ear.load(args.ear)
    training, real = Memory.training(corpus), labelled(corpus, "valid", args.seconds)
    songs = labelled(corpus, "train", args.seconds)
    wishes, _ = planned_wishes(voice.plans, args.count, args.seconds, SEED)
    print(f"{voice.label}, {len(wishes)} pieces of {args.seconds:g} s, {args.threads} threads")
    titles = "setting|quadrant|arousal|valence|coherence|memory|density ratio|overlap|variety|broken|seconds"
    print(f"|{titles}|")
    print("|" + "---|" * (titles.count("|") + 1), flush=True)

    def row(name: str, pieces: Any, seconds: float) -> None:
        obeys, beside = obedience(ear, pieces), music(pieces, real, songs)
        ratio = [one["notes_per_s"]["generated"] / one["notes_per_s"]["real"] for one in beside.values()]
        overlap = np.mean([measure["overlap"] for one in beside.values() for measure in one.values()])
        broken = breakage(pieces, args.seconds)
        cells = (
            *(f"{obeys[one]['share']:.2f}" for one in ("quadrant", "arousal", "valence")),
            f"{coherence(ear, pieces, real)['median']:.0f}",
            f"{np.mean([training.share(notes) for notes in pieces.tokens]):.4f}",
            " ".join(f"{one:.2f}" for one in ratio),
            f"{overlap:.2f}",
            f"{np.mean(list(variety(pieces, songs).values())):.2f}",
            str(sum(count for kind, count in broken.items() if kind != "pieces")),
            f"{seconds:.0f}",
        )
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)

    row("real validation clips", real, 0)
    for text in args.settings:
        given = {"threads": args.threads} | dict(part.split("=") for part in text.split(",") if part)
        began = time.perf_counter()
        pieces = composed(voice, wishes, SampleSettings.model_validate(given), lambda share: None)
        row(text or "default", heard(pieces, wishes), time.perf_counter() - began)


if __name__ == "__main__":
    main()
