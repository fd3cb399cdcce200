from __future__ import annotations

import numpy as np
import pytest

from emogen.music.notes import LOWEST_KEY
from emogen.music.relative import DEGREES, INTERVALS, KEYS, NO_ROOT, REACH, SCORES, TABLE, references
from emogen.music.tokens import SILENCE, SIZES

CHORDS = np.array(
    [
        *SILENCE.tolist(),
        [5, 10, 1, 1],  # a chord of three
        [0, 14, 1, 1],
        [0, 17, 1, 1],
        [3, 20, 1, 1],  # of two
        [0, 25, 1, 1],
        [2, 3, 1, 1],
    ],
    dtype=np.uint8,
)


def test_references_are_the_last_onset_and_the_note_before() -> None:
    assert references(CHORDS).tolist() == [
        [KEYS, KEYS, KEYS],  # nothing was struck yet
        [KEYS, KEYS, 10],
        [KEYS, KEYS, 14],
        [17, 10, 17],  # top and bass of the chord of three
        [17, 10, 20],  # inside a chord still those of the onset before
        [25, 20, 25],
    ]


@pytest.mark.parametrize("reference", range(3))
def test_an_interval_has_one_score_wherever_it_lies(reference: int) -> None:
    for low in (0, 20, 50):
        assert TABLE[reference, low, low + 7] == reference * INTERVALS + REACH + 7
        assert TABLE[reference, low + 7, low] == reference * INTERVALS + REACH - 7


def test_wide_intervals_share_the_outermost_score() -> None:
    assert TABLE[0, 0, REACH] == TABLE[0, 0, KEYS - 1] == 2 * REACH
    assert TABLE[0, KEYS - 1, 0] == 0


def test_a_degree_counts_from_the_root() -> None:
    middle_c = 60 - LOWEST_KEY
    for root in range(12):
        assert TABLE[3, root, middle_c + 4] == 3 * INTERVALS + (4 - root) % 12


@pytest.mark.parametrize(("reference", "none"), [(0, KEYS), (1, KEYS), (2, KEYS), (3, NO_ROOT)])
def test_what_is_not_known_tells_no_pitch_from_another(reference: int, none: int) -> None:
    assert len(set(TABLE[reference, none].tolist())) == 1
    known = TABLE[reference, :none]
    assert TABLE[reference, none, 0] not in known


def test_every_score_is_used_for_one_thing() -> None:
    assert SCORES == 3 * INTERVALS + DEGREES
    used = [set(TABLE[row].ravel().tolist()) for row in range(3)] + [set(TABLE[3, : NO_ROOT + 1].ravel().tolist())]
    assert set().union(*used) == set(range(SCORES))
    assert sum(map(len, used)) == SCORES
    assert TABLE.shape == (4, SIZES[1] + 1, SIZES[1])
