from __future__ import annotations

import numpy as np
import pytest

from emogen.data.split import name_emotions, split_songs
from emogen.emotion import EMOTIONS


@pytest.mark.parametrize("seed", [0, 1])
def test_no_song_is_in_two_splits_and_the_shares_hold_for_every_label(seed: int) -> None:
    rng = np.random.default_rng(seed)
    song = np.concatenate([np.arange(300), rng.integers(0, 300, 900)]).astype(np.int32)
    stratum = (song % 4).astype(np.int64)
    split = split_songs(song, np.arange(300, dtype=np.int32), stratum, seed)
    songs = {part: set(song[split == part].tolist()) for part in range(3)}
    assert not songs[0] & songs[1] | songs[0] & songs[2] | songs[1] & songs[2]
    for label in range(4):
        shares = [len({one for one in songs[part] if one % 4 == label}) / 75 for part in range(3)]
        assert shares == pytest.approx([0.70, 0.15, 0.15], abs=0.03)
    clips = np.bincount(split) / len(song)
    assert clips.tolist() == pytest.approx([0.70, 0.15, 0.15], abs=0.03)


def test_another_seed_gives_another_split() -> None:
    song = np.arange(100, dtype=np.int32)
    splits = [split_songs(song, song, np.zeros(100, dtype=np.int64), seed).tolist() for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]


def test_three_songs_are_enough_for_a_valid_split_and_five_for_a_test_split() -> None:
    for songs, splits in ((1, {0}), (3, {0, 1}), (5, {0, 1, 2})):
        song = np.arange(songs, dtype=np.int32)
        assert set(split_songs(song, song, np.arange(songs), 0).tolist()) == splits


def test_songs_of_one_group_stay_together() -> None:
    song = np.arange(60, dtype=np.int32)
    group = song // 3
    split = split_songs(song, group, np.zeros(60, dtype=np.int64), 0)
    assert all(len(set(split[group == one].tolist())) == 1 for one in range(20))


def test_quadrants_become_emotions_at_the_training_clips_median_energy() -> None:
    labels = ["Q1"] * 5 + ["Q2"] * 2 + ["Q3", "Q4", "sad", "angry", ""]
    split = np.array([0, 0, 0, 1, 2, 0, 1, 0, 0, 0, 0, 0], dtype=np.int8)
    pace = np.array([1.0, 2, 3, 2, 1.9, 5, 1, 9, 9, 0, 0, 4])
    loudness = np.full(12, 64.0)
    emotion, thresholds = name_emotions(labels, split, pace, loudness)
    named = [EMOTIONS[index] if index >= 0 else "" for index in emotion]
    assert named[:5] == ["happy", "excited", "excited", "excited", "happy"]  # the training median is a pace of 2
    assert named[5:7] == ["angry", "tense"]
    assert named[7:] == ["sad", "calm", "sad", "angry", ""]
    train = pace[split == 0]
    assert thresholds["q1_energy"] == pytest.approx((2 - train.mean()) / train.std() / 2)


def test_loudness_counts_as_much_as_pace() -> None:
    split = np.zeros(4, dtype=np.int8)
    pace, loudness = np.array([1.0, 1, 2, 2]), np.array([30.0, 90, 30, 90])
    emotion, _ = name_emotions(["Q2"] * 4, split, pace, loudness)
    assert [EMOTIONS[index] for index in emotion] == ["tense", "angry", "angry", "angry"]


def test_a_quadrant_without_training_clips_is_split_at_the_mean_energy() -> None:
    split = np.array([0, 0, 1, 1], dtype=np.int8)
    emotion, thresholds = name_emotions(["Q3", "Q3", "Q1", "Q1"], split, np.array([1.0, 3, 1, 3]), np.full(4, 64.0))
    assert [EMOTIONS[index] for index in emotion[2:]] == ["happy", "excited"]
    assert thresholds["q1_energy"] == 0
