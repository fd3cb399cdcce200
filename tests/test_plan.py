from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from emogen.emotion import EMOTIONS
from emogen.music.measures import MAJOR, MINOR, key_fit, unit
from emogen.music.plan import ENTRIES, HARMONY, LEVEL, PLANS_KEPT, Plans, PlanTable, measure
from emogen.music.tokens import COLUMN, DURATION_MS, SHIFT_MS, SIZES, VELOCITY, Tokens
from tests import tiny
from tests.music import PLAN_MEAN, PLAN_SD, random_tokens


def entry(plans: Plans, name: str) -> Plans:
    return plans[..., ENTRIES.index(name)]


def slow_plan(notes: Tokens) -> list[float]:
    """The plan of one window, worked out note by note."""
    number = len(notes)
    span_s = sum(int(SHIFT_MS[shift]) for shift in notes[1:, COLUMN.shift]) / 1000
    pitches = [21 + int(pitch) for pitch in notes[:, COLUMN.pitch]]
    seconds = [int(DURATION_MS[duration]) / 1000 for duration in notes[:, COLUMN.duration]]
    mean_pitch = sum(pitches) / number
    weight: Counter[int] = Counter()
    for pitch, second in zip(pitches, seconds, strict=True):
        weight[pitch % 12] += second  # type: ignore[assignment]  # a Counter of seconds
    classes = [weight[pitch_class] for pitch_class in range(12)]
    major, minor = (
        max(np.corrcoef(classes, np.roll(mode, tonic))[0, 1] for tonic in range(12)) for mode in (MAJOR, MINOR)
    )
    onsets = np.cumsum([0, *(int(SHIFT_MS[shift]) / 1000 for shift in notes[1:, COLUMN.shift])])
    last_s = max(onset + second for onset, second in zip(onsets, seconds, strict=True))
    loudness = [int(VELOCITY[velocity]) for velocity in notes[:, COLUMN.velocity]]
    centred = [weight - sum(classes) / 12 for weight in classes]
    return [
        math.log((number - 1) / span_s),
        sum(loudness) / number,
        mean_pitch,
        math.sqrt(sum((pitch - mean_pitch) ** 2 for pitch in pitches) / number),
        sum(math.log(second) for second in seconds) / number,
        major - minor,
        math.log(sum(seconds) / last_s),
        sum(shift == 0 for shift in notes[1:, COLUMN.shift]) / number,
        math.sqrt(sum((velocity - sum(loudness) / number) ** 2 for velocity in loudness) / number),
        *(weight / math.hypot(*centred) for weight in centred),
    ]


def windows(seed: int, lengths: list[int]) -> Tokens:
    """Random windows (B, T, 4), padded with what stands for no note."""
    rng = np.random.default_rng(seed)
    notes = np.full((len(lengths), max(lengths) + 3, 4), SIZES, dtype=np.uint8)
    for row, length in enumerate(lengths):
        notes[row, :length] = random_tokens(rng, length)
    return notes


LENGTHS = [25, 80, 17, 300, 16, 44]


def test_plans_are_those_worked_out_window_by_window() -> None:
    notes = windows(0, LENGTHS)
    slow = [slow_plan(notes[row, :length]) for row, length in enumerate(LENGTHS)]
    plans = measure(notes, LENGTHS)
    assert plans.shape == (len(LENGTHS), len(ENTRIES))
    assert plans.dtype == np.float32
    np.testing.assert_allclose(plans, slow, rtol=1e-5, atol=1e-5)


def test_padding_never_matters() -> None:
    notes = windows(0, LENGTHS)
    other = np.random.default_rng(1).integers(0, 256, notes.shape).astype(np.uint8)
    for row, length in enumerate(LENGTHS):
        other[row, :length] = notes[row, :length]
    longer = np.concatenate([notes, notes], axis=1)
    np.testing.assert_array_equal(measure(other, LENGTHS), measure(notes, LENGTHS))
    np.testing.assert_allclose(measure(longer, LENGTHS), measure(notes, LENGTHS), rtol=1e-6)


def test_an_octave_higher_moves_the_pitch_alone() -> None:
    notes = windows(0, [100])[:, :100]
    notes[..., COLUMN.pitch] %= 70
    higher = notes + np.array([0, 12, 0, 0], dtype=np.uint8)
    moved = (measure(higher, [100]) - measure(notes, [100]))[0]
    np.testing.assert_allclose(moved, np.where(np.array(ENTRIES) == "pitch", 12, 0), atol=1e-5)


def test_twice_as_fast_is_ln_2_denser_and_sounds_fuller_and_nothing_else() -> None:
    notes = windows(0, [100])[:, :100]
    notes[..., COLUMN.shift] = np.maximum(notes[..., COLUMN.shift] // 2 * 2, 2)
    faster = notes // np.array([2, 1, 1, 1], dtype=np.uint8)
    moved = (measure(faster, [100]) - measure(notes, [100]))[0]
    assert 0 < moved[ENTRIES.index("polyphony")] < math.log(2)
    moved[ENTRIES.index("polyphony")] = 0
    np.testing.assert_allclose(moved, np.where(np.array(ENTRIES) == "density", math.log(2), 0), atol=1e-5)


def test_the_silence_before_a_window_does_not_matter() -> None:
    notes = windows(0, [100])
    later = notes.copy()
    later[0, 0, COLUMN.shift] = SIZES[COLUMN.shift] - 1
    np.testing.assert_array_equal(measure(later, [100]), measure(notes, [100]))


def test_windows_of_one_note_or_one_chord_count_as_lasting_a_tenth_of_a_second() -> None:
    notes = windows(0, [1, 4])
    notes[1, 1:4, COLUMN.shift] = 0
    plans = measure(notes, [1, 4])
    assert np.isfinite(plans).all()
    np.testing.assert_allclose(entry(plans, "density"), np.log([10, 30]), rtol=1e-6)


def corpus_plans(number: int = 300) -> tuple[Plans, np.ndarray[tuple[int], np.dtype[np.int8]]]:
    """Plans (N, P) like those of real clips, and emotions of which some are none."""
    rng = np.random.default_rng(0)
    plans = rng.normal(PLAN_MEAN, PLAN_SD, (number, len(ENTRIES))).astype(np.float32)
    return plans, rng.integers(-1, len(EMOTIONS), number).astype(np.int8)


def test_standardised_plans_of_the_tables_own_corpus_have_mean_0_and_sd_1() -> None:
    plans, emotion = corpus_plans()
    scaled = PlanTable.of(plans, emotion, 0).standardise(plans)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(0), 1, atol=1e-4)


def test_entries_that_an_older_table_has_keep_its_scale_and_new_ones_have_their_own() -> None:
    plans, emotion = corpus_plans()
    older = PlanTable(entries=ENTRIES[:2], mean=(7.0, 8.0), sd=(2.0, 3.0), by_emotion={})
    table, own = PlanTable.of(plans, emotion, 0, older), PlanTable.of(plans, emotion, 0)
    assert table.entries == ENTRIES
    assert table.mean == (*older.mean, *own.mean[2:])
    assert table.sd == (*older.sd, *own.sd[2:])


def test_an_entry_that_never_varies_is_standardised_to_nothing() -> None:
    plans, emotion = corpus_plans(100_000)
    plans[:, ENTRIES.index("velocity")] = 66.1
    table = PlanTable.of(plans, emotion, 0)
    assert np.abs(entry(table.standardise(plans), "velocity")).max() < 1e-3
    assert np.abs(entry(table.standardise(plans + 1), "velocity")).max() == pytest.approx(1, abs=1e-3)


def test_what_is_not_known_stays_not_known() -> None:
    plans, emotion = corpus_plans()
    table = PlanTable.of(plans, emotion, 0)
    hidden = plans[:2].copy()
    hidden[0, 3] = np.nan
    scaled = table.standardise(hidden)
    assert np.argwhere(np.isnan(scaled)).tolist() == [[0, 3]]


def test_a_table_goes_through_json_unchanged() -> None:
    plans, emotion = corpus_plans()
    table = PlanTable.of(plans, emotion, 0)
    again = PlanTable.model_validate_json(table.model_dump_json())
    assert again == table
    np.testing.assert_array_equal(again.standardise(plans), table.standardise(plans))


def test_the_plans_of_an_emotion_are_those_of_its_clips_each_once() -> None:
    plans, emotion = corpus_plans()
    table = PlanTable.of(plans, emotion, 0)
    scaled = table.standardise(plans).astype(float).round(3)
    assert tuple(table.by_emotion) == EMOTIONS
    for index, name in enumerate(EMOTIONS):
        own = {tuple(plan) for plan in scaled[emotion == index].tolist()}
        assert set(table.by_emotion[name]) == own
        assert len(table.by_emotion[name]) == len(own)


def test_a_table_keeps_so_many_plans_of_an_emotion_and_the_seed_chooses_them() -> None:
    plans, emotion = corpus_plans(2000)
    table, again, other = (PlanTable.of(plans, emotion, seed) for seed in (0, 0, 1))
    assert [len(kept) for kept in table.by_emotion.values()] == [PLANS_KEPT] * len(EMOTIONS)
    assert table == again
    assert set(table.by_emotion["sad"]) != set(other.by_emotion["sad"])


def test_where_no_clip_has_an_emotion_each_gets_plans_of_all() -> None:
    plans, _ = corpus_plans()
    table = PlanTable.of(plans, np.full(len(plans), -1), 0)
    assert [len(kept) for kept in table.by_emotion.values()] == [PLANS_KEPT] * len(EMOTIONS)
    assert len(set(table.by_emotion["happy"]) & set(table.by_emotion["sad"])) < PLANS_KEPT


def test_an_emotion_without_clips_has_no_plans_where_others_have_some() -> None:
    plans, _ = corpus_plans()
    table = PlanTable.of(plans, np.full(len(plans), EMOTIONS.index("calm")), 0)
    assert {name for name, kept in table.by_emotion.items() if kept} == {"calm"}


def test_typical_plans_are_the_half_that_is_nearest_to_its_emotion_and_furthest_from_the_others() -> None:
    rng = np.random.default_rng(0)
    plans = {name: rng.normal(size=(9, len(ENTRIES))).round(3) for name in ("happy", "sad")}
    for name, sign in (("happy", 1), ("sad", -1)):  # told apart by density alone: four of nine clearly, one somewhat
        plans[name][:, : HARMONY.start] = 0
        plans[name][:, 0] = sign * np.array([2, -2, 2, -2, 2, 1, -2, 2, -1])
    table = PlanTable.model_validate(
        {
            "entries": ENTRIES,
            "mean": PLAN_MEAN,
            "sd": PLAN_SD,
            "by_emotion": {n: own.tolist() for n, own in plans.items()},
        }
    )
    typical = table.typical()
    for name, (_, kept) in typical.items():
        own = np.delete(plans[name][[0, 2, 4, 5, 7]], LEVEL, axis=1)
        np.testing.assert_array_equal(np.delete(kept, LEVEL, axis=1), own.astype(np.float32))
    assert typical.keys() == {"happy", "sad"}


def test_typical_plans_are_as_dense_and_as_high_on_average_as_all_of_their_emotion_and_differ_as_they_did() -> None:
    for name, (own, kept) in tiny.plans().typical().items():
        every = np.array(tiny.plans().by_emotion[name], dtype=np.float32)
        rows = every[own]
        np.testing.assert_allclose(kept[:, LEVEL].mean(0), every[:, LEVEL].mean(0), atol=1e-5)
        assert (np.abs(rows[:, LEVEL].mean(0) - every[:, LEVEL].mean(0)) > 1e-3).any()
        np.testing.assert_allclose(np.ptp(kept[:, LEVEL], axis=0), np.ptp(rows[:, LEVEL], axis=0), atol=1e-5)


@pytest.mark.parametrize("number", [1, 2])
def test_few_plans_or_one_emotion_have_typical_ones_too(number: int) -> None:
    plans = {"calm": ((0.5,) * len(ENTRIES),) * number}
    one = PlanTable(entries=ENTRIES, mean=PLAN_MEAN, sd=PLAN_SD, by_emotion=plans)
    assert one.typical()["calm"].plans.tolist() == [[0.5] * len(ENTRIES)]
    assert one.model_copy(update={"by_emotion": {}}).typical() == {}


@pytest.mark.parametrize("minor", [False, True])
@pytest.mark.parametrize("tonic", range(12))
def test_a_plan_moved_to_a_key_has_its_harmony_there_and_all_else_as_before(tonic: int, minor: bool) -> None:
    plans, emotion = corpus_plans()
    table = PlanTable.of(plans, emotion, 0)
    raw = plans[0].copy()
    raw[HARMONY] = unit(np.roll((MAJOR, MINOR)[minor], 7))
    raw[ENTRIES.index("mode")] = -0.1 if minor else 0.1
    moved = table.moved_to(tonic, table.standardise(raw)) * np.array(table.sd) + np.array(table.mean)
    assert key_fit(moved[HARMONY]).argmax() == tonic + 12 * minor
    np.testing.assert_allclose(np.roll(moved[HARMONY], 7 - tonic), raw[HARMONY], atol=1e-4)
    np.testing.assert_allclose(moved[: HARMONY.start], raw[: HARMONY.start], rtol=1e-4, atol=1e-5)
