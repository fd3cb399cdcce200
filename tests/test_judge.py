from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from emogen.ear import judge as judge_module
from emogen.ear.features import NAMES
from emogen.ear.judge import Judge, arousal, cross_validate, score, valence
from emogen.errors import EmogenError
from emogen.music.midi import read_piece
from emogen.music.notes import Piece
from tests.midi_files import EMOPIA, needs_emopia

NOTHING = Piece.of([], [], [], [])
ONE_NOTE = Piece.of([0], [60], [64], [500])


def clip(seed: int, quadrant: int) -> Piece:
    """Random triads of one key: loud and fast in Q1 and Q2, major in Q1 and Q4."""
    rng = np.random.default_rng([seed, quadrant])
    third = 4 if quadrant in (1, 4) else 3
    gap_ms, loud = (250, 96) if quadrant in (1, 2) else (700, 48)
    root = int(rng.integers(40, 70)) + rng.choice([0, 5, 7], 40)
    pitch = np.stack([root, root + third, root + 7], 1)
    onset_ms = np.broadcast_to(np.arange(40)[:, None] * gap_ms, pitch.shape)
    velocity = loud + rng.integers(-12, 13, pitch.shape)
    return Piece.of(onset_ms, pitch, velocity, np.full(pitch.shape, gap_ms - 50))


def clips(first_seed: int, number: int) -> tuple[list[Piece], npt.NDArray[np.int64]]:
    quadrant = np.tile([1, 2, 3, 4], number)
    return [clip(first_seed + at // 4, int(one)) for at, one in enumerate(quadrant)], quadrant


@pytest.fixture(scope="module")
def fitted() -> Judge:
    return Judge.fit(*clips(0, 4))


def test_quadrants_are_known_again_in_other_music(fitted: Judge) -> None:
    pieces, quadrant = clips(100, 3)
    assert score(fitted.probabilities(pieces), quadrant) == (1, 1, 1)


def test_probabilities_sum_to_one_and_arousal_and_valence_are_sums_of_them(fitted: Judge) -> None:
    probabilities = fitted.probabilities(clips(200, 1)[0])
    np.testing.assert_allclose(probabilities.sum(1), 1)
    np.testing.assert_allclose(arousal(probabilities), probabilities[:, [0, 1]].sum(1))
    np.testing.assert_allclose(valence(probabilities), probabilities[:, [0, 3]].sum(1))


def test_nothing_is_said_of_pieces_in_which_nothing_happens(fitted: Judge) -> None:
    probabilities = fitted.probabilities([NOTHING, clip(0, 1), ONE_NOTE])
    assert (probabilities[[0, 2]] == 0.25).all()
    assert probabilities[1].argmax() == 0
    assert fitted.probabilities([NOTHING]).shape == (1, 4)
    assert fitted.probabilities([]).shape == (0, 4)


def test_pieces_in_which_nothing_happens_teach_nothing(fitted: Judge) -> None:
    pieces, quadrant = clips(0, 4)
    other = Judge.fit([NOTHING, *pieces, ONE_NOTE], np.array([1, *quadrant, 2]))
    assert (other.probabilities(pieces) == fitted.probabilities(pieces)).all()


def test_a_judge_needs_all_four_quadrants() -> None:
    pieces, quadrant = clips(0, 1)
    for missing in range(4):
        heard = [NOTHING if at == missing else piece for at, piece in enumerate(pieces)]
        with pytest.raises(EmogenError, match="all four quadrants"):
            Judge.fit(heard, quadrant)
    with pytest.raises(EmogenError, match="all four quadrants"):
        Judge.fit(pieces, quadrant - 1)


def test_a_long_piece_counts_no_more_than_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_module, "hear", lambda rows: rows)
    rng = np.random.default_rng(0)
    heard = [rng.normal(size=(2, len(NAMES))) for _ in range(8)]
    longer = [np.tile(rows, (1 + 4 * (at % 2), 1)) for at, rows in enumerate(heard)]
    one, other = (Judge.fit(rows, np.tile([1, 2, 3, 4], 2)) for rows in (heard, longer))  # type: ignore[arg-type]
    np.testing.assert_allclose(other.classifier.weights, one.classifier.weights, atol=1e-5)


def test_its_arrays_are_all_there_is_to_it(fitted: Judge) -> None:
    pieces, _ = clips(300, 1)
    assert (Judge.of(fitted.arrays()).probabilities(pieces) == fitted.probabilities(pieces)).all()


def test_a_judge_of_other_features_is_refused(fitted: Judge) -> None:
    arrays = fitted.arrays()
    with pytest.raises(EmogenError, match="another version") as caught:
        Judge.of(arrays | {name: arrays[name][1:] for name in ("mean", "scale", "weights")})
    assert caught.value.hint


def test_scores_are_shares_of_right_answers() -> None:
    probabilities = np.array([[50, 30, 10, 10], [50, 30, 10, 10], [10, 15, 30, 45], [30, 35, 20, 15]]) / 100
    assert score(probabilities, np.array([1, 2, 3, 3])) == (0.25, 0.75, 0.5)


def test_no_song_is_judged_by_who_has_heard_it(monkeypatch: pytest.MonkeyPatch) -> None:
    song = np.random.default_rng(0).integers(100, 112, 60)
    quadrant = np.arange(60) % 4 + 1
    rows = [np.full((1, len(NAMES)), float(at)) for at in range(60)]
    heard: list[set[int]] = []
    judged: list[int] = []

    class Witness:
        @classmethod
        def _of_heard(cls, windows: list[npt.NDArray[np.float64]], labels: npt.NDArray[np.int64]) -> Witness:
            at = [int(one[0, 0]) for one in windows]
            assert (labels == quadrant[at]).all()
            heard.append(set(song[at].tolist()))
            return cls()

        def probabilities_of(self, windows: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
            at = [int(one[0, 0]) for one in windows]
            assert heard[-1].isdisjoint(song[at].tolist())
            judged.extend(at)
            return np.eye(4)[quadrant[at] - 1]

    monkeypatch.setattr(judge_module, "hear", lambda one: one)
    monkeypatch.setattr(judge_module, "Judge", Witness)
    assert cross_validate(rows, quadrant, song, folds=5) == (1, 1, 1)  # type: ignore[arg-type]
    assert len(heard) == 5
    assert sorted(judged) == list(range(60))


def test_cross_validation_finds_what_is_there_and_does_not_find_what_is_not() -> None:
    pieces, quadrant = clips(0, 5)
    song = np.arange(20)
    assert cross_validate(pieces, quadrant, song, folds=5).quadrant == 1
    drawn = np.random.default_rng(1).permutation(quadrant)
    assert cross_validate(pieces, drawn, song, folds=5).quadrant < 0.6


@pytest.mark.parametrize("folds", [0, 1, 9])
def test_folds_that_cannot_be_made_are_refused(folds: int) -> None:
    pieces, quadrant = clips(0, 2)
    with pytest.raises(ValueError, match="cannot be made"):
        cross_validate(pieces, quadrant, np.arange(8), folds=folds)


@pytest.mark.slow
@needs_emopia
def test_listeners_arousal_and_valence_are_mostly_found_again() -> None:
    files = sorted((EMOPIA / "midis").glob("Q*_0.mid"))[::4]
    names = [file.stem.split("_", 1) for file in files]
    song = np.unique([rest[:11] for _, rest in names], return_inverse=True)[1]
    found = cross_validate([read_piece(file) for file in files], np.array([int(q[1]) for q, _ in names]), song, folds=3)
    assert found.quadrant > 0.5
    assert found.arousal > 0.78
    assert found.valence > 0.62
