from __future__ import annotations

import numpy as np
import pytest

from emogen.composing.form import PHRASE_BARS, PLAIN, bars_for, form, heard_before, like
from emogen.composing.form import compose as composed
from emogen.composing.legs import form_for
from emogen.composing.steering import Source
from emogen.composing.wish import Wish
from emogen.errors import UsageError
from emogen.music.chart import Chart
from emogen.music.harmony import NO_CHORD
from emogen.music.lead_sheet import NAMES
from emogen.music.notes import Ints
from emogen.music.plan import ENTRIES, Plans, PlanTable
from emogen.music.songbook import LEAST_BARS, Progression
from tests import tiny

# Eight bars in 4, in steps above the tonic: I vi IV V, ii iii IV V.
STEPS = [(0, ""), (9, "m"), (5, ""), (7, ""), (2, "m"), (4, "m"), (5, "maj7"), (7, "7")]
CODES = [step * len(NAMES) + NAMES.index(quality) for step, quality in STEPS]
BARS = Progression(
    tempo_bpm=100, beats_per_bar=4, clarity=0.6, chords=tuple(np.repeat(CODES, 4).tolist()), letters="AAAABBBB"
)


def compose(
    seconds: float, tonic: int, minor: bool | None, bars: Progression, rng: np.random.Generator, letters: str = ""
) -> Chart:
    return composed(seconds, tonic, minor, bars, rng, letters).chart


def chart_for(wish: Wish, plan: Plans, bars: Progression | None, plans: PlanTable, rng: np.random.Generator) -> Chart:
    return form_for(wish, {0: Source(plan, bars)}, plans, rng).chart


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seconds", [5.0, 7.3, 30.0, 45.0, 180.0, 599.999])
@pytest.mark.parametrize("tempo_bpm", [40.0, 97.3, 200.0])
@pytest.mark.parametrize("beats_per_bar", [3, 4])
def test_whole_bars_fill_the_seconds_to_the_millisecond(seconds: float, tempo_bpm: float, beats_per_bar: int) -> None:
    bars = BARS.model_copy(update={"tempo_bpm": tempo_bpm, "beats_per_bar": beats_per_bar})
    chart = compose(seconds, 0, False, bars, rng())
    assert chart.beats_ms[0] == 0
    assert chart.beats_ms[-1] == round(seconds * 1000)
    assert (len(chart) - 1) % beats_per_bar == 0
    assert np.ptp(np.diff(chart.beats_ms)) <= 1
    assert chart.is_clear


@pytest.mark.parametrize("tempo_bpm", [60.0, 88.0, 100.0, 143.0])
def test_the_tempo_gives_way_by_a_few_per_cent(tempo_bpm: float) -> None:
    for seconds in np.linspace(30, 200, 20).tolist():
        bars = bars_for(seconds, tempo_bpm, 4)
        assert bars * 4 * 60 / seconds == pytest.approx(tempo_bpm, rel=0.07)


def test_two_bars_are_the_least() -> None:
    assert bars_for(5, 20, 4) == 2


def test_a_piece_ends_on_its_tonic_after_a_dominant() -> None:
    for minor, quality in ((False, ""), (True, "m")):
        chart = compose(40, 9, minor, BARS, rng())
        last = slice(len(chart) - 1 - 4, len(chart))
        assert set(chart.root[last].tolist()) == {9}
        assert {NAMES[code] for code in chart.quality[last].tolist()} == {quality}
        before = len(chart) - 1 - 5
        assert (chart.root[before], NAMES[chart.quality[before]]) == ((9 + 7) % 12, "7")


def test_chords_are_the_clips_in_the_wanted_key() -> None:
    chart = compose(120, 2, False, BARS, rng())
    wanted = {((step + 2) % 12, quality) for step, quality in STEPS}
    inside = slice(0, len(chart) - 9)
    found = {(root, NAMES[quality]) for root, quality in zip(chart.root[inside], chart.quality[inside], strict=True)}
    assert found == wanted  # both halves: a second section takes other bars than the first


def test_a_section_that_returns_has_the_same_chords() -> None:
    chart, earlier = composed(180, 0, False, BARS, rng(3))
    returning = np.flatnonzero((earlier > 0) & (np.arange(len(chart)) < len(chart) - 9))
    assert len(returning) > len(chart) / 2
    for beat in returning.tolist():
        source = beat - earlier[beat]
        assert (chart.root[beat], chart.section[beat]) == (chart.root[source], chart.section[source])


def test_nothing_was_heard_before_its_first_time() -> None:
    chart, earlier = composed(60, 0, False, BARS, rng())
    first = {int(section): int(np.flatnonzero(chart.section == section)[0]) for section in np.unique(chart.section)}
    for section, beat in first.items():
        assert not earlier[beat : beat + PHRASE_BARS * 4][chart.section[beat : beat + PHRASE_BARS * 4] == section].any()
    assert not heard_before(Chart.none().section, np.zeros(0, dtype=np.int64)).any()


def test_long_forms_have_more_than_one_section_and_end_as_they_began() -> None:
    for phrases in range(1, 60):
        letters = form(phrases)
        assert len(letters) == phrases
        assert letters[0] == "A"
        if phrases > 2:
            assert len(set(letters)) > 1
    assert form(20)[:4] != form(20)[4:8]


def test_a_wish_decides_key_and_mode() -> None:
    plans = tiny.plans()
    plan = np.zeros(len(ENTRIES), dtype=np.float32)
    chart = chart_for(Wish.of("sad", 30, key="F# minor"), plan, BARS, plans, rng())
    assert (chart.root[-1], NAMES[chart.quality[-1]]) == (6, "m")
    chart = chart_for(Wish.of("sad", 30, key="F#"), plan, BARS, plans, rng())
    assert (chart.root[-1], NAMES[chart.quality[-1]]) == (6, "")


def test_without_a_clip_there_is_a_pulse_but_no_chords_until_the_end() -> None:
    chart = compose(30, 0, False, PLAIN, rng())
    assert chart.root[0] == NO_CHORD
    assert chart.root[-1] == 0
    assert chart.tempo_bpm == pytest.approx(100, rel=0.07)


# ---- what people may ask for


def asked(seconds: float = 38.4, **terms: str | float) -> tuple[Chart, Ints]:
    wish = Wish.of("sad", seconds, **terms)  # type: ignore[arg-type]
    return form_for(wish, {0: Source(np.zeros(len(ENTRIES), dtype=np.float32), BARS)}, tiny.plans(), rng())


@pytest.mark.parametrize("tempo", [44, 72, 100, 180])
@pytest.mark.parametrize("meter", ["3/4", "4/4"])
def test_a_tempo_and_a_meter_that_are_asked_for_are_got(tempo: float, meter: str) -> None:
    chart, _ = asked(60, tempo=tempo, meter=meter)
    assert chart.tempo_bpm == pytest.approx(tempo, rel=0.05)
    assert chart.beats_per_bar == int(meter[0])
    assert chart.beats_ms[-1] == 60_000


def test_chords_that_are_asked_for_go_round_bar_by_bar() -> None:
    chart, _ = asked(chords="Am F C G", tempo=100)
    names, bars = chart.names()[:-1], (len(chart) - 1) // 4
    assert names == [("Am", "F", "C", "G")[bar % 4] for bar in range(bars) for _ in range(4)]
    chart, _ = asked(chords="Am F | C G7 N", tempo=100)
    assert chart.names()[:8] == ["Am", "Am", "F", "F", "C", "C", "G7", "N"]


def test_chords_are_those_of_the_wanted_meter() -> None:
    chart, _ = asked(chords="Am F", meter="3/4", tempo=120)
    assert chart.names()[:6] == ["Am"] * 3 + ["F"] * 3


def test_a_form_that_is_asked_for_is_kept_in_sections_as_even_as_bars_allow() -> None:
    chart, earlier = asked(form="ABAC", tempo=100)  # 16 bars of 2.4 s
    assert chart.letters == "AAAABBBBAAAACCCC"
    assert np.flatnonzero(earlier).tolist() == list(range(32, 48))
    assert set(earlier[32:48].tolist()) == {32}
    chart, earlier = asked(form="AA", tempo=100)
    assert set(earlier[32:64].tolist()) == {32}
    chart, _ = asked(form="ABA", tempo=100)
    assert sorted(map(chart.letters.count, "AB")) == [5, 11]  # 16 bars in three


def test_more_sections_than_bars_are_refused() -> None:
    with pytest.raises(UsageError, match=r"the form ABABABABA has 9 sections, and 5 s at 100 beats") as refused:
        asked(5, form="ABABABABA")
    assert "take fewer" in refused.value.hint


def test_another_pieces_bars_are_followed_at_its_tempo() -> None:
    source = compose(76.8, 3, False, BARS, rng())
    chart = like(source, 40.0)
    assert chart.beats_ms[-1] == 40_000
    assert chart.tempo_bpm == pytest.approx(source.tempo_bpm, rel=0.05)
    assert chart.names()[: 4 * 12] == source.names()[: 4 * 12]
    longer = like(source, 200.0)
    bars = (len(source) - 1) // 4
    assert longer.names()[bars * 4 : bars * 4 + 8] == source.names()[:8]
    with pytest.raises(UsageError, match="fewer than 4 whole bars"):
        like(Chart.none(), 40.0)


def test_a_chart_that_is_given_is_followed_as_it_is() -> None:
    given = compose(30, 0, True, BARS, rng())
    wish = Wish.of("sad", 30, chart=given)
    found, earlier = form_for(wish, {0: Source(np.zeros(len(ENTRIES), dtype=np.float32), BARS)}, tiny.plans(), rng())
    assert found is given
    assert len(earlier) == len(given)


# ---- the songbook


def test_a_progression_is_what_a_chart_has_in_another_key() -> None:
    chart = compose(76.8, 3, False, BARS, rng())
    for semitones in (0, 5):
        found = Progression.of(chart.transposed(semitones), (3 + semitones) % 12)
        assert found
        assert found.bars == (len(chart) - 1) // 4
        assert set(found.chords) <= set(CODES) | {7 * len(NAMES) + NAMES.index("7"), 0}
        assert found.tempo_bpm == pytest.approx(chart.tempo_bpm, abs=0.2)


def test_too_few_whole_bars_are_no_progression() -> None:
    short = compose(5, 0, False, BARS.model_copy(update={"tempo_bpm": 60.0}), rng())
    assert (len(short) - 1) // 4 < LEAST_BARS
    assert Progression.of(short, 0) is None
    assert Progression.of(Chart.none(), 0) is None


def test_bars_begin_again_after_the_last() -> None:
    assert BARS.bars == 8
    assert BARS.bar(9).tolist() == BARS.bar(1).tolist() == [CODES[1]] * 4
