from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from emogen.composing import rules
from emogen.composing.drafts import Drafts
from emogen.composing.rules import RULES, takes_its_time
from emogen.music.notes import Ints
from emogen.music.plan import ENTRIES
from emogen.music.tokens import COLUMN, DURATION_MS, SHIFT_MS, SIZES
from tests.drafting import PLANS, drawn, random_notes, strike, wish

NO_NOTE_YET = np.zeros((1, 4), dtype=np.int64)


def added(drafts: Drafts, family: int, shift: Sequence[int] | Ints = (0,)) -> npt.NDArray[np.float32]:
    """What all rules of a family add together (B, size)."""
    total = np.zeros((len(drafts), SIZES[family]), dtype=np.float32)
    for rule in RULES[family]:
        total = total + rule(drafts, drawn(*shift))
    return total


def shifts_ms(drafts: Drafts) -> list[int]:
    """What the first draft may draw as its next shift."""
    return SHIFT_MS[np.isfinite(added(drafts, COLUMN.shift)[0])].tolist()


def on_grid(lowest_ms: float, highest_ms: float) -> list[int]:
    """Shifts between two bounds, both included."""
    return SHIFT_MS[(lowest_ms <= SHIFT_MS) & (highest_ms >= SHIFT_MS)].tolist()


def test_the_first_note_is_struck_soon_and_no_pause_is_long() -> None:
    drafts = Drafts([wish(60)], PLANS)
    assert shifts_ms(drafts) == on_grid(0, 500)
    strike(drafts, np.array([[10, 30, 15, len(DURATION_MS) - 1]], dtype=np.uint8))
    assert shifts_ms(drafts) == on_grid(0, 2000)  # however long it sounds


def test_a_first_note_is_struck_within_the_piece() -> None:
    assert shifts_ms(Drafts([wish(0.4)], PLANS)) == on_grid(0, 150)  # and not where it would end it


@pytest.mark.parametrize("left_ms", [5000, 2501, 2500, 2400, 2250, 300, 260, 250, 240, 20])
@pytest.mark.parametrize("duration", [0, 40, len(DURATION_MS) - 1])
def test_a_key_is_struck_while_it_can_sound_and_the_end_is_near_the_last_onset(left_ms: int, duration: int) -> None:
    drafts = Drafts([wish(60)], PLANS)
    drafts.onset_ms[:] = 60_000 - left_ms
    strike(drafts, np.array([[0, 30, 15, duration]], dtype=np.uint8))
    strikes = on_grid(0, min(2000, left_ms - 250))
    ends = on_grid(left_ms - 249, 8000) if left_ms <= 2500 else []
    assert shifts_ms(drafts) == strikes + ends
    assert strikes + ends


def test_a_chord_that_has_the_highest_key_goes_no_further() -> None:
    drafts = Drafts([wish(60), wish(60)], PLANS)
    drafts.add(np.array([[10, 87, 15, 30], [10, 86, 15, 30]]), SHIFT_MS[[10, 10]])
    assert np.isfinite(added(drafts, COLUMN.shift)[:, :2]).tolist() == [[False, True], [True, True]]


def test_in_a_chord_pitches_rise_and_elsewhere_they_are_free() -> None:
    drafts = Drafts([wish(60), wish(60)], PLANS)
    assert np.isfinite(added(drafts, COLUMN.pitch, [0, 0])).all()  # a piece that begins at once begins with no chord
    drafts.add(np.array([[10, 39, 15, 30], [10, 39, 15, 30]]), SHIFT_MS[[10, 10]])
    possible = np.isfinite(added(drafts, COLUMN.pitch, [0, 1]))
    assert np.flatnonzero(possible[0]).tolist() == list(range(40, 88))
    assert possible[1].all()


@pytest.mark.parametrize(("left_ms", "longest_ms"), [(16_000, 16_000), (15_999, 15_037), (300, 300), (299, 290)])
def test_a_note_is_released_with_the_piece_or_before(left_ms: int, longest_ms: int) -> None:
    drafts = Drafts([wish(60)], PLANS)
    drafts.onset_ms[:] = 60_000 - left_ms - 100
    possible_ms = DURATION_MS[np.isfinite(added(drafts, COLUMN.duration, [10])[0])]  # after a shift of 100 ms
    assert possible_ms.tolist() == DURATION_MS[left_ms >= DURATION_MS].tolist()
    assert longest_ms - possible_ms.max() <= 20


def test_a_note_of_a_shift_beyond_the_end_can_still_be_drawn() -> None:
    drafts = Drafts([wish(60)], PLANS)
    drafts.onset_ms[:] = 59_900
    assert np.flatnonzero(np.isfinite(added(drafts, COLUMN.duration, [144])[0])).tolist() == [0]


def test_velocities_are_as_the_network_wants_them_where_nothing_is_marked() -> None:
    assert not added(Drafts([wish(60)], PLANS), COLUMN.velocity).any()


def test_however_dense_a_passage_the_clock_goes_on() -> None:
    drafts = Drafts([wish(60)], PLANS)
    onset_ms = []
    for number in range(600):
        possible = takes_its_time(drafts, NO_NOTE_YET) == np.zeros(len(SHIFT_MS), dtype=np.float32)
        shift = int(np.flatnonzero(possible[0])[0])  # as dense as can be
        drafts.add(np.array([[shift, number % 88, 16, 0]]), SHIFT_MS[[shift]])
        onset_ms.append(int(drafts.onset_ms[0]))
    assert onset_ms[127] == 0
    assert onset_ms[128] == 1000
    assert onset_ms[-1] == 4000


def test_at_least_one_id_is_possible_in_every_draw() -> None:
    rng = np.random.default_rng(0)
    drafts = Drafts([wish(0.25 + 0.05 * seed, seed) for seed in range(200)], PLANS)
    for _ in range(40):
        shift = []
        for possible in np.isfinite(added(drafts, COLUMN.shift)):
            assert possible.any()
            shift.append(rng.choice(np.flatnonzero(possible)))
        chosen = np.array(shift)
        for family in (COLUMN.pitch, COLUMN.velocity, COLUMN.duration):
            assert np.isfinite(added(drafts, family, chosen)).any(1).all()
        kept = np.flatnonzero(~drafts.ends(SHIFT_MS[chosen][:, None])[:, 0])
        if not len(kept):
            break
        drafts.keep(kept)
        highest = np.full((len(kept), 4), (0, 87, 10, int(rng.integers(95))))
        highest[:, COLUMN.shift] = chosen[kept]
        drafts.add(highest, SHIFT_MS[chosen[kept]])


# ---- the pulls, by hand


def lacking(entry: str, sds: float, guidance: float) -> Drafts:
    """A draft that lacks that much of one entry of its plan."""
    drafts = Drafts([wish(60)], PLANS, None, guidance)
    strike(drafts, random_notes(3))
    drafts.steering.lack[0, ENTRIES.index(entry)] = sds
    return drafts


@pytest.mark.parametrize(
    ("sds", "guidance", "expected"), [(1, 1, 0.1), (-1, 1, -0.1), (2, 1.5, 0.3), (3, 0, 0), (0, 2, 0)]
)
def test_a_passage_that_lacks_density_favours_short_shifts_by_a_tenth_of_a_nat_for_each_halving(
    sds: float, guidance: float, expected: float
) -> None:
    pull = rules.towards_density(lacking("density", sds, guidance), NO_NOTE_YET)[0]
    of_ms = dict(zip((SHIFT_MS + 50).tolist(), pull.tolist(), strict=True))
    for long_ms in (100, 200, 400, 800):
        assert of_ms[long_ms // 2 if long_ms > 100 else 50] - of_ms[long_ms] == pytest.approx(expected, abs=1e-5)
    assert (np.sign(np.diff(pull)) == -np.sign(expected)).all()


@pytest.mark.parametrize(("sds", "guidance", "expected"), [(1, 1, 0.15), (-2, 1.5, -0.45), (3, 0, 0)])
def test_a_passage_that_lacks_a_pitch_class_favours_its_keys_and_no_others(
    sds: float, guidance: float, expected: float
) -> None:
    pull = rules.towards_harmony(lacking("A", sds, guidance), NO_NOTE_YET)[0]
    of_a = np.arange(88) % 12 == 0  # the lowest key of a piano is an A
    assert pull[of_a] == pytest.approx(np.full(8, expected), abs=1e-6)
    assert not pull[~of_a].any()


def test_what_is_lacked_of_other_entries_pulls_at_nothing() -> None:
    drafts = lacking("velocity", 3, 1.5)
    for family in range(4):
        total = added(drafts, family, [10])
        assert not total[np.isfinite(total)].any()


def test_rules_that_have_nothing_to_say_are_left_out() -> None:
    drafts = Drafts([wish(60), wish(60)], PLANS)
    strike(drafts, random_notes(4))
    silent = {rule.__name__ for family in RULES for rule in family if rule(drafts, drawn(40, 40)) is rules.NOTHING}
    assert silent >= {"strikes_at_markers", "strikes_markers_hard", "ends_soon_after_its_last_note"}
    assert silent >= {"rises_in_a_chord", "is_released_in_time", "like_in_pitch"}
    drafts.onset_ms[1] = 55_000
    assert rules.ends_soon_after_its_last_note(drafts, drawn(0, 0)) is not rules.NOTHING
