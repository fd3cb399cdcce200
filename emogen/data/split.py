"""Split and emotion of each clip: songs stay whole, quadrants become emotions; and the table of counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from emogen.data.corpus import SPLITS
from emogen.data.sources import Found, Source
from emogen.emotion import EMOTIONS, QUADRANTS
from emogen.errors import EmogenError

SHARES = (0.70, 0.15, 0.15)
"""Share of the songs for each of ``SPLITS``."""

SAME_MUSIC = (
    ("TNoaOTrTkTQ", "bIx4DwkZxFY"),
    ("jO2zX6Ul8GM", "Ie5koh4qvJc"),
    ("FoTXpYZXxJs", "Ie5koh4qvJc"),
    ("k-FNDbK6Qhg", "ZTrEoB8T9YA"),
)
"""EMOPIA's recordings that share music: each pair has 20 to 142 runs of 13 notes in common in any key, no other more
than 10 (measured). This is a table, because the same rule on a larger corpus would tie unrelated pieces together."""


def split_songs(
    song: npt.NDArray[np.int32], group: npt.NDArray[np.int32], stratum: npt.NDArray[np.int64], seed: int
) -> npt.NDArray[np.int8]:
    """Index into ``SPLITS`` for each clip (C,), 70/15/15 by songs and approximately by clips.

    ``song`` (C,) indexes ``group`` (S,): songs of one group share music and stay together. Groups are sorted by the
    ``stratum`` (label) that most of their clips have, then by their number of clips, in random order among
    equals, and dealt out in that order, each to the split that lacks most songs so far. So every stratum and the
    whole come close to the shares even with few songs: the third one dealt is the first of valid, the fifth of test.
    """
    groups, of_clip, clips = np.unique(group[song], return_inverse=True, return_counts=True)
    songs = np.bincount(group, minlength=groups.max() + 1)[groups]
    table = np.zeros((len(groups), int(stratum.max()) + 1), dtype=np.int64)
    np.add.at(table, (of_clip, stratum), 1)
    shuffled = np.random.default_rng(seed).permutation(len(groups))
    order = shuffled[np.lexsort((clips[shuffled], table.argmax(axis=1)[shuffled]))]
    split_of = np.zeros(len(groups), dtype=np.int8)
    owed = np.zeros(len(SPLITS))
    for at in order:
        owed += songs[at] * np.array(SHARES)
        split_of[at] = owed.argmax()
        owed[split_of[at]] -= songs[at]
    return split_of[of_clip]


def group_songs(names: list[str], same: list[tuple[str, str]]) -> npt.NDArray[np.int32]:
    """Group (S,) of each song: songs that share music (``same``, ``SAME_MUSIC``), directly or not, have one."""
    leader: dict[str, str] = {}

    def lead(name: str) -> str:
        while (above := leader.get(name, name)) != name:
            name = above
        return name

    for one, other in (*same, *SAME_MUSIC):
        low, high = sorted((lead(one), lead(other)))
        leader[high] = low
    groups: dict[str, int] = {}
    return np.array([groups.setdefault(lead(name), len(groups)) for name in names], dtype=np.int32)


def official_only(found: Source, source: Path) -> Source:
    """The files that are in the dataset's own split; the others are left out."""
    if not found.official:
        hint = "only EMOPIA has one (split/train_clip.csv and so on beside midis/); --split song works for any source"
        raise EmogenError(f"{source} has no official split", hint)
    names = {file.name for file in found.files if PurePosixPath(file.name).name in found.official}
    left_out = [(file.name, "in no part of the official split") for file in found.files if file.name not in names]
    files = [file for file in found.files if file.name in names]
    return replace(found, files=files, left_out=found.left_out + left_out)


def split_officially(clips: list[Found], source: Source) -> npt.NDArray[np.int8]:
    """Index into ``SPLITS`` for each clip (C,) by the dataset's own split; see ``official_only``."""
    parts = [source.official[PurePosixPath(clip.name).name] for clip in clips]
    return np.array([SPLITS.index(part) for part in parts], dtype=np.int8)


def name_emotions(
    labels: list[str],
    split: npt.NDArray[np.int8],
    notes_per_second: npt.NDArray[np.float64],
    velocity: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.int8], dict[str, float]]:
    """Emotion of each clip (C,), as index into ``EMOTIONS`` or -1, and the thresholds used.

    A label that is an emotion is kept. Quadrants become emotions by an energy index, the mean of the z-scores (over
    the training clips) of notes per second and of mean velocity: clips of Q1 at or above the median index of Q1's
    training clips are excited, those below happy; of Q2, likewise, angry and tense; Q3 is sad, Q4 calm. Listeners
    gave the quadrants; these halves are derived.
    """
    train = split == SPLITS.index("train")
    thresholds: dict[str, float] = {}
    energy = np.zeros(len(labels))
    for name, values in (("notes_per_second", notes_per_second), ("velocity", velocity)):
        mean, deviation = (float(values[train].mean()), float(values[train].std())) if train.any() else (0.0, 0.0)
        energy += (values - mean) / (deviation or 1.0) / 2
        thresholds |= {f"{name}_mean": mean, f"{name}_deviation": deviation}
    label = np.array(labels)
    emotion = np.full(len(labels), -1, dtype=np.int8)
    for index, name in enumerate(EMOTIONS):
        emotion[label == name] = index
    for quadrant, names in QUADRANTS.items():
        inside = label == f"Q{quadrant}"
        emotion[inside] = EMOTIONS.index(names[0])
        if len(names) == 2 and inside.any():
            known = energy[inside & train]
            threshold = float(np.median(known)) if len(known) else 0.0
            emotion[inside & (energy >= threshold)] = EMOTIONS.index(names[1])
            thresholds[f"q{quadrant}_energy"] = threshold
    return emotion, thresholds


def count(
    emotion: npt.NDArray[np.int8],
    split: npt.NDArray[np.int8],
    song: npt.NDArray[np.int32],
    notes: npt.NDArray[np.int64],
    seconds: npt.NDArray[np.float64],
) -> list[dict[str, Any]]:
    """Rows as in ``Manifest.counts``, from columns (C,); emotions and splits without clips have no row."""
    everywhere = np.ones(len(emotion), dtype=bool)
    emotions = {name: emotion == index for index, name in enumerate((*EMOTIONS, "none"))}
    emotions["none"] = emotion < 0
    splits = {name: split == index for index, name in enumerate(SPLITS)}
    rows = []
    for emotion_name, of_emotion in (emotions | {"all": everywhere}).items():
        for split_name, of_split in (splits | {"all": everywhere}).items():
            here = of_emotion & of_split
            if here.any():
                rows.append(
                    {
                        "emotion": emotion_name,
                        "split": split_name,
                        "clips": int(here.sum()),
                        "songs": len(np.unique(song[here])),
                        "notes": int(notes[here].sum()),
                        "hours": round(float(seconds[here].sum()) / 3600, 3),
                    }
                )
    return rows
