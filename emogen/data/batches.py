"""From the cache to batches: windows of clips, balanced over the emotions, augmented, bucketed by length.

Every batch is a pure function of (seed, epoch, step), so a run that is stopped anywhere resumes exactly. (Above 300
lines, by a few: what a network is given is hidden where it is made.)
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from emogen.data.corpus import Corpus
from emogen.emotion import EMOTIONS
from emogen.errors import EmogenError
from emogen.music import plan, position, recall, relative
from emogen.music.chart import Chart
from emogen.music.notes import Ints
from emogen.music.songbook import Progression
from emogen.music.tokens import COLUMN, DURATION_MS, SHIFT_MS, SILENCE, SIZES, Tokens, end_row, is_note, nearest
from emogen.settings import TrainSettings

BUCKET_BATCHES = 16
"""The windows of this many batches are sorted by length together, so that a batch holds windows of similar length."""


NOTHING_FOLLOWED = np.append(SILENCE, [[0]], axis=1).astype(np.uint8)
"""The row (1, 5) of ``Batch.followed`` where nothing was matched."""


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
    place: Tensor
    """(B, T, F): what the chart says of each note's onset, see ``position.Moments``; zeros where hidden. This and what
    follows are for a network that follows charts; for others they are empty: their last axis has length 0."""
    followed: Tensor
    """(B, T, 5) uint8: the note that followed the longest earlier match, and the class of the match's length."""
    landing: Tensor
    """(B, T, F): ``place`` of the next note."""
    bins: Tensor
    """(B, T, 145) uint8: on which part of a beat each shift would land, see ``position.bins``."""
    references: Tensor
    """(B, T, 4) uint8: from what the next pitch is an interval or degree, see ``relative``."""


class Window(NamedTuple):
    """R rows of a clip, as ``music/tokens`` describes windows."""

    rows: Tokens
    """(R, 4)"""
    left_s: npt.NDArray[np.float64]
    """(R,): time remaining at each row."""
    at_ms: Ints
    """(R,): onset of each row in the clip."""
    followed: npt.NDArray[np.uint8]
    """(R, 5), as in ``Batch``."""
    chart: Chart
    stretch: float
    """By how much slower than its chart the music is played."""


def plan_table(
    corpus: Corpus, longest: int, seed: int, scale: plan.PlanTable | None = None, charted: bool = False
) -> plan.PlanTable:
    """The table of the plans of the training clips, measured on their first ``longest`` notes; see ``PlanTable.of``.

    Raises:
        EmogenError: there is no training clip.
    """
    clips, plans = measured(corpus, longest)

    def progression(row: int, tonic: int) -> Progression | None:
        return Progression.of(corpus.chart(int(clips[row])), tonic)

    return plan.PlanTable.of(plans, corpus.emotion[clips], seed, scale, progression if charted else None)


def measured(corpus: Corpus, longest: int) -> tuple[Ints, plan.Plans]:
    """The training clips (N,) and their plans (N, P), measured on their first ``longest`` notes.

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
    return windows[:, 0], np.concatenate(plans)


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
        charted: bool = False,
    ) -> None:  # seven: what, how much of it, how it is augmented, and whether charts and matches are told
        self.corpus, self.clips = corpus, corpus.clips(split)
        self.batch_size, self.context_notes = batch_size, context_notes
        self.plans, self.augment, self.charted = plans, augment, charted
        self.epoch = lru_cache(maxsize=1)(self._epoch)
        self.followed = lru_cache(maxsize=4096)(self._followed)

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
        some = [self._window(clip, first, length, rng) for clip, first, length in windows.tolist()]
        shape = len(some), max(len(window.rows) for window in some)
        notes = np.tile(SILENCE, (*shape, 1))
        remaining_s = np.zeros(shape, dtype=np.float32)
        for row, window in enumerate(some):
            notes[row, : len(window.rows)], remaining_s[row, : len(window.rows)] = window.rows, window.left_s
        emotion = np.eye(len(EMOTIONS) + 1, dtype=np.float32)[self.corpus.emotion[windows[:, 0]], : len(EMOTIONS)]
        plans = np.full((shape[0], len(plan.ENTRIES)), np.nan, dtype=np.float32)
        if self.augment and rng:
            plans = self.plans.standardise(plan.measure(notes[:, 1:], windows[:, 2]))
            hide(rng, self.augment, emotion, plans, remaining_s)
        told = self._told(some, shape, rng) if self.charted else 5 * (np.zeros((*shape, 0), dtype=np.float32),)
        place, followed, landing, bins, references = told
        given = notes, emotion, plans, remaining_s[:, :-1], place[:, :-1], followed[:, :-1]
        return Batch(*map(torch.from_numpy, (*given, landing[:, 1:], bins[:, :-1], references[:, 1:])))

    def _told(
        self, windows: list[Window], shape: tuple[int, int], rng: np.random.Generator | None
    ) -> tuple[npt.NDArray[Any], ...]:
        """What charts and earlier matches say of each row (B, R), as ``Batch`` names it."""
        place = np.zeros((*shape, position.WIDTH), dtype=np.float32)
        followed = np.tile(NOTHING_FOLLOWED, (*shape, 1))
        bins = np.full((*shape, len(SHIFT_MS)), position.UNKNOWN, dtype=np.uint8)
        references = np.full((*shape, relative.REFERENCES), relative.NOTHING, dtype=np.uint8)
        for row, window in enumerate(windows):
            there = row, slice(len(window.rows))
            place[there], references[*there, 3] = position.at(window.chart, window.at_ms, window.stretch)
            bins[there] = position.bins(window.chart, window.at_ms, window.stretch)
            followed[there] = window.followed
            references[row, 1 : len(window.rows), :3] = relative.references(window.rows)
        landing = place.copy()
        if self.augment and rng:
            hide_chart(rng, self.augment, place, landing, bins, references)
            followed[rng.random(shape[0]) < self.augment.drop_recall] = NOTHING_FOLLOWED
        return place, followed, landing, bins, references

    def _window(self, clip: int, first: int, length: int, rng: np.random.Generator | None) -> Window:
        """A window of ``length`` notes of a clip."""
        song = self.corpus.notes(clip)
        onset_ms = SHIFT_MS[song[:, COLUMN.shift]].cumsum()
        end_ms = (onset_ms + DURATION_MS[song[:, COLUMN.duration]]).max()
        inside = slice(first - 1 if first else 0, first + length)
        rows, at_ms, followed = song[inside], onset_ms[inside], self.followed(clip)[inside]
        if not first:
            rows, at_ms = np.concatenate([SILENCE, rows]), np.append(0, at_ms)
            followed = np.concatenate([NOTHING_FOLLOWED, followed])
        chart, left_ms, factor = self.corpus.chart(clip) if self.charted else Chart.none(), end_ms - at_ms, 1.0
        if self.augment and rng:
            both, factor, semitones = vary(np.concatenate([rows, followed[:, :4]]), self.augment, rng)
            rows, followed = both[: len(rows)], np.concatenate([both[len(rows) :], followed[:, 4:]], axis=1)
            left_ms, chart = left_ms * factor, chart.transposed(semitones)
        if first + length == len(song) and length < self.context_notes:
            rows, left_ms = np.concatenate([rows, end_row(left_ms[-1])]), np.append(left_ms, 0)
            followed, at_ms = np.concatenate([followed, NOTHING_FOLLOWED]), np.append(at_ms, end_ms)
        return Window(rows, left_ms / 1000, at_ms, followed, chart, factor)

    def _followed(self, clip: int) -> npt.NDArray[np.uint8]:
        """For each note of a clip (N, 5) what followed its longest earlier match, and the class of its length."""
        song = self.corpus.notes(clip)
        if not self.charted:
            return np.tile(NOTHING_FOLLOWED, (len(song), 1))
        end, length = recall.matches(song[:, COLUMN.pitch])
        after = np.where((end >= 0)[:, None], song[end + 1], SILENCE)
        return np.concatenate([after, recall.BUCKET[length][:, None]], axis=1)


def vary(rows: Tokens, by: TrainSettings, rng: np.random.Generator) -> tuple[Tokens, float, int]:
    """The rows of a window in another key, tempo and loudness; by what factor time was stretched; the semitones."""
    varied = rows.astype(np.int64)
    real = is_note(varied)  # not the silence before a piece
    pitch = varied[real, COLUMN.pitch]
    room_below, room_above = int(pitch.min()), SIZES[COLUMN.pitch] - 1 - int(pitch.max())
    lowest, highest = -min(by.key_semitones, room_below), min(by.key_semitones, room_above)
    semitones = int(rng.integers(lowest, highest + 1))
    varied[real, COLUMN.pitch] += semitones
    louder = varied[real, COLUMN.velocity] + rng.integers(-by.velocity_steps, by.velocity_steps + 1)
    varied[real, COLUMN.velocity] = louder.clip(0, SIZES[COLUMN.velocity] - 1)
    percent = 100 + int(rng.integers(-by.tempo_percent, by.tempo_percent + 1))
    shift, duration = stretched(percent)
    varied[real, COLUMN.shift] = shift[varied[real, COLUMN.shift]]
    varied[real, COLUMN.duration] = duration[varied[real, COLUMN.duration]]
    return varied.astype(np.uint8), percent / 100, semitones


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


def hide_chart(
    rng: np.random.Generator,
    by: TrainSettings,
    place: npt.NDArray[np.float32],
    landing: npt.NDArray[np.float32],
    bins: npt.NDArray[np.uint8],
    references: npt.NDArray[np.uint8],
) -> None:
    """Hide the beat, the chords or both in some windows, and the beat at single notes.

    At single notes, so that a piece which has slipped off the beat is pulled back: elsewhere the spacing of the notes
    just heard and the beat never disagree in training.
    """
    shape = bins.shape[:2]
    fate = rng.random((shape[0], 1))
    no_beat = fate < by.drop_chart + by.drop_beat
    no_chords = (fate < by.drop_chart) | (fate > 1 - by.drop_chords)
    no_beat = no_beat | (rng.random(shape) < by.drop_beat_at_note)
    conceal(no_beat, np.broadcast_to(no_chords, shape), place, landing, bins, references)


def conceal(
    no_beat: npt.NDArray[np.bool_],
    no_chords: npt.NDArray[np.bool_],
    place: npt.NDArray[np.float32],
    landing: npt.NDArray[np.float32],
    bins: npt.NDArray[np.uint8],
    references: npt.NDArray[np.uint8],
) -> None:
    """Hide in place the beat and the chords at some notes (B, R): at them, and where the next one lands."""
    later_beat, later_chords = (np.pad(hidden[:, :-1], ((0, 0), (1, 0))) for hidden in (no_beat, no_chords))
    place[no_beat, : position.BEAT] = 0
    place[no_chords, position.BEAT :] = 0
    landing[later_beat, : position.BEAT] = 0
    landing[later_chords, position.BEAT :] = 0
    bins[no_beat] = position.UNKNOWN
    references[later_chords, 3] = relative.NOTHING[3]
