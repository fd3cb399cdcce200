from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from emogen.composing.drafts import Drafts
from emogen.composing.rules import RULES
from emogen.composing.steering import CORRECT_NOTES, GAIN, LACK_SDS, NEAREST, PLAN_S, TRUST_NOTES
from emogen.composing.wish import Wish
from emogen.emotion import EMOTIONS
from emogen.music.measures import key_fit
from emogen.music.plan import ENTRIES, HARMONY, measure
from emogen.music.tokens import COLUMN, DURATION_MS, Tokens, encode
from tests.drafting import PLANS, random_notes, strike, wish
from tests.music import random_piece

OWN = slice(0, HARMONY.start)
"""The entries that each passage has of its own."""


def test_a_plan_is_one_typical_of_the_emotion_and_is_renewed_when_its_time_is_over() -> None:
    drafts = Drafts([wish(200, seed, "calm") for seed in range(20)], PLANS)
    own = PLANS.typical()["calm"].plans
    note, eight_s = np.full((20, 4), 30), np.full(20, 8000)
    plans = []
    for _ in range(16):
        drafts.steer()
        assert (drafts.steering.planned[:, None, OWN] == own[:, OWN]).all(-1).any(-1).all()
        plans.append(drafts.steering.planned.copy())
        drafts.add(note, eight_s)
    changed = [(after != before).any() for before, after in pairwise(plans)]
    assert PLAN_S == 40
    assert np.flatnonzero(changed).tolist() == [4, 9, 14]  # at 40, 80 and 120 s
    assert len(np.unique(plans[0], axis=0)) > 1


def test_a_piece_keeps_its_harmony_through_all_passages() -> None:
    drafts = Drafts([wish(200, seed, "calm") for seed in range(20)], PLANS)
    drafts.steer()
    first = drafts.steering.planned.copy()
    drafts.onset_ms += 40_000
    drafts.steer()
    assert np.array_equal(drafts.steering.planned[:, HARMONY], first[:, HARMONY])
    assert not np.array_equal(drafts.steering.planned[:, OWN], first[:, OWN])


@pytest.mark.parametrize("mode", [-0.2, 0.2])
def test_where_the_mode_is_given_the_harmony_is_of_a_clip_that_has_it(mode: float) -> None:
    drafts = Drafts([wish(30, seed, "calm", mode=mode) for seed in range(200)], PLANS)
    drafts.steer()
    own = PLANS.typical()["calm"].plans
    near = np.abs(own[:, ENTRIES.index("mode")] * PLANS.sd[5] + PLANS.mean[5] - mode).argsort()[:NEAREST]
    drawn = (drafts.steering.planned[:, None, HARMONY] == own[:, HARMONY]).all(-1)
    assert drawn.any(0).nonzero()[0].tolist() == sorted(near)


def test_where_the_key_is_given_the_harmony_of_every_passage_is_in_it() -> None:
    drafts = Drafts([replace(wish(200, seed, mode=-0.2), tonic=9) for seed in range(20)], PLANS)
    for _ in range(2):
        drafts.steer()
        raw = drafts.steering.planned * np.array(PLANS.sd) + np.array(PLANS.mean)
        assert (key_fit(raw[:, HARMONY])[:, 12:].argmax(1) == 9).all()
        drafts.onset_ms += 40_000


def test_after_a_long_opening_a_plan_holds_as_long_as_any() -> None:
    opening = np.tile(np.array([[144, 30, 10, 30]], dtype=np.uint8), (12, 1))  # 96 s
    drafts = Drafts([wish(200, seed) for seed in range(20)], PLANS)
    strike(drafts, opening)
    drafts.steer()
    first = drafts.steering.planned.copy()
    drafts.add(np.full((20, 4), 30), np.full(20, 8000))
    drafts.steer()
    assert np.array_equal(drafts.steering.planned, first)


def test_pins_take_their_places_in_every_plan_standardised() -> None:
    pins = {"density": math.log(3), "mode": -0.2}
    drafts = Drafts([wish(100, seed, **pins) for seed in range(5)], PLANS)
    for _ in range(2):
        drafts.steer()
        for name, value in pins.items():
            i = ENTRIES.index(name)
            assert drafts.steering.planned[:, i] == pytest.approx((value - PLANS.mean[i]) / PLANS.sd[i])
        assert not np.array_equal(drafts.steering.planned[0], drafts.steering.planned[1])  # what is not pinned is drawn
        drafts.onset_ms += 40_000


def test_an_emotion_without_plans_has_an_unknown_one_but_for_the_pins() -> None:
    bare = PLANS.model_copy(update={"by_emotion": {}})
    drafts = Drafts([wish(pitch=60.0)], bare)
    drafts.steer()
    assert np.isnan(drafts.steering.planned[0]).tolist() == [name != "pitch" for name in ENTRIES]


def test_a_mixture_draws_plans_of_its_emotions_in_their_proportions() -> None:
    mixture = {"happy": 0.75, "calm": 0.25}
    drafts = Drafts([Wish(mixture, 10, seed, {}) for seed in range(400)], PLANS)
    drafts.steer()
    assert drafts.steering.emotion[7].tolist() == [mixture.get(name, 0) for name in EMOTIONS]
    share = {
        name: (drafts.steering.planned[:, None] == kept).all(-1).any(-1).mean()
        for name, (_, kept) in PLANS.typical().items()
    }
    assert share["happy"] + share["calm"] == 1
    assert share["happy"] == pytest.approx(0.75, abs=0.07)


def drafts_of(notes: Tokens, planned: npt.ArrayLike, begins: int = 1) -> Drafts:
    """Two drafts that have played the same notes of a passage, which begins at that row."""
    drafts = Drafts([wish(60), wish(60, 1)], PLANS)
    strike(drafts, notes)
    drafts.steering.planned[:] = planned
    drafts.steering.plan = drafts.steering.planned.copy()
    drafts.steering.begins[:] = begins
    drafts.steering.until_ms[:] = 1e9
    return drafts


def test_what_a_passage_lacks_of_its_plan_is_asked_for_on_top() -> None:
    notes = encode(random_piece(2, 30))[: 4 * CORRECT_NOTES - 1]
    (measured,) = PLANS.standardise(measure(notes[None], [len(notes)]))
    lack = np.zeros(len(ENTRIES))
    lack[:5] = 0.5, -0.5, 9.0, -9.0, np.nan
    drafts = drafts_of(notes, measured + lack)
    drafts.steer()
    share = GAIN * len(notes) / (len(notes) + TRUST_NOTES)
    expected = np.clip(lack, -LACK_SDS, LACK_SDS) * share
    for row in drafts.steering.plan - drafts.steering.planned:
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_only_the_notes_of_the_passage_count_and_only_now_and_then() -> None:
    notes = encode(random_piece(2, 30))[: 4 * CORRECT_NOTES - 1]
    drafts = drafts_of(notes, 0.0, begins=1 + CORRECT_NOTES)
    drafts.steer()
    passage = notes[CORRECT_NOTES:]
    (measured,) = PLANS.standardise(measure(passage[None], [len(passage)]))
    share = GAIN * len(passage) / (len(passage) + TRUST_NOTES)
    np.testing.assert_allclose(drafts.steering.plan[0], share * np.clip(-measured, -LACK_SDS, LACK_SDS), atol=1e-5)
    before = drafts.steering.plan.copy()
    drafts.add(np.full((2, 4), 5), np.full(2, 50))
    drafts.steer()
    assert np.array_equal(drafts.steering.plan, before)


def test_a_new_plan_is_told_as_it_is_drawn() -> None:
    notes = encode(random_piece(2, 30))[: 4 * CORRECT_NOTES - 1]
    drafts = drafts_of(notes, 0.0)
    drafts.steering.until_ms[:] = 0
    drafts.steer()
    drafts.steer()
    assert np.array_equal(drafts.steering.plan, drafts.steering.planned)
    assert drafts.steering.planned.any()


def test_what_a_new_passage_lacks_is_nothing_of_what_the_old_one_lacked() -> None:
    drafts = drafts_of(encode(random_piece(2, 30))[: 4 * CORRECT_NOTES - 1], 2.0)
    drafts.steer()
    assert (drafts.steering.lack != 0).all()
    strike(drafts, random_notes(1)[:1])  # nothing is measured now
    drafts.steering.until_ms[0] = 1  # the first draft alone begins a new passage
    drafts.steer()
    assert not drafts.steering.lack[0].any()
    assert (drafts.steering.lack[1] != 0).all()
    for rule in RULES[COLUMN.pitch]:
        added = rule(drafts, np.ones((2, 4), dtype=np.int64))
        assert not added[0].any(), "an old lack still pulls"


def test_the_share_of_a_lack_that_counts_by_hand() -> None:
    """31 notes of a passage: 3 x 31 / (31 + 32) = 1.476 of a lack, of which no more than 3 SDs count."""
    notes = encode(random_piece(2, 30))[:31]
    (measured,) = PLANS.standardise(measure(notes[None], [len(notes)]))
    for lack, expected in ((1.0, 1.47619), (-0.5, -0.738095), (7.0, 4.428571), (-7.0, -4.428571)):
        drafts = drafts_of(notes, measured + lack)
        drafts.steer()
        assert drafts.steering.lack[0] == pytest.approx(np.full(len(ENTRIES), expected), abs=1e-4)


def test_a_note_that_was_ended_early_is_measured_as_long_as_it_sounded() -> None:
    notes = np.zeros((7, 4), dtype=np.uint8)
    notes[:, COLUMN.shift], notes[:, COLUMN.duration] = 10, len(DURATION_MS) - 1  # one key every 100 ms, held 16 s
    drafts = drafts_of(notes, 0.0)
    drafts.steer()
    sounded = notes.copy()
    sounded[:-1, COLUMN.duration] = int(np.flatnonzero(DURATION_MS == 100)[0])
    (measured,) = PLANS.standardise(measure(sounded[None], [7]))
    expected = 3 * 7 / (7 + 32) * np.clip(-measured, -3, 3)
    assert drafts.steering.lack[0] == pytest.approx(expected, abs=1e-4)
