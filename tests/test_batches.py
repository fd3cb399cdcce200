"""The laws of windows and batches. (Above 300 lines: a test a law, in six chapters.)"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from emogen.data.batches import Batch, Batches, balance, cut, plan_table
from emogen.data.corpus import Corpus
from emogen.emotion import EMOTIONS
from emogen.errors import EmogenError
from emogen.music import plan, position, relative
from emogen.music.chart import Chart
from emogen.music.plan import ENTRIES, PlanTable
from emogen.music.tokens import (
    COLUMN,
    DURATION_MS,
    NO_NOTE,
    SHIFT_MS,
    SILENCE,
    SIZES,
    VELOCITY,
    Tokens,
    decode,
    is_note,
)
from emogen.settings import TrainSettings
from tests.music import PLAN_MEAN, PLAN_SD, corpus_of, random_tokens

CONTEXT = 32
STILL = TrainSettings(
    key_semitones=0, tempo_percent=0, velocity_steps=0, drop_emotion=0, drop_plan=0, drop_plan_entry=0, drop_remaining=0
)
"""Neither augmented nor hidden."""
PLANS = PlanTable(entries=ENTRIES, mean=PLAN_MEAN, sd=PLAN_SD, by_emotion={})

Window = tuple[int, int, int]


def corpus(seed: int = 0, clips: int = 60, longest: int = 90) -> Corpus:
    """Clips of 1 to ``longest`` notes: of any emotion or none, in any split."""
    rng = np.random.default_rng(seed)
    music = [random_tokens(rng, int(notes)) for notes in rng.integers(1, longest, clips)]
    return corpus_of(music, rng.integers(-1, len(EMOTIONS), clips), rng.choice(3, clips, p=(0.7, 0.15, 0.15)))


def training(augment: TrainSettings = STILL, of: Corpus | None = None, batch_size: int = 4) -> Batches:
    return Batches(of or corpus(), "train", batch_size, CONTEXT, PLANS, augment)


def windows_of(batches: Batches, epoch: int = 0) -> Iterator[tuple[Batch, int, Window]]:
    """Every window of an epoch: its batch, its row there, and where it was cut from."""
    for step, windows in enumerate(batches.epoch(epoch)):
        batch = batches.batch(epoch, step)
        assert len(batch.notes) == len(windows)
        for row, (clip, first, length) in enumerate(windows.tolist()):
            yield batch, row, (clip, first, length)


def heard(windows: npt.NDArray[np.integer], of: Corpus) -> npt.NDArray[np.int64]:
    """How often each note of the corpus stands in the windows."""
    times = np.zeros(len(of.tokens), dtype=np.int64)
    for clip, first, length in windows.tolist():
        assert of.start[clip] + first + length <= of.start[clip + 1]
        times[of.start[clip] + first : of.start[clip] + first + length] += 1
    return times


def notes_in(split: str, of: Corpus) -> npt.NDArray[np.bool_]:
    """Which notes of the corpus are in a split."""
    inside = np.zeros(len(of.tokens), dtype=bool)
    for clip in of.clips(split):
        inside[of.start[clip] : of.start[clip + 1]] = True
    return inside


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches are equal in every bit that means something."""
    return all(torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)) for a, b in zip(one, other, strict=True))


# ---- which windows


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_cutting_puts_every_note_into_one_window(seed: int | None) -> None:
    of = corpus()
    rng = None if seed is None else np.random.default_rng(seed)
    windows = cut(of, of.clips("train"), CONTEXT, rng)
    assert heard(windows, of).tolist() == notes_in("train", of).astype(int).tolist()
    assert (windows[:, 2].min(), windows[:, 2].max()) == (1, CONTEXT)


def test_a_clip_that_fits_is_one_window() -> None:
    of = corpus_of([random_tokens(np.random.default_rng(0), notes) for notes in (1, CONTEXT - 1, CONTEXT)], 0)
    expected = [[0, 0, 1], [1, 0, CONTEXT - 1], [2, 0, CONTEXT]]
    assert cut(of, of.clips("train"), CONTEXT, None).tolist() == expected
    assert cut(of, of.clips("train"), CONTEXT, np.random.default_rng(0)).tolist() == expected


def test_a_long_clip_is_cut_elsewhere_in_each_epoch() -> None:
    of = corpus_of([random_tokens(np.random.default_rng(0), 300)], 0)
    firsts = set()
    for epoch in range(200):
        windows = np.concatenate(training(of=of).epoch(epoch))
        windows = windows[windows[:, 1].argsort()]
        assert heard(windows, of).tolist() == [1] * 300
        assert set(windows[1:-1, 2]) == {CONTEXT}
        firsts.add(int(windows[0, 2]))
    assert firsts == set(range(1, CONTEXT + 1))


def test_no_clips_make_no_windows() -> None:
    of = corpus_of([], [])
    assert cut(of, of.clips("train"), CONTEXT, None).shape == (0, 3)
    assert Batches(of, "valid", 4, CONTEXT, PLANS).epoch(0) == []
    assert training(of=of).epoch(0) == []


def test_balance_makes_every_emotion_as_frequent_as_the_most_frequent() -> None:
    emotion = np.random.default_rng(0).choice([-1, 0, 1, 2, 4, 5], 200, p=(0.1, 0.4, 0.3, 0.1, 0.08, 0.02))
    chosen = balance(emotion, np.random.default_rng(0))
    times = np.bincount(chosen, minlength=200)
    most = (emotion == 0).sum()
    assert Counter(emotion[chosen].tolist()) == {-1: (emotion == -1).sum(), 0: most, 1: most, 2: most, 4: most, 5: most}
    assert times.min() == 1
    for one in np.unique(emotion):
        assert np.ptp(times[emotion == one]) <= 1


def test_what_balance_repeats_once_more_is_drawn_anew() -> None:
    emotion = np.repeat([0, 1], [100, 60])
    chosen = [tuple(sorted(balance(emotion, np.random.default_rng(seed)))) for seed in range(10)]
    assert len(set(chosen)) == 10


def test_an_epoch_of_training_holds_every_window_and_every_emotion_alike() -> None:
    of = corpus()
    windows = np.concatenate(training(of=of).epoch(0))
    times = heard(windows, of)
    train = notes_in("train", of)
    assert times[train].min() == 1
    assert not times[~train].any()
    counts = Counter(of.emotion[windows[:, 0]].tolist())
    assert counts.keys() == {-1, *range(len(EMOTIONS))}
    assert len({count for emotion, count in counts.items() if emotion >= 0}) == 1


@pytest.mark.parametrize("split", ["valid", "test"])
def test_valid_and_test_hold_every_note_once_as_it_is_in_every_epoch_alike(split: str) -> None:
    of = corpus()
    batches = Batches(of, split, 4, CONTEXT, PLANS)
    windows = np.concatenate(batches.epoch(0))
    assert heard(windows, of).tolist() == notes_in(split, of).astype(int).tolist()
    for batch, row, (clip, first, length) in windows_of(batches):
        assert np.array_equal(batch.notes[row, 1 : length + 1], of.notes(clip)[first : first + length])
    assert all(same(batches.batch(0, step), batches.batch(7, step)) for step in range(len(batches.epoch(0))))


@pytest.mark.parametrize("split", ["valid", "test"])
def test_valid_and_test_hide_the_plan_and_nothing_else(split: str) -> None:
    of = corpus()
    for batch, row, (clip, _, _) in windows_of(Batches(of, split, 4, CONTEXT, PLANS)):
        assert batch.plan[row].isnan().all()
        assert not batch.remaining_s[row].isnan().any()
        assert batch.emotion[row].sum() == (of.emotion[clip] >= 0)


def test_batches_hold_windows_of_about_one_length_and_waste_under_a_tenth() -> None:
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.normal(5.45, 0.55, 750)).astype(int).clip(41, 1228)  # EMOPIA: 41..1228, quartiles 162 229 339
    of = corpus_of([random_tokens(rng, notes) for notes in lengths.tolist()], rng.integers(0, 6, 750))
    for batches in (Batches(of, "train", 8, 512, PLANS, STILL), Batches(of, "train", 8, 512, PLANS)):
        epoch = batches.epoch(0)
        padded = sum(len(windows) * windows[:, 2].max() for windows in epoch)
        assert sum(windows[:, 2].sum() for windows in epoch) / padded > 0.9


def test_batches_are_full_but_for_the_last_and_come_in_no_order_of_length() -> None:
    batches = training(of=corpus(clips=200), batch_size=2)
    sizes = Counter(len(windows) for windows in batches.epoch(0))
    assert sizes[2] >= len(batches.epoch(0)) - 1
    longest = [int(windows[:, 2].max()) for windows in batches.epoch(0)]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3


def test_windows_meet_other_windows_in_each_epoch() -> None:
    rng = np.random.default_rng(0)
    batches = training(of=corpus_of([random_tokens(rng, 5) for _ in range(400)], -1), batch_size=2)
    mates = [{frozenset(windows[:, 0].tolist()) for windows in batches.epoch(epoch)} for epoch in (0, 1)]
    assert [len(pairs) for pairs in mates] == [200, 200]
    assert len(mates[0] & mates[1]) < 10
    assert sum(max(pair) - min(pair) == 1 for pair in mates[0]) < 10


# ---- the same batch again


def test_a_batch_depends_on_the_seed_the_epoch_and_the_step_alone() -> None:
    batches = training(TrainSettings())
    steps = [(epoch, step) for epoch in (0, 1) for step in range(len(batches.epoch(epoch)))]
    assert len(steps) > 20
    once = {(epoch, step): batches.batch(epoch, step) for epoch, step in steps}
    fresh = training(TrainSettings())
    for (epoch, step), batch in reversed(once.items()):
        assert same(fresh.batch(epoch, step), batch)
    assert same(training(TrainSettings()).batch(1, 3), once[1, 3])
    assert not same(once[0, 0], once[1, 0])
    other = training(TrainSettings(seed=1))
    assert not same(once[0, 0], other.batch(0, 0))
    assert np.concatenate(batches.epoch(0)).tolist() != np.concatenate(other.epoch(0)).tolist()


def test_no_two_draws_of_a_run_come_from_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[str] = []
    make = np.random.default_rng

    def watched(seed: list[int]) -> np.random.Generator:
        rng = make(seed)
        states.append(str(rng.bit_generator.state))
        return rng

    batches = training(TrainSettings())
    monkeypatch.setattr(np.random, "default_rng", watched)
    for epoch in range(3):
        for step in range(len(batches.epoch(epoch))):
            batches.batch(epoch, step)
    assert len(states) > 50
    assert len(set(states)) == len(states)


# ---- what is in a batch


def test_a_batch_has_the_shapes_and_types_that_the_model_takes() -> None:
    for batches in (training(TrainSettings()), Batches(corpus(), "valid", 4, CONTEXT, PLANS)):
        for step, windows in enumerate(batches.epoch(0)):
            batch, rows = batches.batch(0, step), len(windows)
            length = batch.notes.shape[1] - 1
            assert 1 <= length <= CONTEXT
            assert batch.notes.shape == (rows, length + 1, 4)
            assert batch.emotion.shape == (rows, len(EMOTIONS))
            assert batch.plan.shape == (rows, len(ENTRIES))
            assert batch.remaining_s.shape == (rows, length)
            assert [part.dtype for part in batch[:4]] == [torch.uint8, torch.float32, torch.float32, torch.float32]
            assert [part.shape for part in batch[4:]] == [(rows, length, 0)] * 5


def test_a_row_is_the_note_before_then_the_window_then_the_end_then_nothing() -> None:
    of = corpus()
    begun = ended = 0
    for batch, row, (clip, first, length) in windows_of(training(of=of)):
        notes, song = batch.notes[row].numpy(), of.notes(clip)
        assert notes[:1].tolist() == (song[first - 1 : first] if first else SILENCE).tolist()
        assert np.array_equal(notes[1 : length + 1], song[first : first + length])
        rest = notes[length + 1 :]
        if first + length == len(song) and length < CONTEXT:
            assert rest[0, COLUMN.shift] < SIZES[COLUMN.shift]
            assert not is_note(rest[0])
            rest = rest[1:]
            ended += 1
        assert (rest == SILENCE).all()
        begun += first == 0
    assert begun
    assert ended


def slow_remaining_s(song: Tokens, first: int, length: int) -> list[float]:
    """From the onset of the note before a window (or the beginning) and of its notes to the end of the piece, in s."""
    onset_ms, onsets, releases = 0, [0], []
    for shift, _, _, duration in song.tolist():
        onset_ms += int(SHIFT_MS[shift])
        onsets.append(onset_ms)
        releases.append(onset_ms + int(DURATION_MS[duration]))
    return [(max(releases) - onset) / 1000 for onset in onsets[first : first + length + 1]]


def test_time_remaining_counts_from_each_onset_to_the_end_of_the_whole_clip() -> None:
    of = corpus()
    for batch, row, (clip, first, length) in windows_of(training(of=of)):
        slow = slow_remaining_s(of.notes(clip), first, length)[: batch.remaining_s.shape[1]]
        np.testing.assert_allclose(batch.remaining_s[row, : len(slow)], slow, rtol=1e-6)


def test_the_shift_to_the_end_is_the_first_that_reaches_it() -> None:
    of = corpus(clips=200)
    checked = 0
    for batch, row, (clip, first, length) in windows_of(training(TrainSettings(drop_remaining=0), of=of)):
        if first + length == len(of.notes(clip)) and length < CONTEXT:
            left_ms = float(batch.remaining_s[row, length]) * 1000
            end = int(batch.notes[row, length + 1, COLUMN.shift])
            if left_ms <= SHIFT_MS[-1]:
                assert SHIFT_MS[end - 1] < left_ms <= SHIFT_MS[end] + 0.01  # float32
                checked += 1
    assert checked > 20


def test_an_end_farther_away_than_the_grid_is_its_last_shift() -> None:
    song = np.array([[0, 40, 16, 94]], dtype=np.uint8)
    batch = training(of=corpus_of([song], 0)).batch(0, 0)
    assert batch.remaining_s.tolist() == [[16.0, 16.0]]
    assert batch.notes[0, 2].tolist() == [144, 88, 32, 95]


def test_emotions_are_one_hot_and_zeros_without_a_label() -> None:
    of = corpus()
    seen = set()
    for batch, row, (clip, _, _) in windows_of(training(of=of)):
        label = int(of.emotion[clip])
        assert batch.emotion[row].tolist() == [float(label == index) for index in range(len(EMOTIONS))]
        seen.add(label)
    assert seen == {-1, *range(len(EMOTIONS))}


def test_plans_are_standardised_measures_of_the_window_after_augmentation() -> None:
    told = TrainSettings(drop_plan=0, drop_plan_entry=0, tempo_percent=30)
    batches = training(told)
    for batch, row, (_, _, length) in windows_of(batches):
        own = plan.measure(batch.notes[row : row + 1, 1 : length + 1].numpy(), [length])
        np.testing.assert_allclose(batch.plan[row], (own[0] - PLANS.mean) / PLANS.sd, rtol=1e-4, atol=1e-4)


# ---- augmentation


def varied(augment: TrainSettings, of: Corpus) -> Iterator[tuple[Tokens, Tokens, float]]:
    """Rows of windows as they were and as they became, and by how much their time became longer."""
    for batch, row, (clip, first, length) in windows_of(training(augment, of)):
        before = slice(0 if first else 1, length + 1)  # what stands for the silence before a piece is not varied
        song = of.notes(clip)
        was = np.concatenate([song[first - 1 : first], song[first : first + length]]) if first else song[:length]
        slow = slow_remaining_s(song, first, length)
        became = batch.notes[row, before].numpy()
        assert first or batch.notes[row, :1].tolist() == SILENCE.tolist()
        yield was.astype(np.int64), became.astype(np.int64), float(batch.remaining_s[row, 0]) / slow[0]


STILL_BUT = partial(STILL.model_copy)


def test_a_window_moves_to_another_key_as_one_and_stays_on_the_keyboard() -> None:
    moves = Counter[int]()
    for was, became, factor in varied(STILL_BUT(update={"key_semitones": 5}), narrow(of=corpus(clips=200))):
        moved = np.unique(became[:, COLUMN.pitch] - was[:, COLUMN.pitch])
        assert len(moved) == 1
        assert became[:, COLUMN.pitch].max() < SIZES[COLUMN.pitch]
        assert np.array_equal(became[:, [0, 2, 3]], was[:, [0, 2, 3]])
        assert factor == pytest.approx(1)
        moves[int(moved[0])] += 1
    assert set(moves) == set(range(-5, 6))


def narrow(of: Corpus) -> Corpus:
    """The corpus with each clip on two octaves; some lie at the ends of the keyboard."""
    clips = []
    for clip in range(len(of.emotion)):
        notes = of.notes(clip).copy()
        notes[:, COLUMN.pitch] = notes[:, COLUMN.pitch] % 24 + clip % 65
        clips.append(notes)
    return corpus_of(clips, of.emotion, of.split)


def test_a_window_at_both_ends_of_the_keyboard_stays_where_it_is() -> None:
    song = random_tokens(np.random.default_rng(0), 20)
    song[:2, COLUMN.pitch] = 0, SIZES[COLUMN.pitch] - 1
    for was, became, _ in varied(STILL_BUT(update={"key_semitones": 12}), corpus_of([song] * 20, 0)):
        assert np.array_equal(was, became)


def test_a_window_becomes_louder_or_softer_as_one() -> None:
    steps = set()
    for was, became, _ in varied(STILL_BUT(update={"velocity_steps": 2}), corpus()):
        fits = [
            step
            for step in range(-2, 3)
            if np.array_equal(became[:, COLUMN.velocity], (was[:, COLUMN.velocity] + step).clip(0, len(VELOCITY) - 1))
        ]
        assert fits
        assert np.array_equal(became[:, [0, 1, 3]], was[:, [0, 1, 3]])
        steps |= set(fits)
    assert steps == set(range(-2, 3))


def test_a_window_is_played_faster_or_slower_as_one_and_its_time_remaining_with_it() -> None:
    percents = set()
    for was, became, factor in varied(STILL_BUT(update={"tempo_percent": 8}), corpus(clips=200)):
        for column, grid in ((COLUMN.shift, SHIFT_MS), (COLUMN.duration, DURATION_MS)):
            wanted = grid[was[:, column]] * factor
            missed = np.abs(grid[became[:, column]] - wanted)
            np.testing.assert_allclose(missed, np.abs(grid - wanted[:, None]).min(axis=1), atol=1e-2)
        assert np.array_equal(became[:, 1:3], was[:, 1:3])
        percents.add(round(factor * 100, 3))
    assert percents <= set(range(92, 109))
    assert len(percents) > 12


def test_however_fast_it_is_played_a_chord_stays_a_chord_and_no_two_become_one() -> None:
    for was, became, _ in varied(STILL_BUT(update={"tempo_percent": 30}), corpus()):
        assert np.array_equal(became[:, COLUMN.shift] == 0, was[:, COLUMN.shift] == 0)


def test_settings_of_zero_leave_the_notes_as_they_are() -> None:
    for was, became, factor in varied(STILL, corpus()):
        assert np.array_equal(was, became)
        assert factor == pytest.approx(1)


# ---- hidden conditions


def share_holds(hidden: int, of: int, share: float) -> bool:
    """Whether a count is within four standard deviations of a share."""
    return abs(hidden - of * share) <= 4 * (of * share * (1 - share)) ** 0.5


def test_conditions_are_hidden_in_the_shares_of_the_settings() -> None:
    settings = TrainSettings()
    rng = np.random.default_rng(0)
    of = corpus_of([random_tokens(rng, 6) for _ in range(3000)], np.arange(3000) % 6)
    batches = training(settings, of, batch_size=50)
    parts = [batches.batch(0, step) for step in range(len(batches.epoch(0)))]
    emotion, plans = (torch.cat([part[index] for part in parts]) for index in (1, 2))
    times = torch.cat([part.remaining_s[:, :6] for part in parts])
    assert len(emotion) == 3000
    assert share_holds(int((emotion.sum(1) == 0).sum()), 3000, settings.drop_emotion)
    wholly = plans.isnan().all(dim=1)
    assert share_holds(int(wholly.sum()), 3000, settings.drop_plan)
    for entry in plans[~wholly].isnan().T:
        assert share_holds(int(entry.sum()), len(entry), settings.drop_plan_entry)
    unknown = times.isnan()
    assert torch.equal(unknown.any(dim=1), unknown.all(dim=1))
    assert share_holds(int(unknown.all(dim=1).sum()), 3000, settings.drop_remaining)


def test_the_harmony_of_a_plan_is_known_or_hidden_as_one_and_every_other_entry_by_itself() -> None:
    settings = STILL_BUT(update={"drop_plan_entry": 0.5})
    rng = np.random.default_rng(0)
    batches = training(settings, corpus_of([random_tokens(rng, 6) for _ in range(400)], 0), batch_size=50)
    hidden = torch.cat([batches.batch(0, step).plan for step in range(len(batches.epoch(0)))]).isnan()
    harmony, others = hidden[:, plan.HARMONY], hidden[:, : plan.HARMONY.start]
    assert torch.equal(harmony.any(dim=1), harmony.all(dim=1))
    assert share_holds(int(harmony[:, 0].sum()), 400, 0.5)
    for one, another in combinations([*others.T, harmony[:, 0]], 2):
        assert share_holds(int((one & another).sum()), 400, 0.25)


def test_what_is_hidden_of_one_window_tells_nothing_of_what_else_is() -> None:
    settings = STILL_BUT(update={"drop_emotion": 0.5, "drop_plan": 0.5, "drop_remaining": 0.5})
    rng = np.random.default_rng(0)
    batches = training(settings, corpus_of([random_tokens(rng, 6) for _ in range(1200)], 0), batch_size=50)
    parts = [batches.batch(0, step) for step in range(len(batches.epoch(0)))]
    hidden = torch.cat(
        [torch.stack([p.emotion.sum(1) == 0, p.plan[:, 0].isnan(), p.remaining_s[:, 0].isnan()]) for p in parts], dim=1
    )
    together = Counter(tuple(row) for row in hidden.T.tolist())
    assert all(share_holds(together[key], 1200, 1 / 8) for key in together)
    assert len(together) == 8


# ---- the table of plans


def test_the_table_of_plans_is_that_of_the_beginnings_of_the_training_clips() -> None:
    of = corpus(clips=200)
    measured, labels = [], []
    for clip in of.clips("train").tolist():
        part = of.notes(clip)[:CONTEXT]
        measured.append(plan.measure(part[None], [len(part)])[0])
        labels.append(of.emotion[clip])
    slow = PlanTable.of(np.array(measured), np.array(labels), 3)
    table = plan_table(of, CONTEXT, 3)
    np.testing.assert_allclose(table.mean, slow.mean, rtol=1e-5)
    np.testing.assert_allclose(table.sd, slow.sd, rtol=1e-5)
    for name in EMOTIONS:
        np.testing.assert_allclose(table.by_emotion[name], slow.by_emotion[name], atol=2e-3)


def test_without_training_clips_there_is_no_table_and_a_person_is_told_what_to_do() -> None:
    of = corpus_of([random_tokens(np.random.default_rng(0), 9)], 0, split=1)
    with pytest.raises(EmogenError, match="no training clips") as caught:
        plan_table(of, CONTEXT, 0)
    assert "emogen prepare" in caught.value.hint


# ---- what charts and earlier matches say


def charted(augment: TrainSettings | None, **hidden: float) -> Batches:
    """Four clips of a melody in crotchets at 120 beats per minute, which returns."""
    melody = np.array([40, 44, 47, 52, 40, 45, 49, 52] * 8)
    shift = int(np.abs(SHIFT_MS - 500).argmin())
    clip = np.stack([np.full(64, shift), melody, np.full(64, 16), np.full(64, 60)], axis=1).astype(np.uint8)
    by = augment and augment.model_copy(update=hidden)
    of = corpus_of([clip] * 4, [0, 1, 2, 3], charts=[Chart.of(decode(clip))] * 4)
    return Batches(of, "train", 2, 80, PLANS, by, charted=True)


NEVER = dict.fromkeys(("drop_chart", "drop_beat", "drop_chords", "drop_beat_at_note", "drop_recall"), 0.0)


def test_what_followed_the_last_time_is_told() -> None:
    batch = charted(None).batch(0, 0)
    notes, followed = batch.notes[0].numpy(), batch.followed[0].numpy()
    assert followed[0].tolist() == [*NO_NOTE, 0]
    assert followed[5, 4] == 1  # the first key again: a match of one
    assert followed[5, 1] == notes[2, COLUMN.pitch]
    assert (followed[10:64, :4] == notes[11:65]).all()  # from the second time on it is right


def test_matches_move_with_the_key_and_the_tempo() -> None:
    still, moved = charted(None).batch(0, 0), charted(TrainSettings(seed=3), **NEVER).batch(0, 0)
    assert not torch.equal(still.notes, moved.notes)
    for row in range(2):
        assert torch.equal(moved.followed[row, 10:64, 1:4], moved.notes[row, 11:65, 1:4])
        semitones = int(moved.notes[row, 1, 1]) - int(still.notes[0, 1, 1])
        roots = still.references[0, :, 3].int()
        known = roots < relative.NO_ROOT
        assert known.any()
        assert torch.equal(moved.references[row, :, 3].int()[known], (roots[known] + semitones) % 12)


def test_the_next_note_lands_on_the_bin_of_its_shift() -> None:
    batch = charted(None).batch(0, 0)
    real = slice(1, 63)  # after the silence; the end is no note
    target = batch.notes[0, 1:, COLUMN.shift].long()[real]
    bins = batch.bins[0][real].gather(1, target[:, None])[:, 0].int()
    assert ((bins <= 2) | (bins >= position.PARTS - 2) | ((bins - position.PARTS // 2).abs() <= 2)).all()
    assert torch.equal(batch.landing[0, :-1], batch.place[0, 1:])


@pytest.mark.parametrize(
    ("hidden", "beat", "chords", "recall"),
    [
        ({}, True, True, True),
        ({"drop_chart": 1.0}, False, False, True),
        ({"drop_beat": 1.0}, False, True, True),
        ({"drop_chords": 1.0}, True, False, True),
        ({"drop_beat_at_note": 1.0}, False, True, True),
        ({"drop_recall": 1.0}, True, True, False),
    ],
    ids=str,
)
def test_each_can_be_hidden_alone(hidden: dict[str, float], beat: bool, chords: bool, recall: bool) -> None:
    batch = charted(STILL, **NEVER | hidden).batch(0, 0)
    assert bool(batch.place[..., : position.BEAT].any()) == beat
    assert bool(batch.landing[:, 1:, : position.BEAT].any()) == beat
    assert bool((batch.bins < position.UNKNOWN).any()) == beat
    assert bool(batch.place[..., position.BEAT :].any()) == chords
    assert bool(batch.landing[:, 1:, position.BEAT :].any()) == chords
    assert bool((batch.references[:, 1:, 3] < relative.NO_ROOT).any()) == chords
    assert bool(batch.followed[..., 4].any()) == recall


def test_the_beat_is_hidden_at_some_notes_and_where_they_lead() -> None:
    batch = charted(STILL, **NEVER | {"drop_beat_at_note": 0.3}).batch(0, 0)
    hidden = ~batch.place[..., 0].bool()
    assert 0.1 < hidden.float().mean() < 0.5
    assert torch.equal((batch.bins == position.UNKNOWN).all(-1), hidden)
    assert torch.equal(~batch.landing[..., 0].bool(), hidden)  # that of the same step
