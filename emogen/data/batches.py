"""From the cache to batches: windows of clips, balanced over the emotions, augmented, bucketed by length.

Every batch is a pure function of (seed, epoch, step), so a run that is stopped anywhere resumes exactly.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from emogen.data.corpus import Corpus
from emogen.emotion import EMOTIONS
from emogen.errors import EmogenError
from emogen.music import plan
from emogen.music.notes import Ints
from emogen.music.tokens import COLUMN, DURATION_MS, SHIFT_MS, SILENCE, SIZES, Tokens, end_row, is_note, nearest
from emogen.settings import TrainSettings

BUCKET_BATCHES = 16
"""The windows of this many batches are sorted by length together, so that a batch holds windows of similar length."""


class Batch(NamedTuple):
    """B windows of up to T notes, as the model's ``loss`` takes them."""

    notes: Tensor
    """(B, T + 1, 4) uint8: windows as ``music/tokens`` describes them."""
    emotion: Tensor
    """(B, E): one-hot; all zeros where it is hidden or unknown."""
    plan: Tensor
    """(B, P), standardised; NaN where hidden."""
    remaining_s: Tensor
    """(B, T): from the onset of each note of ``notes[:, :-1]`` to the end of the piece; NaN where hidden."""


def plan_table(corpus: Corpus, longest: int, seed: int, scale: plan.PlanTable | None = None) -> plan.PlanTable:
    """The table of the plans of the training clips, measured on their first ``longest`` notes; see ``PlanTable.of``.

    Raises:
        EmogenError: there is no training clip.
    """
    windows = cut(corpus, corpus.clips("train"), longest, None)
    windows = windows[windows[:, 1] == 0]  # one per clip: otherwise dense clips would count more than others
    if not len(windows):
        raise EmogenError("the prepared corpus has no training clips", "prepare a larger one: emogen prepare FOLDER")
    plans = []
    for some in np.array_split(windows, max(1, len(windows) // 64)):
        lengths = some[:, 2]
        notes = np.zeros((len(some), lengths.max(), 4), dtype=np.uint8)
        for row, (clip, start, length) in enumerate(some.tolist()):
            notes[row, :length] = corpus.notes(clip)[start : start + length]
        plans.append(plan.measure(notes, lengths))
    return plan.PlanTable.of(np.concatenate(plans), corpus.emotion[windows[:, 0]], seed, scale)


def cut(corpus: Corpus, clips: Ints, longest: int, rng: np.random.Generator | None) -> Ints:
    """Windows (N, 3) of (clip, first note, number of notes) that hold every note of the clips once.

    A clip of up to ``longest`` notes is one window. A longer one is cut every ``longest`` notes; with an ``rng`` the
    first cut is random, so that each epoch cuts elsewhere.
    """
    windows = []
    for clip, total in zip(clips.tolist(), np.diff(corpus.start)[clips].tolist(), strict=True):
        first = int(rng.integers(1, longest + 1)) if rng and total > longest else longest
        cuts = np.unique(np.concatenate([[0], np.arange(first, total, longest), [total]]))
        windows.append(np.stack([np.full(len(cuts) - 1, clip), cuts[:-1], np.diff(cuts)], axis=1))
    return np.concatenate(windows) if windows else np.zeros((0, 3), dtype=np.int64)


def balance(emotion: npt.NDArray[np.integer], rng: np.random.Generator) -> Ints:
    """Indices into ``emotion`` (N,) in which every emotion that occurs is as frequent as the most frequent one.

    Each index occurs at least once; within an emotion, counts differ by at most one. Unlabelled entries (-1) occur
    once.
    """
    groups = [np.flatnonzero(emotion == e) for e in range(len(EMOTIONS))]
    most = max(map(len, groups), default=0)
    chosen = [np.flatnonzero(emotion < 0)]
    for group in filter(len, groups):
        repeats, rest = divmod(most, len(group))
        chosen += [np.tile(group, repeats), rng.permutation(group)[:rest]]
    return np.concatenate(chosen)


class Batches:
    """The batches of one split.

    Training batches (``augment`` given) are balanced, shuffled, augmented, and hide conditions at random. Others hold
    every note once, in a fixed order, with the plan hidden: it is measured on the notes that are to be predicted.
    """

    def __init__(
        self,
        corpus: Corpus,
        split: str,
        batch_size: int,
        context_notes: int,
        plans: plan.PlanTable,
        augment: TrainSettings | None = None,
    ) -> None:  # six: what, how much of it, and how it is augmented
        self.corpus, self.clips = corpus, corpus.clips(split)
        self.batch_size, self.context_notes = batch_size, context_notes
        self.plans, self.augment = plans, augment
        self.epoch = lru_cache(maxsize=1)(self._epoch)

    def _epoch(self, epoch: int) -> list[Ints]:
        """The windows (B, 3) of every batch of an epoch, see ``cut``."""
        if self.augment is None:
            windows = cut(self.corpus, self.clips, self.context_notes, None)
            windows = windows[np.argsort(windows[:, 2], kind="stable")]
            return [windows[i : i + self.batch_size] for i in range(0, len(windows), self.batch_size)]
        rng = np.random.default_rng([self.augment.seed, epoch])
        windows = cut(self.corpus, self.clips, self.context_notes, rng)
        windows = rng.permutation(windows[balance(self.corpus.emotion[windows[:, 0]], rng)])
        bucket = BUCKET_BATCHES * self.batch_size
        batches = []
        for i in range(0, len(windows), bucket):
            some = windows[i : i + bucket]
            some = some[np.argsort(some[:, 2], kind="stable")]
            batches += [some[j : j + self.batch_size] for j in range(0, len(some), self.batch_size)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def batch(self, epoch: int, step: int) -> Batch:
        """Batch number ``step`` of an epoch."""
        windows = self.epoch(epoch)[step]
        # + 1: to numpy, [seed, epoch, 0] is the same seed as [seed, epoch], that of the epoch itself
        rng = np.random.default_rng([self.augment.seed, epoch, step + 1]) if self.augment else None
        rows = [self._window(clip, first, length, rng) for clip, first, length in windows.tolist()]
        longest = max(len(notes) for notes, _ in rows)
        notes = np.tile(SILENCE, (len(rows), longest, 1))
        remaining_s = np.zeros((len(rows), longest), dtype=np.float32)
        for row, (some, times) in enumerate(rows):
            notes[row, : len(some)] = some
            remaining_s[row, : len(times)] = times
        emotion = np.eye(len(EMOTIONS) + 1, dtype=np.float32)[self.corpus.emotion[windows[:, 0]], : len(EMOTIONS)]
        plans = np.full((len(rows), len(plan.ENTRIES)), np.nan, dtype=np.float32)
        if self.augment and rng:
            plans = self.plans.standardise(plan.measure(notes[:, 1:], windows[:, 2]))
            hide(rng, self.augment, emotion, plans, remaining_s)
        return Batch(*map(torch.from_numpy, (notes, emotion, plans, remaining_s[:, :-1])))

    def _window(
        self, clip: int, first: int, length: int, rng: np.random.Generator | None
    ) -> tuple[Tokens, npt.NDArray[np.float64]]:
        """Rows (R, 4) of a window, R = 1 + length (+ 1 with an end), and the time remaining (R,) at each, in s."""
        song = self.corpus.notes(clip)
        onset_ms = SHIFT_MS[song[:, COLUMN.shift]].cumsum()
        end_ms = (onset_ms + DURATION_MS[song[:, COLUMN.duration]]).max()
        before = song[first - 1 : first] if first else SILENCE
        rows = np.concatenate([before, song[first : first + length]])
        left_ms = end_ms - np.concatenate(
            [onset_ms[first - 1 : first] if first else [0], onset_ms[first : first + length]]
        )
        if self.augment and rng:
            rows, factor = vary(rows, self.augment, rng)
            left_ms = left_ms * factor
        if first + length == len(song) and length < self.context_notes:
            rows, left_ms = np.concatenate([rows, end_row(left_ms[-1])]), np.append(left_ms, 0)
        return rows, left_ms / 1000


def vary(rows: Tokens, by: TrainSettings, rng: np.random.Generator) -> tuple[Tokens, float]:
    """The rows of a window in another key, tempo and loudness, and the factor by which time was stretched."""
    varied = rows.astype(np.int64)
    real = is_note(varied)  # not the silence before a piece
    pitch = varied[real, COLUMN.pitch]
    room_below, room_above = int(pitch.min()), SIZES[COLUMN.pitch] - 1 - int(pitch.max())
    lowest, highest = -min(by.key_semitones, room_below), min(by.key_semitones, room_above)
    varied[real, COLUMN.pitch] += rng.integers(lowest, highest + 1)
    louder = varied[real, COLUMN.velocity] + rng.integers(-by.velocity_steps, by.velocity_steps + 1)
    varied[real, COLUMN.velocity] = louder.clip(0, SIZES[COLUMN.velocity] - 1)
    percent = 100 + int(rng.integers(-by.tempo_percent, by.tempo_percent + 1))
    shift, duration = stretched(percent)
    varied[real, COLUMN.shift] = shift[varied[real, COLUMN.shift]]
    varied[real, COLUMN.duration] = duration[varied[real, COLUMN.duration]]
    return varied.astype(np.uint8), percent / 100


@lru_cache(maxsize=64)
def stretched(percent: int) -> tuple[Ints, Ints]:
    """Lookup tables: what each shift (145,) and duration (95,) becomes at ``percent`` of its time."""
    shift = nearest(SHIFT_MS, SHIFT_MS * (percent / 100))
    return shift, nearest(DURATION_MS, DURATION_MS * (percent / 100))


def hide(
    rng: np.random.Generator,
    by: TrainSettings,
    emotion: npt.NDArray[np.float32],
    plans: plan.Plans,
    remaining_s: npt.NDArray[np.float32],
) -> None:
    """Hide conditions in place, so that the model learns to do without each: zeros hide an emotion, NaN the rest."""
    rows = len(emotion)
    emotion[rng.random(rows) < by.drop_emotion] = 0
    hidden = rng.random(plans.shape) < by.drop_plan_entry
    hidden[:, plan.HARMONY] = hidden[:, plan.HARMONY][:, :1]
    plans[hidden] = np.nan
    plans[rng.random(rows) < by.drop_plan] = np.nan
    remaining_s[rng.random(rows) < by.drop_remaining] = np.nan
