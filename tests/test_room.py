from __future__ import annotations

import numpy as np
import pytest

from emogen.sound import room
from emogen.sound.room import WET_DB, in_room, response
from emogen.sound.soundfont import SAMPLE_RATE, Floats


def noise(frames: int, channels: int = 2) -> Floats:
    made: Floats = np.random.default_rng(0).standard_normal((frames, channels)).astype(np.float32)
    return made


def test_the_answer_of_the_room_is_the_same_every_time_and_light() -> None:
    first = response().copy()
    response.cache_clear()
    assert np.array_equal(first, response())
    assert 10 * np.log10((first**2).sum(axis=0)) == pytest.approx([WET_DB] * 2, abs=0.01)
    left, right = first.T
    assert abs(float(left @ right)) < 0.1 * float(left @ left)  # both sides hear another room


def test_high_sounds_die_away_sooner_than_low_ones_and_all_do() -> None:
    spans = [response()[round(at * SAMPLE_RATE) :][: SAMPLE_RATE // 5, 0] for at in (0.1, 0.6)]
    energy = [np.abs(np.fft.rfft(one)) ** 2 for one in spans]
    low, high = slice(20, 100), slice(1200, 2400)  # 100 to 500 Hz, 6 to 12 kHz
    fallen = [10 * np.log10(energy[0][band].sum() / energy[1][band].sum()) for band in (low, high)]
    assert 20 < fallen[0] < 35
    assert fallen[1] > fallen[0] + 15
    assert np.abs(response()[-SAMPLE_RATE // 50 :]).max() < 1e-2 * np.abs(response()).max()


@pytest.mark.parametrize("frames", [1, 1000, 70_001, 200_000])
def test_blocks_give_what_one_convolution_gives(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = noise(frames)
    size = frames + len(response())
    spectrum = np.fft.rfft(sound.mean(axis=1), size)[:, None] * np.fft.rfft(response(), size, axis=0)
    expected = sound + np.fft.irfft(spectrum, size, axis=0)[:frames]
    assert np.abs(in_room(sound.copy()) - expected).max() < 1e-4


def test_a_sound_keeps_its_length_and_its_place_and_a_mono_one_gets_two_sides() -> None:
    sound = noise(5000)
    assert in_room(sound) is sound
    mono = noise(5000, channels=1)
    assert in_room(mono.copy()).shape == (5000, 2)
    assert np.abs(in_room(mono.copy())[:100] - mono[:100]).max() < 1e-5  # nothing answers at once
    assert len(response()) < room.BLOCK
