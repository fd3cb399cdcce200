from __future__ import annotations

import numpy as np
import pytest

from emogen.composing.drafts import Drafts
from emogen.composing.following import Following
from emogen.composing.form import Form, compose
from emogen.composing.generate import generate
from emogen.composing.rules import (
    ends_soon_after_its_last_note,
    is_released_with_its_chord,
    plays_the_chord,
    returns_in_pitch,
    returns_in_rhythm,
)  # fmt: skip
from emogen.composing.wish import Wish
from emogen.data.batches import Batches
from emogen.emotion import EMOTIONS
from emogen.music import position, relative
from emogen.music.chart import Chart
from emogen.music.harmony import QUALITIES
from emogen.music.plan import ENTRIES, PlanTable
from emogen.music.tokens import COLUMN, DURATION_MS, SHIFT_MS, decode, encode
from emogen.settings import SampleSettings
from tests import tiny
from tests.drafting import drawn
from tests.music import PLAN_MEAN, PLAN_SD, corpus_of, is_same
from tests.test_form import BARS

CHARTED = tiny.SETTINGS.model_copy(update={"chart": True})


def plans() -> PlanTable:
    """A table in which every clip has the same eight bars."""
    table = tiny.plans()
    return table.model_copy(update={"progressions": dict.fromkeys(EMOTIONS, 20 * (BARS,))})


def wishes(*seeds: int, seconds: float = 8.0) -> list[Wish]:
    return [Wish.of("sad", seconds, seed=seed) for seed in seeds]


def test_a_charted_network_composes_pieces_of_the_exact_length() -> None:
    network = tiny.in_numpy(tiny.composer(CHARTED))
    pieces = generate(network, plans(), wishes(1, 2, 3), SampleSettings())
    assert [piece.end_ms for piece in pieces] == [8000] * 3
    assert not is_same(pieces[0], pieces[1])


@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_a_piece_is_the_same_beside_others(guidance: float) -> None:
    network, sample = tiny.in_numpy(tiny.composer(CHARTED)), SampleSettings(guidance=guidance)
    together = generate(network, plans(), [*wishes(5), *wishes(1, 2, seconds=5), *wishes(6)], sample)
    (alone,) = generate(network, plans(), wishes(6), sample)
    assert is_same(together[3], alone)


def test_numpy_and_torch_compose_the_same_charted_piece() -> None:
    model = tiny.composer(CHARTED)
    one, other = (generate(network, plans(), wishes(4), SampleSettings()) for network in (model, tiny.in_numpy(model)))
    assert is_same(one[0], other[0])


def test_what_is_told_while_composing_is_what_was_told_in_training() -> None:
    """The same clip, window by window of a batch, and note by note of a draft that follows its chart."""
    network = tiny.in_numpy(tiny.composer(CHARTED))
    (piece,) = generate(network, plans(), wishes(9, seconds=10), SampleSettings())
    clip = encode(piece)
    table = PlanTable(entries=ENTRIES, mean=PLAN_MEAN, sd=PLAN_SD, by_emotion={})
    chart = Chart.of(decode(clip))
    corpus = corpus_of([clip], [0], 1, charts=[chart])
    batch = Batches(corpus, "valid", 1, 512, table, charted=True).batch(0, 0)
    assert chart.clarity >= position.LEAST_CLARITY  # or nothing would be compared
    drafts = Drafts(wishes(9, seconds=60), plans(), charted=True)
    drafts.following = following = Following([Form(chart, np.zeros(len(chart), dtype=np.int64))], 16)
    following.add(drafts.notes, 1, drafts.onset_ms)
    for number, note in enumerate(clip):
        shift_ms = SHIFT_MS[note[COLUMN.shift]]
        assert np.allclose(following.place[0, number], batch.place[0, number], atol=1e-5)
        assert following.followed[0, number].tolist() == batch.followed[0, number].tolist()
        assert following.bins(drafts.onset_ms)[0].tolist() == batch.bins[0, number].tolist()
        following.land(drafts.onset_ms + shift_ms)
        assert np.allclose(following.landing[0], batch.landing[0, number], atol=1e-5)
        if number:  # before the first note nothing is known either way
            references = following.references(note[None, COLUMN.shift], drafts.pitch)
            assert references[0].tolist() == batch.references[0, number].tolist()
        drafts.add(note[None], np.array([shift_ms]))


def following_at(landing_ms: int, form: Form, chords: str | None = None) -> Drafts:
    drafts = Drafts([Wish.of("sad", 60, chords=chords)], plans(), charted=True)
    drafts.following = Following([form], 16)
    drafts.following.add(drafts.notes, 1, drafts.onset_ms)
    drafts.following.land(np.array([landing_ms]))
    return drafts


def test_the_root_is_pulled_in_the_bass_and_chord_tones_where_they_were_asked_for() -> None:
    form = compose(38.4, 0, False, BARS, np.random.default_rng(0))
    beat = int(np.flatnonzero(form.chart.root[:16] == 9)[0])  # A minor: A C E
    key = {name: pitch - 21 for name, pitch in {"A2": 45, "C3": 48, "B2": 47, "A3": 57, "A5": 81, "B5": 83}.items()}
    at_ms = int(form.chart.beats_ms[beat]) + 5
    nats = plays_the_chord(following_at(at_ms, form), drawn(5))[0]
    assert nats[key["A2"]] == pytest.approx(1)
    assert np.flatnonzero(nats).tolist() == [pitch - 21 for pitch in (21, 33, 45)]
    nats = plays_the_chord(following_at(at_ms, form, "Am F"), drawn(5))[0]
    assert nats[key["A2"]] == pytest.approx(2.5)
    assert nats[key["C3"]] == nats[key["A3"]] == pytest.approx(0.5)
    assert nats[key["B2"]] == pytest.approx(-0.5)
    assert nats[key["A5"]] == nats[key["B5"]] == 0


@pytest.mark.parametrize(("chords", "longest_ms"), [(None, 16_000), ("Am F", 1260)])
def test_where_chords_were_asked_for_a_note_is_released_before_a_chord_that_lacks_it(
    chords: str | None, longest_ms: int
) -> None:
    form = compose(38.4, 0, False, BARS, np.random.default_rng(0))
    beat = int(np.flatnonzero(np.diff(form.chart.root))[0]) + 1  # from here on another chord sounds
    before, after = (
        {(int(form.chart.root[at]) + step) % 12 for step in tuple(QUALITIES.values())[form.chart.quality[at]]}
        for at in (beat - 1, beat)
    )
    drafts = following_at(int(form.chart.beats_ms[beat]) - 1200, form, chords)
    drafts.onset_ms[:] = form.chart.beats_ms[beat] - 1200 - SHIFT_MS[5]
    left = is_released_with_its_chord(drafts, drawn(5, pitch=39 + (min(before - after) - 0) % 12))[0]
    assert DURATION_MS[np.isfinite(np.broadcast_to(left, DURATION_MS.shape))].max() == max(
        DURATION_MS[longest_ms >= DURATION_MS]
    )
    (shared, *_) = sorted(before & after) or [None]
    if shared is not None and chords:  # a tone of both chords sounds on
        assert np.isfinite(is_released_with_its_chord(drafts, drawn(5, pitch=39 + shared))[0][DURATION_MS < 2000]).all()


@pytest.mark.parametrize(
    ("seconds", "bar_ms", "longest_ms"), [(20.0, 4000, 2500), (60.0, 4000, 4000), (60.0, 1000, 2500)]
)
def test_the_last_sound_is_held_for_a_bar_at_most(seconds: float, bar_ms: int, longest_ms: int) -> None:
    bars = BARS.model_copy(update={"tempo_bpm": 240_000 / bar_ms})
    drafts = Drafts([Wish.of("sad", seconds)], plans(), charted=True)
    drafts.following = Following([compose(seconds, 0, False, bars, np.random.default_rng(0))], 16)
    for left_ms, ends in ((longest_ms, True), (longest_ms + 10, False)):
        drafts.onset_ms[:] = seconds * 1000 - left_ms
        assert np.isfinite(ends_soon_after_its_last_note(drafts, drawn(0))[0, -1]) == ends


def test_where_no_chord_is_nothing_is_pulled() -> None:
    drafts = following_at(100, Form(Chart.none(), np.zeros(0, dtype=np.int64)))
    assert not plays_the_chord(drafts, drawn(5)).any()
    drafts.following = None
    for rule in (plays_the_chord, returns_in_rhythm, returns_in_pitch):
        assert not rule(drafts, drawn(5)).any()


def test_a_theme_is_pulled_towards_when_its_section_returns() -> None:
    drafts = following_at(0, compose(38.4, 0, False, BARS, np.random.default_rng(0)))  # 16 bars of 2.4 s: AABA
    following = drafts.following
    assert following
    onsets_ms, keys = [0, 300, 1200], [40, 44, 47]
    for onset_ms, key in zip(onsets_ms, keys, strict=True):
        note = np.array([[np.abs(SHIFT_MS - (onset_ms - drafts.onset_ms[0])).argmin(), key, 16, 40]])
        drafts.add(note, np.array([onset_ms - drafts.onset_ms[0]]))
    drafts.add(np.array([[0, 50, 16, 40]]), np.array([9600 - 1200]))  # the second A begins: 4 bars later
    pulled = returns_in_rhythm(drafts, drawn(0))[0]
    landing = 9600 + SHIFT_MS
    near = np.min([np.abs(landing - (9600 + onset_ms)) for onset_ms in onsets_ms], axis=0)
    assert set(pulled[1:][near[1:] < 30].tolist()) == {2.25}
    assert not pulled[(near > 60) & (landing < 9600 + 2000)].any()
    assert pulled[0] == 0
    following.land(np.array([9600 + 1200]))
    nats = returns_in_pitch(drafts, drawn(5))[0]
    assert np.flatnonzero(nats).tolist() == [47]
    assert nats[47] == 3


def test_the_root_and_references_are_unknown_before_the_first_note() -> None:
    drafts = following_at(0, Form(Chart.none(), np.zeros(0, dtype=np.int64)))
    assert drafts.following
    told = drafts.following.references(np.array([3]), drafts.pitch)
    assert told.tolist() == [[relative.KEYS, relative.KEYS, relative.KEYS, relative.NO_ROOT]]
