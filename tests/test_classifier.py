from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from emogen.ear.classifier import FARTHEST, Classifier, softmax

L2 = 0.01


def points(seed: int, number: int = 240, features: int = 5) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Points around three centres, as many of each class."""
    rng = np.random.default_rng(seed)
    y = np.arange(number) % 3
    return 2 * np.eye(3, features)[y] + rng.normal(size=(number, features)), y


def loss(classifier: Classifier, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> float:
    truth = classifier.probabilities(x)[np.arange(len(y)), y]
    return float(-np.log(truth).mean() + L2 / 2 * (classifier.weights**2).sum())


def test_classes_apart_are_told_apart_on_points_never_seen() -> None:
    classifier = Classifier.fit(*points(0), l2=L2)
    x, y = points(1)
    assert (classifier.log_odds(x).argmax(1) == y).mean() > 0.8


def test_probabilities_are_of_the_order_of_the_log_odds_and_sum_to_one() -> None:
    x, y = points(0)
    classifier = Classifier.fit(x, y, l2=L2)
    probabilities = classifier.probabilities(10 * x)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    np.testing.assert_allclose(probabilities, softmax(classifier.log_odds(10 * x)))
    assert (softmax(np.array([[1000.0, 0.0], [0.0, 0.0]])) == [[1, 0], [0.5, 0.5]]).all()


def test_no_weight_can_be_moved_to_a_smaller_loss() -> None:
    x, y = points(0)
    classifier = Classifier.fit(x, y, l2=L2)
    least = loss(classifier, x, y)
    for array in (classifier.weights, classifier.intercept):
        for at in np.ndindex(array.shape):
            for step in (-1e-3, 1e-3):
                array[at] += step
                assert loss(classifier, x, y) > least
                array[at] -= step


def test_a_point_that_weighs_twice_is_a_point_given_twice() -> None:
    x, y = points(0)
    weight = np.arange(len(x)) % 3 * 2.0 + (y == 0)  # some of them count nothing
    one = Classifier.fit(x, y, l2=L2, weight=weight)
    other = Classifier.fit(np.repeat(x, weight.astype(int), axis=0), np.repeat(y, weight.astype(int)), l2=L2)
    np.testing.assert_allclose(one.probabilities(x), other.probabilities(x), atol=1e-5)
    assert abs(one.probabilities(x) - Classifier.fit(x, y, l2=L2).probabilities(x)).max() > 0.01


def test_the_unit_of_a_feature_changes_nothing() -> None:
    x, y = points(0)
    unit, zero = np.array([1e-3, 1.0, 1e4, 7.0, -2.0]), np.array([5.0, 0.0, -3e4, 1.0, 9.0])
    one, other = Classifier.fit(x, y, l2=L2), Classifier.fit(x * unit + zero, y, l2=L2)
    np.testing.assert_allclose(one.probabilities(x), other.probabilities(x * unit + zero), atol=1e-5)


def test_a_feature_that_never_changed_says_nothing_later() -> None:
    x, y = points(0)
    x[:, 4] = 0.1
    classifier = Classifier.fit(x, y, l2=L2)
    changed = x.copy()
    changed[:, 4] = 1e6
    assert (classifier.probabilities(changed) == classifier.probabilities(x)).all()


def test_what_was_never_seen_proves_no_more_than_the_farthest() -> None:
    classifier = Classifier.fit(*points(0), l2=L2)
    far = classifier.mean + FARTHEST * np.eye(5) / classifier.scale
    farther = classifier.mean + 1000 * np.eye(5) / classifier.scale
    np.testing.assert_allclose(classifier.log_odds(farther), classifier.log_odds(far))
    assert abs(classifier.log_odds(far) - classifier.log_odds(classifier.mean[None])).max() > 1


def test_a_heavy_penalty_leaves_the_shares_of_the_classes() -> None:
    x, _ = points(0)
    y = np.repeat([0, 1, 2], [120, 80, 40])
    light, heavy = Classifier.fit(x, y, l2=1e-3), Classifier.fit(x, y, l2=1e6)
    np.testing.assert_allclose(heavy.probabilities(x), np.broadcast_to([1 / 2, 1 / 3, 1 / 6], (240, 3)), atol=1e-4)
    assert abs(light.weights).max() > 0.1


def test_more_features_than_points_are_no_hindrance() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 60)), np.arange(20) % 2
    assert (Classifier.fit(x, y, l2=L2).log_odds(x).argmax(1) == y).all()


def test_its_arrays_are_all_there_is_to_it() -> None:
    x, y = points(0)
    classifier = Classifier.fit(x, y, l2=L2)
    arrays = classifier.arrays()
    assert (Classifier.of(arrays | {"more": x}).log_odds(x) == classifier.log_odds(x)).all()
    halves = Classifier.of({name: array.astype(np.float16) for name, array in arrays.items()})
    np.testing.assert_allclose(halves.probabilities(x), classifier.probabilities(x), atol=0.01)
    with pytest.raises(KeyError):
        Classifier.of({name: array for name, array in arrays.items() if name != "scale"})


X, Y = points(0, 30)


@pytest.mark.parametrize(
    ("x", "y", "l2", "weight", "complaint"),
    [
        (X[:0], Y[:0], L2, None, "fit together"),
        (X[:, 0], Y, L2, None, "fit together"),
        (X, Y[1:], L2, None, "fit together"),
        (X, Y[:, None], L2, None, "fit together"),
        (X, Y, L2, np.ones(29), "fit together"),
        (np.where(X > 1, np.nan, X), Y, L2, None, "finite"),
        (X, Y, L2, np.full(30, np.inf), "finite"),
        (X, Y, L2, np.where(Y == 1, -1, 1), "not below 0"),
        (X, Y, L2, np.zeros(30), "not all 0"),
        (X, Y - 1, L2, None, "from 0 up"),
        (X, Y / 2, L2, None, "whole numbers"),
        (X, Y * 2, L2, None, "points in each"),
        (X, Y, 0.0, None, "l2"),
        (X, Y, np.nan, None, "l2"),
    ],
)
def test_what_cannot_be_fitted_is_refused(x: Any, y: Any, l2: float, weight: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Classifier.fit(x, y, l2=l2, weight=weight)
