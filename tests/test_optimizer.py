from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from emogen.settings import TrainSettings
from emogen.training.optimizer import MOMENTUM, TIMES, learning_rate, make_optimizer, orthogonal
from tests import tiny
from tests.training import new_trainer


@pytest.mark.parametrize(
    ("warmup", "step", "done", "rate"),
    [
        (4, 0, 0.0, 0.0025),
        (4, 1, 0.0, 0.005),
        (4, 3, 0.0, 0.01),
        (4, 100, 0.25, 0.01),
        (4, 100, 0.7, 0.01),
        (4, 100, 0.85, 0.005),
        (4, 1, 0.5, 0.005),  # still warming up in the middle of a very short training
        (4, 100, 1.0, 0.0),
        (0, 0, 0.0, 0.01),
        (1, 0, 0.0, 0.01),
    ],
)
def test_the_learning_rate_warms_up_stays_and_falls_to_zero(warmup: int, step: int, done: float, rate: float) -> None:
    settings = TrainSettings(learning_rate=0.01, warmup_steps=warmup)
    assert learning_rate(settings, step, done) == pytest.approx(rate, rel=1e-9)


def test_weights_decay_in_matrices_only(tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path, weight_decay=0.5, learning_rate=0.01)
    with torch.no_grad():
        for weight in trainer.model.parameters():
            weight.fill_(2.0)
            weight.grad = torch.zeros_like(weight)
    trainer.optimizer.step()
    kinds = {name: weight.ndim for name, weight in trainer.model.named_parameters()}
    assert {1, 2} == set(kinds.values())
    for name, weight in trainer.model.named_parameters():
        rate = 0.01 * (TIMES if name.startswith("blocks.") else 1)
        expected = 2.0 * (1 - rate * 0.5) if weight.ndim > 1 else 2.0
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


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 48, 8), (2, 8, 48)])
def test_an_orthogonal_matrix_turns_as_its_own_and_has_singular_values_near_one(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    turned = orthogonal(matrices)
    values = torch.linalg.svdvals(turned)
    assert values.min() > 0.5
    assert values.max() < 1.3
    u, s, v = torch.linalg.svd(matrices, full_matrices=False)
    assert torch.allclose(
        u.mT @ turned @ v.mT,
        torch.diag_embed(values.sort(descending=True)[0] * 0 + torch.diagonal(u.mT @ turned @ v.mT, dim1=-2, dim2=-1)),
        atol=1e-3,
    )  # no singular vector is mixed with another
    assert s.min() > 0
    assert not orthogonal(torch.zeros(shape)).any()


def test_a_step_of_the_blocks_is_that_of_muon() -> None:
    """By hand for a matrix of one singular value, which stays what it is but for its size."""
    model = tiny.composer()
    optimizer = make_optimizer(model, TrainSettings(learning_rate=0.001, weight_decay=0))
    weight = next(weight for name, weight in model.named_parameters() if name.endswith("0.up.weight"))
    rows, columns = weight.shape
    row, column = torch.randn(rows, 1), torch.randn(1, columns)
    direction = (row @ column) / (row.norm() * column.norm())
    mean, before = 0.0, weight.detach().clone()
    for slope in (1.0, -3.0):
        weight.grad = slope * direction
        optimizer.step()
        mean = MOMENTUM * mean + (1 - MOMENTUM) * slope
        push = (1 - MOMENTUM) * slope + MOMENTUM * mean
        moved = ((before - weight.detach()) * direction).sum().item()
        size = TIMES * 0.001 * (rows / columns) ** 0.5
        assert moved == pytest.approx(math.copysign(size, push), rel=0.35)
        assert torch.allclose(before - weight.detach(), moved * direction, atol=1e-5)
        before = weight.detach().clone()


def test_q_k_and_v_are_three_matrices() -> None:
    model = tiny.composer()
    optimizer = make_optimizer(model, TrainSettings(learning_rate=0.001, weight_decay=0))
    weight = next(weight for name, weight in model.named_parameters() if name.endswith("0.qkv.weight"))
    before, width = weight.detach().clone(), weight.shape[1]
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    for part in (before - weight.detach()).view(3, width, width):
        values = torch.linalg.svdvals(part / (TIMES * 0.001))
        assert 0.3 < values.min() < values.max() < 1.3
