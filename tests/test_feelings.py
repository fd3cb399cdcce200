"""Feelings that change, markers, and words for moods."""

from __future__ import annotations

import numpy as np
import pytest

from emogen import moods
from emogen.composing import feelings
from emogen.composing.feelings import LEAST_S, Passage, Step, fitted, is_path, parse_path, steps, themes, time_s
from emogen.composing.generate import generate
from emogen.composing.legs import MOST_BEND, form_for
from emogen.composing.rules import MARKER_MS
from emogen.composing.steering import Source
from emogen.composing.wish import Wish
from emogen.emotion import CORNERS, EMOTIONS, QUADRANT_OF, mixture_at, parse_mixture
from emogen.errors import UsageError
from emogen.music.chart import Chart
from emogen.music.notes import Piece
from emogen.music.plan import ENTRIES
from emogen.settings import SampleSettings
from tests import tiny
from tests.test_following import plans
from tests.test_form import BARS

SAD, CALM, HAPPY = ({name: 1.0} for name in ("sad", "calm", "happy"))


# ---- what people write


@pytest.mark.parametrize(
    ("text", "seconds"), [("42.5", 42.5), ("0:42.5", 42.5), ("1:30", 90), ("10:05", 605), ("12s", 12), (" 7 ", 7)]
)
def test_times_are_seconds_or_minutes(text: str, seconds: float) -> None:
    assert time_s(text) == seconds


@pytest.mark.parametrize("text", ["", "1:75", "5:", ":5", "x", "-3", "1:2:3", "nan", "1e3", "99999"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a marker"):
        time_s(text, "marker")


@pytest.mark.parametrize(
    "text",
    [
        "sad 0:00, calm 0:30",
        "sad@0,calm@30",
        "sad, calm 30",
        "sad@0:00, calm@0:30s",
        "sad 0, calm b11",
        "sadness@b1,calm@30",
    ],
)
def test_passages_are_written_in_many_ways(text: str) -> None:
    assert is_path(text)
    assert parse_path(text, bar_s=3.0) == ((Passage(0.0, SAD), Passage(30.0, CALM)), False)


def test_mixtures_in_passages_are_written_with_a_plus() -> None:
    passages, _ = parse_path("happy:0.7+calm:0.3@0, at ease@20")
    assert passages[0].emotion == pytest.approx({"happy": 0.7, "calm": 0.3})
    assert passages[1] == Passage(20.0, parse_mixture("at ease"))


@pytest.mark.parametrize("text", ["happy", "happy:0.7,calm:0.3", "q1:1,sad:1", "at ease", "laid-back", "happy,calm"])
def test_one_feeling_is_no_path(text: str) -> None:
    assert not is_path(text)


def test_an_even_path_has_its_feelings_at_even_distances() -> None:
    passages, even = parse_path("sad > calm > happy")
    assert even
    assert fitted(passages, 60, even) == (Passage(0, SAD), Passage(30, CALM), Passage(60, HAPPY))


@pytest.mark.parametrize(
    ("text", "seconds", "problem"),
    [
        ("sad 5, calm 30", 60, "the first passage begins at 5 s"),
        ("sad 0, calm 30, happy 30", 60, "the passage at 30 s is less than 4 s before the next, at 30 s"),
        ("sad 0, calm 30, happy 20", 60, "the passage at 30 s is less than 4 s before the next, at 20 s"),
        ("sad 0, calm 58", 60, "the passage at 58 s is less than 4 s before the end"),
        ("sad 0, calm 70", 60, "less than 4 s before the end"),
        ("sad 0, calm", 60, "when does 'calm' begin"),
        ("sad 0, calm@-5", 60, "'-5' is not a time"),
        ("sad 0, clam 30", 60, "unknown emotion 'clam'"),
        ("sad 0, calm b9", 60, "when bar 9 begins depends on the tempo"),
        ("sad > calm@30", 60, "is an even path, and has times too"),
        ("sad > calm > happy", 6, "3 feelings have 3.0 s each"),
        ("sad >", 60, "unknown emotion ''"),
    ],
)
def test_paths_that_cannot_be_are_refused(text: str, seconds: float, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        Wish.of(text, seconds)
    assert problem in str(caught.value)
    assert caught.value.hint


def test_bars_are_those_of_the_tempo() -> None:
    assert [one.at_s for one in Wish.of("sad b1, calm b9", 60, tempo=120).passages] == [0, 16]
    assert [one.at_s for one in Wish.of("sad b1, calm b9", 60, tempo=90, meter="3/4").passages] == [0, 16]


def test_pairs_say_the_same_as_words() -> None:
    assert Wish.of([(0, "sad"), (30, {"calm": 1})], 60) == Wish.of("sad 0:00, calm 0:30", 60)
    for wrong in ([], [("sad", 0)], [1, 2], 7):
        with pytest.raises(UsageError):
            Wish.of(wrong, 60)  # type: ignore[arg-type]


def test_the_emotion_of_the_whole_is_that_of_its_passages_by_their_lengths() -> None:
    assert Wish.of("sad 0, calm 15", 60).emotion == pytest.approx({"sad": 0.25, "calm": 0.75})
    assert Wish.of("sad > calm", 60).emotion == pytest.approx({"sad": 0.5, "calm": 0.5})


# ---- how one goes over into the next


@pytest.mark.parametrize("change", ["over", "cut", "even"])
def test_steps_follow_each_other_to_the_end_and_their_shares_are_a_whole(change: feelings.Change) -> None:
    passages = fitted([Passage(0, SAD), Passage(20, CALM), Passage(50, HAPPY)], 90, change == "even")
    found = steps(passages, 90, change)
    assert found[-1].until_s == 90
    assert (np.diff([0, *(step.until_s for step in found)]) > 0).all()
    assert all(sum(step.shares.values()) == pytest.approx(1) for step in found)
    assert max(found[0].shares, key=lambda one: found[0].shares[one]) == 0
    assert 2 in found[-1].shares


def test_a_cut_changes_at_once_and_else_four_seconds_are_between() -> None:
    passages = (Passage(0, SAD), Passage(30, CALM))
    assert steps(passages, 60, "cut") == [Step(30, {0: 1.0}), Step(60, {1: 1.0})]
    over = steps(passages, 60, "over")
    assert [step.until_s for step in over] == [28, 30, 32, 60]
    assert over[1].shares == {0: 0.75, 1: 0.25}


def test_an_even_path_goes_in_steps_of_some_eight_seconds() -> None:
    found = steps((Passage(0, SAD), Passage(60, CALM)), 60, "even")
    assert [step.until_s for step in found] == pytest.approx(np.arange(1, 9) * 7.5)
    assert [step.shares[1] for step in found] == pytest.approx((np.arange(8) + 0.5) / 8)


def test_a_feeling_that_returns_is_the_same_theme() -> None:
    assert themes([Passage(0, SAD), Passage(9, CALM), Passage(20, dict(SAD))]) == [0, 1, 0]


# ---- the chart


def chart_of(wish: Wish, tempi: tuple[float, ...] = (100, 100, 100), seed: int = 0) -> Chart:
    """The chart for a wish whose themes have plans in C major and the given tempi."""
    plan = np.zeros(len(ENTRIES), dtype=np.float32)
    sources = {
        theme: Source(plan, BARS.model_copy(update={"tempo_bpm": tempi[place]}))
        for place, theme in enumerate(dict.fromkeys(themes(wish.path)))
    }
    return form_for(wish, sources, tiny.plans(), np.random.default_rng(seed)).chart


def downbeats_s(chart: Chart) -> list[float]:
    return (chart.beats_ms[chart.place == 0] / 1000).tolist()


def test_each_passage_begins_a_bar_at_its_own_tempo_with_sections_of_its_own() -> None:
    chart = chart_of(Wish.of("sad 0, calm 20.5, sad 41", 61.5), (90, 120))
    assert {20.5, 41.0, 61.5} <= set(downbeats_s(chart))
    beats_s = chart.beats_ms / 1000
    for start, end, bpm in ((0, 20.5, 90), (20.5, 41, 120), (41, 61.5, 90)):
        inside = np.diff(beats_s[(beats_s >= start) & (beats_s <= end)])
        assert 60 / inside.mean() == pytest.approx(bpm, rel=0.07)
    first, second, third = (set(chart.section[(beats_s >= a) & (beats_s < a + 20)].tolist()) for a in (0, 20.5, 41))
    assert first == third
    assert not first & second


def test_a_theme_that_returns_after_another_is_heard_again() -> None:
    wish = Wish.of("sad 0, calm 20, sad 40", 60)
    plan = np.zeros(len(ENTRIES), dtype=np.float32)
    form = form_for(wish, {0: Source(plan, BARS), 1: Source(plan, BARS)}, tiny.plans(), np.random.default_rng(0))
    at = int(form.chart.index_at(40_000))
    assert form.earlier[at] > 0
    assert form.chart.index_at(20_000) > at - form.earlier[at]


def test_the_tempo_of_an_even_path_goes_from_one_to_the_other() -> None:
    chart = chart_of(Wish.of("tense > calm", 120), (140, 70))
    bpm = 60_000 / np.diff(chart.beats_ms)
    assert bpm[:4].mean() == pytest.approx(140, rel=0.05)
    assert bpm[-4:].mean() == pytest.approx(70, rel=0.05)
    assert np.abs(np.diff(np.log(bpm))).max() < 0.06  # no jump


def test_a_mode_that_changes_goes_to_the_relative_key() -> None:
    mean = np.zeros(len(ENTRIES), dtype=np.float32)
    table = tiny.plans()
    keys = {}
    for theme, scale in enumerate(((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10))):
        raw = np.array(table.mean) + 0 * mean
        raw[ENTRIES.index("mode")] = (0.2, -0.2)[theme]
        raw[ENTRIES.index("C") :] = [0.1 + 0.9 * (note in scale) + (note in (0, 7)) for note in range(12)]
        keys[theme] = table.standardise(raw.astype(np.float32))
    assert [table.key_of(plan)[1] for plan in keys.values()] == [False, True]
    sources = {theme: Source(plan, BARS) for theme, plan in keys.items()}
    chart = form_for(Wish.of("happy 0, sad 30", 60), sources, table, np.random.default_rng(0)).chart
    tonic = table.key_of(keys[0])[0]
    assert chart.root[-2] == (tonic + 9) % 12  # a piece in C ends in A minor
    assert chart.names()[-2].endswith("m")


@pytest.mark.parametrize("markers", [[13.3], [42.5], [7.1, 30.9], [11, 12.5, 50.2], [20, 40]])
@pytest.mark.parametrize("meter", ["4/4", "3/4"])
def test_a_bar_begins_at_each_marker_and_the_tempo_bends_by_four_per_cent_at_most(
    markers: list[float], meter: str
) -> None:
    chart = chart_of(Wish.of("sad", 60, markers=markers, meter=meter))
    assert set(markers) <= set(downbeats_s(chart))
    bpm = 60_000 / np.diff(chart.beats_ms)
    legs = np.split(bpm, np.searchsorted(chart.beats_ms / 1000, markers))
    means = np.array([leg.mean() for leg in legs])
    assert means.max() / means.min() <= (1 + MOST_BEND) / (1 - MOST_BEND)
    assert chart.beats_ms[-1] == 60_000


@pytest.mark.parametrize(
    ("markers", "tempo", "problem"),
    [
        ([5.2, 6.0], None, "the times 5.2 s and 6 s: there must be 1 s or more between markers"),
        ([59.5], None, "the marker at 59.5 s"),
        ([70], None, "the marker at 70 s"),
        ([0.2], None, "the marker at 0.2 s"),
        ([20, 21.9], 40, "no steady tempo has strong beats at 20 s, 21.9 s"),
    ],
)
def test_markers_that_cannot_be_met_are_refused(markers: list[float], tempo: float | None, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        chart_of(Wish.of("sad", 60, markers=markers, tempo=tempo))
    assert problem in str(caught.value)
    assert caught.value.hint


def composed(wishes: list[Wish]) -> list[Piece]:
    network = tiny.in_numpy(tiny.composer(tiny.SETTINGS.model_copy(update={"chart": True})))
    return list(generate(network, plans(), wishes, SampleSettings()))


def test_a_note_is_struck_at_each_marker_within_20_ms_and_none_just_before() -> None:
    markers = [3.3, 8.37, 13.011]
    velocity: dict[bool, list[int]] = {True: [], False: []}
    for piece in composed([Wish.of("sad", 20, seed=seed, markers=markers) for seed in range(6)]):
        for marker in markers:
            before_ms = marker * 1000 - piece.onset_ms
            assert np.abs(before_ms).min() <= MARKER_MS
            assert not ((before_ms > MARKER_MS) & (before_ms < 100)).any()
        at = np.min([np.abs(piece.onset_ms - marker * 1000) for marker in markers], axis=0) <= MARKER_MS
        for is_at in (True, False):
            velocity[is_at] += piece.velocity[at == is_at].tolist()
    assert np.mean(velocity[True]) > np.mean(velocity[False]) + 4


def test_a_piece_with_passages_is_the_same_alone_and_among_others() -> None:
    wishes = [Wish.of("sad 0, happy 8", 16, seed=3), Wish.of("calm", 9, seed=1), Wish.of("tense > calm", 20, seed=2)]
    together = composed(wishes)
    for wish, piece in zip(wishes, together, strict=True):
        (alone,) = composed([wish])
        assert np.array_equal(alone.onset_ms, piece.onset_ms)
        assert np.array_equal(alone.pitch, piece.pitch)
        assert piece.end_ms == wish.seconds * 1000


# ---- words


def test_about_a_hundred_words_have_a_place_on_the_circle() -> None:
    assert len(moods.WORDS) >= 100
    for word in moods.WORDS:
        valence, arousal = moods.place(word) or (0, 0)
        assert np.hypot(valence, arousal) == pytest.approx(1)
        assert sum(parse_mixture(word).values()) == pytest.approx(1)
    assert moods.place("neutral") == (0, 0)
    assert moods.place("table") is None


@pytest.mark.parametrize(
    ("word", "quadrants"),
    [
        ("nostalgic", {3, 4}), ("melancholic", {3}), ("anxious", {2}), ("energetic", {1}), ("triumphant", {1}),
        ("gloomy", {3}), ("dreamy", {3, 4}), ("neutral", {1, 2, 3, 4}), ("furious", {2}), ("serene", {1, 4}),
    ],
)  # fmt: skip
def test_words_are_read_as_their_quadrants(word: str, quadrants: set[int]) -> None:
    assert {QUADRANT_OF[name] for name in parse_mixture(word)} == quadrants


def test_a_place_at_an_emotion_is_that_emotion_and_between_two_both_share() -> None:
    for degrees, name in CORNERS:
        angle = np.radians(degrees)
        assert mixture_at(0.9 * np.cos(angle), 0.9 * np.sin(angle)) == pytest.approx({name: 1.0})
    angle = np.radians((207.5 + 316.2) / 2)
    assert mixture_at(np.cos(angle), np.sin(angle)) == pytest.approx({"sad": 0.5, "calm": 0.5})
    assert set(mixture_at(0, 0)) == set(EMOTIONS)
    for wrong in ((2, 0), (0, -1.1), (float("nan"), 0)):
        with pytest.raises(UsageError, match="out of range"):
            mixture_at(*wrong)


def test_a_word_nearly_right_is_guessed() -> None:
    with pytest.raises(UsageError) as caught:
        parse_mixture("nostalgik")
    assert "did you mean 'nostalgic'?" in caught.value.hint


def test_passages_have_a_least_length() -> None:
    assert fitted([Passage(0, SAD), Passage(LEAST_S, CALM)], 2 * LEAST_S, even=False)
