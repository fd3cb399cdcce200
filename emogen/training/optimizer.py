"""How a step changes the weights: Muon for the matrices of the blocks, AdamW for the rest, and the rate of each step.

Muon: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024). AdamW: Loshchilov and Hutter,
"Decoupled weight decay regularization" (2019).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from emogen.model.network import Composer
from emogen.settings import TrainSettings

FALLS = 0.3
"""Share of the training in which the learning rate falls. Chosen without comparison."""
BETAS = 0.9, 0.95
"""AdamW's, as in GPT-3: Brown et al., "Language models are few-shot learners" (2020), appendix B. Not compared here."""
TIMES, MOMENTUM = 20, 0.95
"""Muon's rate, relative to AdamW's, and its momentum. A step turns a matrix by about its rate, whatever the gradient:
0.02 is the rate of the source. Not compared here."""
ROUNDS, LINEAR, CUBIC, QUINTIC = 5, 3.4445, -4.7750, 2.0315
"""The iteration that makes a matrix nearly orthogonal, with the coefficients of the source."""


def learning_rate(s: TrainSettings, step: int, done: float) -> float:
    """The learning rate of a step: a linear warm-up, then constant, then straight down to zero over the last FALLS.

    Hägele et al., "Scaling laws and compute-optimal training beyond fixed training durations" (2024).

    Args:
        step: optimizer steps before this one.
        done: share of all epochs that is behind, 0..1.
    """
    warm = (step + 1) / max(s.warmup_steps, 1)
    return s.learning_rate * min(1.0, warm, (1 - done) / FALLS)


def make_optimizer(model: Composer, s: TrainSettings) -> MuonAdamW:
    """Muon on the matrices of the blocks, AdamW on the others; biases do not decay."""
    weights = dict(model.named_parameters())
    blocks = [w for name, w in weights.items() if name.startswith("blocks.")]
    others = [w for name, w in weights.items() if not name.startswith("blocks.")]
    groups = [
        {"params": blocks, "weight_decay": s.weight_decay, "muon": True},
        {"params": [w for w in others if w.ndim > 1], "weight_decay": s.weight_decay, "muon": False},
        {"params": [w for w in others if w.ndim < 2], "weight_decay": 0.0, "muon": False},
    ]
    return MuonAdamW(groups, lr=s.learning_rate, betas=BETAS, fused=True)


class MuonAdamW(torch.optim.AdamW):
    """AdamW, but Muon for the groups marked ``muon``, at TIMES their rate."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Change the weights by their gradients; no closure is called."""
        every = self.param_groups
        self.param_groups = [group for group in every if not group["muon"]]
        try:
            super().step()
        finally:
            self.param_groups = every
        for group in every:
            if group["muon"]:
                self._turn(group)

    def _turn(self, group: dict[str, Any]) -> None:
        """Muon's step: along the momentum of the gradient, made orthogonal; matrices of one shape together."""
        of_shape: dict[tuple[int, ...], list[Tensor]] = {}
        for weight in group["params"]:
            if weight.grad is not None:
                of_shape.setdefault(tuple(weight.shape), []).append(weight)
        rate = TIMES * group["lr"]
        for (rows, columns), weights in of_shape.items():
            updates = torch.stack([self._momentum(weight) for weight in weights])
            parts = updates.view(-1, columns, columns) if rows == 3 * columns else updates  # q, k and v are three
            turned = orthogonal(parts) * max(1, parts.shape[-2] / columns) ** 0.5
            for weight, update in zip(weights, turned.view_as(updates), strict=True):
                weight.mul_(1 - rate * group["weight_decay"]).sub_(update, alpha=rate)

    def _momentum(self, weight: Tensor) -> Tensor:
        """A weight's gradient with Nesterov's momentum."""
        state = self.state[weight]
        if not state:  # AdamW, which restores it, wants its steps counted
            state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(weight)}
        state["step"] += 1
        assert weight.grad is not None  # noqa: S101 (for the type checker: those without are left out)
        state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
        return weight.grad.lerp(state["momentum"], MOMENTUM)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (N, R, C) with singular values near 1 and the same singular vectors; zeros stay.

    Newton and Schulz's iteration; in bfloat16 on a GPU.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x.bfloat16() if x.is_cuda else x
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = LINEAR * x + (CUBIC * square + QUINTIC * square @ square) @ x
    return (x.mT if tall else x).to(matrices.dtype)
