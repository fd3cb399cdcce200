from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from emogen.settings import TrainSettings
from emogen.training.optimizer import learning_rate, make_optimizer
from tests import tiny
from tests.training import new_trainer


@pytest.mark.parametrize(
    ("warmup", "step", "done", "rate"),
    [
        (4, 0, 0.0, 0.0025),
        (4, 1, 0.0, 0.005),
        (4, 3, 0.0, 0.01),
        (4, 100, 0.25, 0.01 * (0.05 + 0.475 * (1 + math.sqrt(0.5)))),
        (4, 100, 0.5, 0.00525),
        (4, 1, 0.5, 0.005),  # still warming up in the middle of a very short training
        (4, 100, 1.0, 0.0005),
        (0, 0, 0.0, 0.01),
        (1, 0, 0.0, 0.01),
    ],
)
def test_the_learning_rate_warms_up_and_falls_to_a_twentieth(warmup: int, step: int, done: float, rate: float) -> None:
    settings = TrainSettings(learning_rate=0.01, warmup_steps=warmup)
    assert learning_rate(settings, step, done) == pytest.approx(rate, rel=1e-9)


def test_weights_decay_in_matrices_only(tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path, weight_decay=0.5, learning_rate=0.1)
    with torch.no_grad():
        for weight in trainer.model.parameters():
            weight.fill_(2.0)
            weight.grad = torch.zeros_like(weight)
    trainer.optimizer.step()
    kinds = {name: weight.ndim for name, weight in trainer.model.named_parameters()}
    assert {1, 2} == set(kinds.values())
    for name, weight in trainer.model.named_parameters():
        expected = 2.0 * (1 - 0.1 * 0.5) if weight.ndim > 1 else 2.0
        assert torch.allclose(weight, torch.tensor(expected)), name


def test_a_step_is_that_of_adam_with_the_averages_of_the_recipe() -> None:
    model = tiny.composer()
    optimizer = make_optimizer(model, TrainSettings(learning_rate=0.1, weight_decay=0))
    weight = model.enter.bias
    with torch.no_grad():
        weight.zero_()
    expected, mean, square = 0.0, 0.0, 0.0
    for step, slope in enumerate((1.0, -3.0, 0.5, 0.0), 1):
        weight.grad = torch.full_like(weight, slope)
        optimizer.step()
        mean, square = 0.9 * mean + 0.1 * slope, 0.95 * square + 0.05 * slope**2
        expected -= 0.1 * (mean / (1 - 0.9**step)) / (math.sqrt(square / (1 - 0.95**step)) + 1e-8)
        assert weight.tolist() == pytest.approx([expected] * len(weight), rel=1e-4)
