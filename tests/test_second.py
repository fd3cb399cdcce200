from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from emogen.data.corpus import Corpus
from emogen.ear.fitted import BUNDLED, Ear
from emogen.ear.judge import Scores
from emogen.ear.second import PARTS, SecondJudge, cross_validate, histograms
from emogen.errors import EmogenError
from emogen.music.notes import Piece
from tests.music import random_piece
from tests.test_judge import NOTHING, ONE_NOTE, clips


@pytest.fixture(scope="module")
def fitted() -> SecondJudge:
    return SecondJudge.fit(*clips(0, 4))


def test_quadrants_are_known_again_in_other_music(fitted: SecondJudge) -> None:
    pieces, quadrant = clips(100, 3)
    assert (fitted.probabilities(pieces).argmax(1) + 1 == quadrant).all()
    assert fitted.probabilities(pieces).sum(1) == pytest.approx(1)


def test_nothing_is_said_of_pieces_in_which_nothing_happens_and_they_teach_nothing(fitted: SecondJudge) -> None:
    assert (fitted.probabilities([NOTHING, ONE_NOTE]) == 0.25).all()
    assert fitted.probabilities([]).shape == (0, 4)
    pieces, quadrant = clips(0, 4)
    other = SecondJudge.fit([NOTHING, *pieces, ONE_NOTE], np.array([1, *quadrant, 2]))
    assert (other.probabilities(pieces) == fitted.probabilities(pieces)).all()


def test_every_histogram_sums_to_one_and_hears_no_key() -> None:
    piece = random_piece(0, 60)
    low = Piece(piece.onset_ms, np.clip(piece.pitch, 40, 80), piece.velocity, piece.duration_ms)
    low = Piece.of(*low.columns)
    rows = histograms([low, low.transpose(1)])
    for start, end in pairwise(PARTS):
        assert (rows[:, start:end] ** 2).sum(1) == pytest.approx(1)
    assert rows[0, PARTS[4] : PARTS[7]] == pytest.approx(rows[1, PARTS[4] : PARTS[7]])


def test_its_arrays_are_all_there_is_to_it(fitted: SecondJudge) -> None:
    pieces, _ = clips(300, 1)
    assert (SecondJudge.of(fitted.arrays()).probabilities(pieces) == fitted.probabilities(pieces)).all()
    arrays = fitted.arrays()
    for odd in ({"known": arrays["known"][:, 1:]}, {"pull": arrays["pull"][1:]}, {"prior": arrays["prior"] * np.nan}):
        with pytest.raises(ValueError, match=r"another version|together|finite"):
            SecondJudge.of(arrays | odd)


def test_a_judge_needs_all_four_quadrants() -> None:
    pieces, quadrant = clips(0, 1)
    with pytest.raises(EmogenError, match="all four quadrants"):
        SecondJudge.fit(pieces[1:], quadrant[1:])


def test_cross_validation_finds_what_is_there_and_does_not_find_what_is_not() -> None:
    pieces, quadrant = clips(0, 5)
    assert cross_validate(pieces, quadrant, np.arange(20), folds=5).quadrant == 1
    drawn = np.random.default_rng(1).permutation(quadrant)
    assert cross_validate(pieces, drawn, np.arange(20), folds=5).quadrant < 0.6


def test_the_bundled_one_is_small_and_as_good_as_it_should_be() -> None:
    assert BUNDLED.stat().st_size < 300_000
    ear = Ear.load()
    assert ear.second_scores > Scores(0.7, 0.9, 0.75)
    assert ear.scores > Scores(0.7, 0.9, 0.75)


def test_an_ear_knows_a_corpus_whose_test_songs_it_was_fitted_on() -> None:
    ear = Ear.load()
    known = min(ear.songs)

    def corpus(*names: str) -> Corpus:
        told = SimpleNamespace(
            manifest=SimpleNamespace(songs=["other", *names]),
            song=np.arange(1 + len(names)),
            clips=lambda split: [0, 1],
        )
        return cast(Corpus, told)

    assert ear.knows(corpus(known))
    assert not ear.knows(corpus("yet another", known))
