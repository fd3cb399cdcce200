from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from emogen.composing.wish import Wish
from emogen.ear.fitted import Ear
from emogen.evaluation.choosing import best_of, merit, takes
from emogen.music.notes import Piece
from tests.music import random_piece

EAR = Ear.load()


def march(velocity: int, minor: bool) -> Piece:
    """Thirty seconds of crotchets over two chords, about as steady as people play."""
    played_ms = np.arange(60) * 500 + np.random.default_rng(velocity).normal(40, 30, 60).astype(int).clip(0, 80)
    onset = np.repeat(played_ms, 3)
    third = 3 if minor else 4
    chord = np.array([[60, 60 + third, 67], [65, 65 + third, 72]])[np.arange(60) // 4 % 2].ravel()
    return Piece.of(onset, chord, np.full(180, velocity), np.full(180, 450))


def test_takes_are_the_wish_itself_and_others_with_seeds_that_are_always_the_same() -> None:
    wish = Wish({"sad": 1.0}, 30.0, 2**32 - 1, {})
    some = takes(wish, 16)
    assert some[0] == wish
    assert some[:4] == takes(wish, 4)
    assert len({take.seed for take in some}) == 16
    assert all(0 <= take.seed < 2**32 and replace(take, seed=wish.seed) == wish for take in some)


def test_what_holds_together_keeps_time_and_has_the_wanted_feeling_is_preferred() -> None:
    noise = [random_piece(seed, 60) for seed in range(3)]
    wish = Wish({"sad": 1.0}, 30.0, 0, {})
    assert merit([noise[0], march(40, True), *noise[1:]], wish, EAR).argmax() == 1


def test_the_wanted_feeling_counts_by_its_share_in_every_passage() -> None:
    pair = [march(110, False), march(30, True)]
    happy, sad = (merit(pair, Wish({name: 1.0}, 30.0, 0, {}), EAR) for name in ("excited", "sad"))
    assert happy[0] - happy[1] > sad[0] - sad[1]


def test_the_best_of_each_wish_comes_out_in_the_order_of_the_wishes() -> None:
    wishes = [Wish({"sad": 1.0}, 30.0, seed, {}) for seed in range(2)]
    good = [march(40, True), march(41, True)]
    pieces = [random_piece(0, 60), *good, random_piece(1, 60)]
    assert list(best_of(iter(pieces), wishes, 2, EAR)) == good


def test_equal_takes_are_equally_good_and_the_first_of_them_is_taken() -> None:
    pair = [march(40, True)] * 2
    wish = Wish({"sad": 1.0}, 30.0, 0, {})
    assert merit(pair, wish, EAR).tolist() == pytest.approx([1.5, 1.5])
    assert next(best_of(pair, [wish], 2, EAR)) is pair[0]


def test_pieces_without_a_beat_can_be_compared() -> None:
    empty = Piece.of(*(np.zeros(0, dtype=np.int64) for _ in range(4)))
    assert merit([empty, march(40, True)], Wish({"sad": 1.0}, 30.0, 0, {}), EAR).argmax() == 1
