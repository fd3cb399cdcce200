from __future__ import annotations

import numpy as np
import pytest

from emogen.music.chart import Chart
from emogen.music.position import BEAT, CHORD, PARTS, UNKNOWN, WIDTH, at, bins
from emogen.music.tokens import SHIFT_MS

NAMES = ("", "m")


def steady(period_ms: int = 500, clarity: float = 0.7) -> Chart:
    """Two bars in 4: C and A minor."""
    return Chart(
        beats_ms=np.arange(9) * period_ms,
        place=np.tile(np.arange(4), 3)[:9].astype(np.int8),
        root=np.array([0, 0, 0, 0, 9, 9, 9, 9, 9], dtype=np.int8),
        quality=np.array([0, 0, 0, 0, 1, 1, 1, 1, 1], dtype=np.int8),
        section=np.zeros(9, dtype=np.int8),
        beats_per_bar=4,
        clarity=clarity,
    )


def test_rhythm_is_the_same_at_every_tempo() -> None:
    slow, fast = steady(1000), steady(250)
    beats = np.array([0.0, 0.5, 3.5, 4.0])
    one, other = (at(chart, (beats * period).astype(int)) for chart, period in ((slow, 1000), (fast, 250)))
    period = BEAT - 4
    assert np.allclose(np.delete(one.features, period, 1), np.delete(other.features, period, 1), atol=1e-5)
    assert one.features[:, period] == pytest.approx(1)  # in octaves of half a second
    assert other.features[:, period] == pytest.approx(-1)


def test_moments_know_the_chord_and_the_next_one() -> None:
    moments = at(steady(), np.array([1600, 2100]))  # in beat 3, before the change; and behind it
    now, following = moments.features[:, BEAT : BEAT + CHORD], moments.features[:, BEAT + CHORD :]
    classes = [(0, 4, 7), (0, 4, 9)]  # C major; A minor
    assert [tuple(np.flatnonzero(row[1:13]).tolist()) for row in now] == classes
    assert [tuple(np.flatnonzero(row[1:13]).tolist()) for row in following] == [classes[1], classes[1]]
    assert moments.root.tolist() == [0, 9]
    assert np.flatnonzero(now[1, 13:]).tolist() == [9]


def test_the_bar_turns_once_around() -> None:
    features = at(steady(), np.array([0, 500, 1000, 2000])).features
    assert features[:, BEAT - 3] == pytest.approx([1, 0, -1, 1], abs=1e-6)
    assert features[:, BEAT - 2] == pytest.approx([0, 1, 0, 0], abs=1e-6)


def test_shifts_land_on_parts_of_the_beat() -> None:
    landing = bins(steady(), np.array([250]))[0]
    for shift in range(0, len(SHIFT_MS), 7):
        phase = (250 + SHIFT_MS[shift]) / 500 % 1
        assert landing[shift] == int(phase * PARTS) % PARTS
    assert landing.shape == SHIFT_MS.shape


def test_stretched_music_lands_where_the_chart_has_it() -> None:
    slower = bins(steady(), np.array([0]), stretch=1.25)[0]
    whole = np.flatnonzero(SHIFT_MS % 625 == 0)  # a beat of 500 ms, a quarter slower
    assert len(whole) > 2
    assert set(slower[whole].tolist()) == {0}
    assert at(steady(), np.array([0]), stretch=2.0).features[0, BEAT - 4] == pytest.approx(1)


def test_without_a_pulse_nothing_is_said() -> None:
    unclear = steady(clarity=0.05)
    moments = at(unclear, np.array([0, 700]))
    assert not moments.features.any()
    assert moments.features.shape == (2, WIDTH)
    assert moments.root.tolist() == [12, 12]
    assert set(bins(unclear, np.array([0, 700])).ravel().tolist()) == {UNKNOWN}


def test_no_chord_has_no_classes_and_no_root() -> None:
    chart = steady()
    chart.root[:] = -1
    features = at(chart, np.array([100])).features
    assert features[0, BEAT] == 1  # it is known that there is none
    assert not features[0, BEAT + 1 : BEAT + CHORD].any()
