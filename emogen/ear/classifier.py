"""A small classifier: multinomial logistic regression with an L2 penalty, on features that it standardises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emogen.music.notes import Floats

FARTHEST = 4.0
"""Standardised features are clipped to this many standard deviations: an outlier proves no more than that."""

STEPS = 2000
CLOSE_ENOUGH = 1e-7
"""The search for the weights ends when no entry of the gradient is larger."""


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """Tells K classes apart by F features; make one with ``fit``, or with ``of`` from what ``arrays`` gave."""

    mean: Floats
    """(F,): mean of each feature over the training points."""
    scale: Floats
    """(F,): 1 / standard deviation of each feature; 1 for a constant feature."""
    weights: Floats
    """(F, K): log odds per standard deviation; each row sums to 0."""
    intercept: Floats
    """(K,): log odds of a point whose features all have their means; sums to 0."""

    @classmethod
    def fit(
        cls,
        x: npt.NDArray[Any],
        y: npt.NDArray[np.integer[Any]],
        *,
        l2: float,
        weight: npt.NDArray[Any] | None = None,
    ) -> Classifier:
        """The classifier with the lowest loss on points ``x`` (N, F) of the classes ``y`` (N,) in 0..K-1.

        The loss is the mean cross entropy in nats, each point counting by its ``weight`` (N,), plus ``l2`` / 2 times
        the squared norm of the weights (the intercept is not penalised); ``l2`` is above 0.

        Raises:
            ValueError: no points, shapes that do not fit, numbers that are not finite, a negative class or weight, a
                class without points, weights that are all 0, or ``l2`` not above 0.
        """
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y)
        weight = np.ones(len(x)) if weight is None else np.asarray(weight, dtype=np.float64)
        if x.ndim != 2 or x.size == 0 or y.shape != x.shape[:1] or weight.shape != x.shape[:1]:
            raise ValueError(f"points {x.shape}, classes {y.shape} and weights {weight.shape} do not fit together")
        if not np.isfinite(x).all() or not np.isfinite(weight).all() or weight.min() < 0 or weight.sum() <= 0:
            raise ValueError("points and weights must be finite; weights not below 0, and not all 0")
        if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or not np.bincount(y).all():
            raise ValueError("classes must be whole numbers from 0 up, with points in each")
        if not 0 < l2 < np.inf:
            raise ValueError(f"l2 must be above 0, not {l2}")
        share = weight / weight.sum()
        mean = share @ x
        deviation = np.sqrt(share @ (x - mean) ** 2)
        constant = deviation <= 1e-9 * (1 + np.abs(mean))
        scale = 1 / np.where(constant, 1, deviation)  # the weight of a constant feature comes out as 0
        weights = _least_loss(_standardise(x, mean, scale), np.eye(int(y.max()) + 1)[y], share, l2)
        return cls(mean, scale, weights[:-1], weights[-1])

    def log_odds(self, x: npt.NDArray[Any]) -> Floats:
        """Scores (N, K) of points (N, F): the logarithms of their probabilities, up to a constant per row."""
        standardised = _standardise(np.asarray(x, dtype=np.float64), self.mean, self.scale)
        return standardised @ self.weights + self.intercept

    def probabilities(self, x: npt.NDArray[Any]) -> Floats:
        """Probabilities (N, K) of the classes for points (N, F); every row sums to 1."""
        return softmax(self.log_odds(x))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Its arrays by name, to be written to a file."""
        return asdict(self)

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Classifier:
        """The classifier that ``arrays`` came from (in any precision; other entries are ignored).

        Raises:
            KeyError: an array is missing.
            ValueError: arrays do not fit together, or hold what is not a number.
        """
        made = cls(**{name: np.asarray(arrays[name], dtype=np.float64) for name in cls.__dataclass_fields__})
        features, classes = made.weights.shape
        if not made.mean.shape == made.scale.shape == (features,) or made.intercept.shape != (classes,):
            raise ValueError("arrays do not fit together")
        if not all(np.isfinite(array).all() for array in made.arrays().values()):
            raise ValueError("not all numbers are finite")
        return made


def softmax(scores: Floats) -> Floats:
    """Probabilities (..., K) in proportion to exp(scores)."""
    odds = np.exp(scores - scores.max(-1, keepdims=True))
    probabilities: Floats = odds / odds.sum(-1, keepdims=True)
    return probabilities


def _standardise(x: Floats, mean: Floats, scale: Floats) -> Floats:
    """Points (N, F) in standard deviations from the mean, at most FARTHEST."""
    return np.clip((x - mean) * scale, -FARTHEST, FARTHEST)


def _least_loss(x: Floats, truth: Floats, share: Floats, l2: float) -> Floats:
    """Weights (F + 1, K) with the lowest loss for points (N, F), the intercept last; ``truth`` (N, K), ``share`` (N,).

    Newton's method with one upper bound of the curvature for all steps (Böhning, "Multinomial logistic
    regression algorithm", Annals of the Institute of Statistical Mathematics 44, 1992). Nesterov's momentum,
    restarted whenever it points uphill (O'Donoghue and Candès, "Adaptive restart for accelerated gradient schemes",
    Foundations of Computational Mathematics 15, 2015), saves most of the steps.
    """
    x = np.hstack([x, np.ones((len(x), 1))])
    penalty = np.append(np.full(x.shape[1] - 1, l2), 1e-12)[:, None]
    step = np.linalg.inv(x.T @ (x * share[:, None]) / 2 + np.diag(penalty[:, 0]))
    weights = ahead = np.zeros((x.shape[1], truth.shape[1]))
    momentum = 0
    for _ in range(STEPS):
        slope = x.T @ ((softmax(x @ ahead) - truth) * share[:, None]) + penalty * ahead
        if np.abs(slope).max() < CLOSE_ENOUGH:
            break
        following = ahead - step @ slope
        moved = following - weights
        momentum = 0 if (slope * moved).sum() > 0 else momentum + 1
        weights, ahead = following, following + momentum / (momentum + 3) * moved
    return ahead
