"""How a step changes the weights: AdamW, and the learning rate of each step.

AdamW: Loshchilov and Hutter, "Decoupled weight decay regularization" (2019).
"""

from __future__ import annotations

import math

import torch

from emogen.model.network import Composer
from emogen.settings import TrainSettings

FLOOR = 0.05
"""What the cosine leaves of the learning rate at the end. Chosen without comparison; GPT-3's recipe leaves a tenth."""
BETAS = 0.9, 0.95
"""AdamW's, as in GPT-3: Brown et al., "Language models are few-shot learners" (2020), appendix B. Not compared here."""


def learning_rate(s: TrainSettings, step: int, done: float) -> float:
    """The learning rate of a step: a linear warm-up, then a cosine down to FLOOR of the highest rate.

    After Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts" (2017), without the restarts.

    Args:
        step: optimizer steps before this one.
        done: share of all epochs that is behind, 0..1.
    """
    warm = (step + 1) / max(s.warmup_steps, 1)
    cosine = FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done))
    return s.learning_rate * min(1.0, warm, cosine)


def make_optimizer(model: Composer, s: TrainSettings) -> torch.optim.AdamW:
    """AdamW that decays weight matrices only, not biases."""
    decay = [w for w in model.parameters() if w.ndim > 1]
    plain = [w for w in model.parameters() if w.ndim < 2]
    groups = [{"params": decay, "weight_decay": s.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=s.learning_rate, betas=BETAS, fused=True)
