"""Makes the voice ``open``: gives a checkpoint trained on unlabelled music a table of plans for each emotion.

    python -m benchmarks.open_voice --data pop909 runs/open/checkpoints/last_... emogen/voices/open

Nobody labelled the emotions of these pieces, so for each emotion the 64 are taken that are nearest to what listeners
were found to hear in it: mode for valence; density and loudness for arousal (Gabrielsson and Lindström, "The role of
structure in the musical expression of emotions", 2010). POP909 is all of nearly one density and loudness, so the plans
are then moved towards ``WANTED``. Tempo, bars and chords of the same pieces go with them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from emogen.data.batches import measured
from emogen.data.corpus import Corpus, open_corpus
from emogen.emotion import EMOTIONS
from emogen.model import checkpoint
from emogen.model.checkpoint import DatasetFacts, Meta
from emogen.model.network import Composer
from emogen.music import plan
from emogen.music.songbook import Progression
from emogen.settings import load

WANTED = {
    "happy": (7.4, 70, 1), "excited": (11.0, 86, 1), "angry": (13.5, 85, -1),
    "tense": (8.4, 72, -1), "sad": (5.0, 54, -1), "calm": (5.2, 53, 1),
}  # fmt: skip
"""Notes per second and velocity, about those of EMOPIA's training clips, and the mode: 1 major, -1 minor."""
DENSITY, VELOCITY, MODE = map(plan.ENTRIES.index, ("density", "velocity", "mode"))
FARTHEST = 1.5, 2.0
"""SDs by which plans are moved at most, in density and in velocity: beyond what was seen, the network obeys nobody."""


def table(corpus: Corpus, scale: plan.PlanTable, longest: int) -> plan.PlanTable:
    """The table, on the scale that the network was trained with, from the first ``longest`` notes of the pieces."""
    clips, plans = measured(corpus, longest)
    progressions = [
        Progression.of(corpus.chart(clip), plan.key_of(row)[0]) for clip, row in zip(clips.tolist(), plans, strict=True)
    ]
    with_bars = np.array([progression is not None for progression in progressions])
    standard = scale.standardise(plans).astype(float)
    chosen, bars = {}, {}
    for emotion in EMOTIONS:
        density, velocity, mode = WANTED[emotion]
        aim = np.array([np.log(density), velocity]) - np.array(scale.mean)[[DENSITY, VELOCITY]]
        aim /= np.array(scale.sd)[[DENSITY, VELOCITY]]
        level = standard[:, [DENSITY, VELOCITY]]
        near = 2 * mode * standard[:, MODE] - ((level - aim.clip(-2, 2)) ** 2).sum(1) / 2
        near -= np.where(mode * standard[:, MODE] < 0.5, 5, 0)
        rows = np.argsort(np.where(with_bars, -near, np.inf))[: plan.PLANS_KEPT]
        moved = standard[rows].copy()
        moved[:, [DENSITY, VELOCITY]] += np.clip(aim - level[rows].mean(0), np.negative(FARTHEST), FARTHEST)
        chosen[emotion] = tuple(map(tuple, moved.round(3).tolist()))
        bars[emotion] = tuple(progressions[row] for row in rows.tolist())
    return scale.model_copy(update={"by_emotion": chosen, "progressions": bars})


def main() -> None:
    """Write the voice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the prepared corpus that it was trained on")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path, help="must not exist")
    args = parser.parse_args()
    corpus, begun = open_corpus(load().settings.paths.data_home, args.data), checkpoint.read_meta(args.checkpoint)
    model = Composer(begun.model)
    checkpoint.load_into(model, args.checkpoint)
    plans = table(corpus, checkpoint.plans_of(args.checkpoint, begun), begun.model.context_notes)
    clips = {split: len(corpus.clips(split)) for split in ("train", "valid", "test")}
    facts = DatasetFacts(name=corpus.manifest.name, fingerprint=corpus.manifest.fingerprint, clips=clips)
    training = {"run": "open", "epoch": begun.epoch, "step": begun.step, "history": (), "train": begun.train}
    half = {name: weight.half() for name, weight in model.state_dict().items()}
    checkpoint.save(args.folder, Meta.of(model, plans, facts, **training), half)


if __name__ == "__main__":
    main()
