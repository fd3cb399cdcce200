"""The plan: numbers that describe a passage, and steer the model where they are given.

They are measured on the notes themselves, so the model learns to follow them without labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, model_validator

from emogen.emotion import EMOTIONS
from emogen.music.measures import TONICS, key_fit, mode_fit, unit
from emogen.music.notes import LOWEST_KEY, Ints
from emogen.music.songbook import Progression
from emogen.music.tokens import COLUMN, DURATION_MS, SHIFT_MS, VELOCITY, Tokens

Plans = npt.NDArray[np.float32]
"""(..., P) in the order of ``ENTRIES``; NaN marks an unknown entry."""

ENTRIES = ("density", "velocity", "pitch", "spread", "duration", "mode", "polyphony", "chords", "dynamics", *TONICS)
"""The measures of a plan, P of them:

=============  ======================================================================================
density        log of the notes per second
velocity       mean MIDI velocity
pitch          mean MIDI pitch
spread         SD of the pitch
duration       mean log of the duration in s
mode           fit of the best major key minus fit of the best minor key, see ``measures.mode_fit``
polyphony      log of the mean number of notes sounding
chords         share of the notes that are struck together with the one before
dynamics       SD of the velocity
C, C#, ... B   the harmony: how much of the sound each pitch class makes up, see ``measures.unit``
=============  ======================================================================================

New entries are added at the end, so that training can start from a checkpoint that lacks them."""

HARMONY = slice(ENTRIES.index(TONICS[0]), ENTRIES.index(TONICS[-1]) + 1)
"""The entries of the harmony, which are known or hidden together."""

FARTHEST = 1e4
"""No mean, standard deviation or standardised plan is larger; those of music are below 200."""
PLANS_KEPT = 64
"""Largest number of plans of each emotion that a table keeps."""
NEAR = 0.1
"""Weight, in choosing typical plans, of being near the mean of their emotion, relative to being far from the others'
means. With 0 the extremes of an emotion would be chosen, and pieces would be denser or sparser than real ones."""
LEVEL = [ENTRIES.index("density"), ENTRIES.index("pitch")]
"""Of these the typical plans of an emotion have the mean of all its plans: the clips that distinguish sad and calm
music best are a tenth sparser than the others, and two to three semitones off."""
RIDGE = 0.05
"""Added to the variances (of standardised entries) in ``typical``, for tables of few plans."""


def measure(notes: Tokens, lengths: npt.ArrayLike) -> Plans:
    """Plans (B, P) of windows of notes (B, T, 4) of which the first ``lengths`` (B,), at least one, are real.

    Density is the number of notes after the first (at least 1) over the time from the first onset to the last (at least
    0.1 s); the number of notes sounding is averaged from the first onset to the last release.
    """
    count = np.asarray(lengths, dtype=np.int64)
    real = np.arange(notes.shape[1]) < count[:, None]  # (B, T)
    notes = np.where(real[..., None], notes, 0)

    def mean(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return np.where(real, values, 0).sum(1) / count

    shift_s = SHIFT_MS[notes[..., COLUMN.shift]] / 1000
    onset_s = np.where(real, shift_s, 0)[:, 1:].cumsum(1)
    onset_s = np.pad(onset_s, ((0, 0), (1, 0)))
    pitch = notes[..., COLUMN.pitch].astype(np.float64) + LOWEST_KEY
    duration_s = DURATION_MS[notes[..., COLUMN.duration]] / 1000
    together = notes[..., COLUMN.shift] == 0
    together[:, 0] = False
    velocity = VELOCITY[notes[..., COLUMN.velocity]].astype(np.float64)
    mean_pitch, mean_velocity = mean(pitch), mean(velocity)
    classes = (pitch.astype(np.int64) % 12) + 12 * np.arange(len(notes))[:, None]
    histogram = np.bincount(classes[real], duration_s[real], 12 * len(notes)).reshape(-1, 12).astype(float)
    plan = (
        np.log(np.maximum(count - 1, 1) / np.maximum(onset_s[:, -1], 0.1)),
        mean_velocity,
        mean_pitch,
        np.sqrt(mean((pitch - mean_pitch[:, None]) ** 2)),
        mean(np.log(duration_s)),
        mode_fit(histogram),
        np.log(np.where(real, duration_s, 0).sum(1) / np.where(real, onset_s + duration_s, 0).max(1)),
        mean(together),
        np.sqrt(mean((velocity - mean_velocity[:, None]) ** 2)),
        *unit(histogram).T,
    )
    return np.stack(plan, axis=1).astype(np.float32)


class Typical(NamedTuple):
    """The plans of an emotion that pieces follow."""

    rows: Ints
    """(K,): which of the table's plans of the emotion these are."""
    plans: Plans
    """(K, P), standardised; as dense and as high, on average, as all plans of the emotion."""


class PlanTable(BaseModel):
    """How plans are standardised, and plans of real clips to draw from. It holds numbers, not music."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    entries: tuple[str, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    by_emotion: dict[str, tuple[tuple[float, ...], ...]]
    """Standardised plans (K, P) of each emotion."""
    progressions: dict[str, tuple[Progression | None, ...]] = {}
    """The bars of the same clips, K of each emotion, where they have a pulse; empty for a network without charts."""

    @model_validator(mode="after")
    def _check(self) -> PlanTable:
        """Refuse a table of uneven rows, or of numbers that no music has."""
        rows = [self.mean, self.sd, *(plan for plans in self.by_emotion.values() for plan in plans)]
        if any(len(row) != len(self.entries) for row in rows):
            raise ValueError("rows of different lengths")
        if not all(abs(number) <= FARTHEST for row in rows for number in row) or min(self.sd, default=1) <= 0:
            raise ValueError("numbers that no music has")
        return self

    def standardise(self, plans: Plans) -> Plans:
        """Plans (..., P) in SDs from the corpus's mean."""
        scaled = (plans - np.array(self.mean)) / np.array(self.sd)
        return scaled.astype(np.float32)

    def moved_to(self, tonic: int, plan: Plans) -> Plans:
        """A standardised plan (P,) with its harmony transposed to a tonic from 0 (C) to 11 (B); the mode stays."""
        raw = plan * np.array(self.sd) + np.array(self.mean)
        raw[HARMONY] = np.roll(raw[HARMONY], tonic - key_of(raw)[0])
        return self.standardise(raw)

    def key_of(self, plan: Plans) -> tuple[int, bool]:
        """The tonic (0 is C) of a standardised plan (P,), and whether it is in minor."""
        return key_of(plan * np.array(self.sd) + np.array(self.mean))

    def typical(self) -> dict[str, Typical]:
        """The plans of each emotion that best distinguish it from the others: the half that pieces follow.

        By linear discriminant analysis (Fisher 1936) of all entries but the harmony, because the key says nothing
        about the emotion.
        """
        kept = {name: np.array(plans, dtype=np.float32) for name, plans in self.by_emotion.items() if plans}
        if not kept:
            return {}
        told = [plans[:, : HARMONY.start] for plans in kept.values()]
        within = np.concatenate([plans - plans.mean(0) for plans in told])
        inverse = np.linalg.inv(np.cov(within.T, bias=True) + RIDGE * np.eye(HARMONY.start))
        away = np.concatenate(told)[:, None] - np.array([plans.mean(0) for plans in told])  # (N, E, P)
        fit = -np.einsum("nep,pq,neq->ne", away, inverse, away) / 2
        fit = (1 + NEAR) * fit - np.logaddexp.reduce(fit, axis=1, keepdims=True)
        best, first = {}, 0
        for e, (name, plans) in enumerate(kept.items()):
            order = (-fit[first : first + len(plans), e]).argsort(kind="stable")
            rows = np.sort(order[: -(-len(plans) // 2)])
            best[name] = Typical(rows, plans[rows])
            best[name].plans[:, LEVEL] += plans[:, LEVEL].mean(0) - plans[rows][:, LEVEL].mean(0)
            first += len(plans)
        return best

    @classmethod
    def of(
        cls,
        plans: Plans,
        emotion: npt.NDArray[np.integer],
        seed: int,
        scale: PlanTable | None = None,
        progression: Callable[[int, int], Progression | None] | None = None,
    ) -> PlanTable:
        """The table of the plans (N, P) of clips with emotions (N,), -1 for no label.

        Up to PLANS_KEPT plans of each emotion are kept; if no clip is labelled, each emotion draws from all clips.
        Entries that ``scale`` has are standardised as there.

        Args:
            progression: the bars of a clip (0..N - 1) in the key of a tonic, for a network that follows charts.
        """
        mean, sd = plans.mean(0, dtype=np.float64), plans.std(0, dtype=np.float64)  # float32 sums of many plans drift
        sd[sd < 1e-6] = 1  # an entry that never varies
        if scale:
            mean[: len(scale.mean)], sd[: len(scale.sd)] = scale.mean, scale.sd
        scale = cls(entries=ENTRIES, mean=tuple(mean.round(6)), sd=tuple(sd.round(6)), by_emotion={})
        scaled = scale.standardise(plans).astype(float).round(3)
        rng = np.random.default_rng(seed)
        by_emotion, progressions = {}, {}
        for index, name in enumerate(EMOTIONS):
            own = np.flatnonzero(emotion == index) if (emotion >= 0).any() else np.arange(len(plans))
            kept = rng.permutation(own)[:PLANS_KEPT]
            by_emotion[name] = tuple(map(tuple, scaled[kept].tolist()))
            if progression:
                progressions[name] = tuple(progression(clip, key_of(plans[clip])[0]) for clip in kept.tolist())
        return scale.model_copy(update={"by_emotion": by_emotion, "progressions": progressions})


def key_of(plan: Plans) -> tuple[int, bool]:
    """The tonic (0 is C) of a plan (P,) in its own units, and whether it is in minor."""
    major, minor = key_fit(plan[HARMONY]).reshape(2, 12)
    in_minor = bool(plan[ENTRIES.index("mode")] < 0)
    return int((minor if in_minor else major).argmax()), in_minor
