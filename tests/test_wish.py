from __future__ import annotations

import math
from typing import Any

import pytest

from emogen.composing.wish import Wish, check_prime
from emogen.errors import UsageError
from emogen.music.notes import Piece


def test_a_wish_without_more_leaves_all_but_emotion_and_length_open() -> None:
    assert Wish.of("joy", 30) == Wish({"happy": 1.0}, 30, 0, {}, tonic=None)


def test_what_a_musician_asks_for_becomes_entries_of_the_plan() -> None:
    wish = Wish.of("calm", 60, seed=5, mode="major", density=3, loudness=70, register=61)
    assert wish == Wish({"calm": 1.0}, 60, 5, {"mode": 0.2, "density": math.log(3), "velocity": 70, "pitch": 61})


@pytest.mark.parametrize(
    ("key", "tonic", "mode"),
    [
        ("A minor", 9, -0.2),
        (" Am ", 9, -0.2),
        ("eb", 3, 0.2),
        ("F# major", 6, 0.2),
        ("Cb maj", 11, 0.2),
        ("B#m", 0, -0.2),
    ],
)
def test_a_key_is_a_tonic_and_a_mode(key: str, tonic: int, mode: float) -> None:
    wish = Wish.of("sad", 30, key=key)
    assert (wish.tonic, wish.pins) == (tonic, {"mode": mode})


@pytest.mark.parametrize("emotion", ["happy:3,calm:1", {"happy": 0.75, "calm": 0.25}, {"joy": 3, "peaceful": 1}])
def test_a_mixture_is_written_or_given_as_weights(emotion: Any) -> None:
    assert Wish.of(emotion, 30).emotion == {"happy": 0.75, "calm": 0.25}


@pytest.mark.parametrize(
    ("given", "complaint", "hint"),
    [
        ({"emotion": "hapy"}, "unknown emotion 'hapy'", "did you mean 'happy'?"),
        ({"emotion": {}}, "unknown emotion ''", "the emotions are"),
        ({"seconds": 4.999}, "seconds 4.999 is out of range", "seconds takes 5 to 600"),
        ({"seconds": 600.5}, "seconds 600.5 is out of range", "seconds takes 5 to 600"),
        ({"seconds": math.nan}, "seconds nan is out of range", "seconds takes 5 to 600"),
        ({"seed": -1}, "seed -1 is out of range", "seed takes 0 to 4294967295"),
        ({"seed": 2**32}, "seed 4294967296 is out of range", "seed takes 0 to 4294967295"),
        ({"key": "H"}, "key 'H' is not a key", "keys are written"),
        ({"key": "Am", "mode": "major"}, "key 'Am' is minor, but mode is major", "leave one of them out"),
        ({"mode": "dorian"}, "mode 'dorian' is not a mode", "modes are major and minor"),
        ({"density": 0.4}, "density 0.4 is out of range", "density takes 0.5 to 30"),
        ({"density": 31}, "density 31 is out of range", "density takes 0.5 to 30"),
        ({"loudness": 0}, "loudness 0 is out of range", "loudness takes 1 to 127"),
        ({"loudness": 128}, "loudness 128 is out of range", "loudness takes 1 to 127"),
        ({"register": 20}, "register 20 is out of range", "register takes 21 to 108"),
        ({"register": 109}, "register 109 is out of range", "register takes 21 to 108"),
    ],
    ids=str,
)
def test_what_is_out_of_range_is_refused_by_its_name(given: dict[str, Any], complaint: str, hint: str) -> None:
    wished: dict[str, Any] = {"emotion": "sad", "seconds": 30} | given
    with pytest.raises(UsageError) as caught:
        Wish.of(**wished)
    assert str(caught.value) == complaint
    assert hint in caught.value.hint


def test_the_bounds_of_every_range_belong_to_it() -> None:
    Wish.of("sad", 5, seed=0, density=0.5, loudness=1, register=21)
    Wish.of("sad", 600, seed=2**32 - 1, density=30, loudness=127, register=108)


def test_a_prime_leaves_a_second() -> None:
    piece = Piece.of([0, 4000], [60, 62], [64, 64], [500, 500])
    check_prime(piece, 5.5)
    with pytest.raises(UsageError, match=r"^the prime lasts 4\.5 s of the 5 s asked for"):
        check_prime(piece, 5)
    with pytest.raises(UsageError, match=r"^prime x\.mid lasts 4\.5 s of the 5 s asked for"):
        check_prime(piece, 5, "prime x.mid")
