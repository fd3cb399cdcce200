"""The plan: six numbers that say what a passage is like, and steer the model where they are given.

They are measured on the notes themselves, so learning to obey them needs no label.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from emogen.emotion import EMOTIONS
from emogen.musicality import mode_fit
from emogen.notes import LOWEST_KEY
from emogen.tokens import COLUMN, DURATION_MS, SHIFT_MS, VELOCITY, Tokens

Plans = npt.NDArray[np.float32]
"""(..., P) in the order of ``ENTRIES``; NaN is an entry that is not known."""

ENTRIES = ("density", "velocity", "pitch", "spread", "duration", "mode")
"""Log notes per second, mean velocity, mean pitch, SD of pitch, mean log duration in s, major against minor fit."""

PLANS_KEPT = 64
"""Plans of each emotion that a table keeps."""


def measure(notes: Tokens, lengths: npt.ArrayLike) -> Plans:
    """Plans (B, P) of windows of notes (B, T, 4) of which the first ``lengths`` (B,) are real, at least one each.

    Density counts the notes after the first (at least 1) against the time from the first onset to the last (at least
    0.1 s).
    """
    count = np.asarray(lengths, dtype=np.int64)
    real = np.arange(notes.shape[1]) < count[:, None]  # (B, T)
    notes = np.where(real[..., None], notes, 0)

    def mean(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return np.where(real, values, 0).sum(1) / count

    shift_s = SHIFT_MS[notes[..., COLUMN.shift]] / 1000
    span_s = np.where(real, shift_s, 0)[:, 1:].sum(1)
    pitch = notes[..., COLUMN.pitch].astype(np.float64) + LOWEST_KEY
    duration_s = DURATION_MS[notes[..., COLUMN.duration]] / 1000
    mean_pitch = mean(pitch)
    classes = (pitch.astype(np.int64) % 12) + 12 * np.arange(len(notes))[:, None]
    histogram = np.bincount(classes[real], duration_s[real], 12 * len(notes)).reshape(-1, 12)
    plan = (
        np.log(np.maximum(count - 1, 1) / np.maximum(span_s, 0.1)),
        mean(VELOCITY[notes[..., COLUMN.velocity]]),
        mean_pitch,
        np.sqrt(mean((pitch - mean_pitch[:, None]) ** 2)),
        mean(np.log(duration_s)),
        mode_fit(histogram),
    )
    return np.stack(plan, axis=1).astype(np.float32)


class PlanTable(BaseModel):
    """How plans are standardised, and plans of real clips to draw from: numbers, no music."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    entries: tuple[str, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    by_emotion: dict[str, tuple[tuple[float, ...], ...]]
    """Standardised plans (K, P) of each emotion."""

    def standardise(self, plans: Plans) -> Plans:
        """Plans (..., P) in SDs from the corpus's mean."""
        scaled = (plans - np.array(self.mean)) / np.array(self.sd)
        return scaled.astype(np.float32)

    @classmethod
    def of(cls, plans: Plans, emotion: npt.NDArray[np.integer], seed: int, scale: PlanTable | None = None) -> PlanTable:
        """The table of plans (N, P) of clips of some emotion (N,), -1 for none; standardised as in ``scale`` if given.

        Up to PLANS_KEPT of each emotion are kept; where no clip is labelled, each emotion gets some of all.
        """
        mean, sd = plans.mean(0, dtype=np.float64), plans.std(0, dtype=np.float64)  # float32 sums of many plans drift
        scale = scale or cls(
            entries=ENTRIES,
            mean=tuple(mean.round(6).tolist()),
            sd=tuple(np.where(sd > 1e-6, sd, 1).round(6).tolist()),  # an entry that never varies
            by_emotion={},
        )
        scaled = scale.standardise(plans).astype(float).round(3)
        rng = np.random.default_rng(seed)
        by_emotion = {}
        for index, name in enumerate(EMOTIONS):
            own = np.flatnonzero(emotion == index) if (emotion >= 0).any() else np.arange(len(plans))
            by_emotion[name] = tuple(map(tuple, scaled[rng.permutation(own)[:PLANS_KEPT]].tolist()))
        return scale.model_copy(update={"by_emotion": by_emotion})
