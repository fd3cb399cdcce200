"""Weights of one byte, for composing a few pieces on a CPU: to read its weights is most of the work of a note.

Only the weights are quantised. PyTorch's dynamic quantisation, in which the activations of a batch share one scale and
so its pieces change each other, is no faster for a few rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOST_ROWS = 8
"""With more rows than that, float32 is faster."""
LEAST_WEIGHTS = 32_768
"""Layers with fewer weights are quickly read as they are."""
STRIDE = 16
"""PyTorch's kernel reads so many weights at a time; of a layer that is not a multiple it reads what is not there."""


class FewRows(nn.Module):
    """A linear layer that takes a byte of each weight for a few rows; for many rows it is the layer as it was."""

    weight: Tensor
    scale: Tensor

    def __init__(self, exact: nn.Linear) -> None:
        super().__init__()
        self.exact = exact
        scale = exact.weight.detach().abs().amax(1).clamp(min=1e-12) / 127  # of each output; 0 / 0 is no number
        self.register_buffer("weight", (exact.weight.detach() / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale.bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., outputs); a few rows pass through bfloat16."""
        if x.numel() > MOST_ROWS * x.shape[-1]:
            return self.exact(x)
        rows = x.reshape(-1, x.shape[-1]).bfloat16()
        y = torch._weight_int8pack_mm(rows, self.weight, self.scale).float().view(*x.shape[:-1], -1)
        return y if self.exact.bias is None else y + self.exact.bias


def shrink(model: nn.Module) -> None:
    """Give a network's larger linear layers weights of one byte too, in place."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and child.weight.numel() >= LEAST_WEIGHTS and in_strides(child):
                setattr(parent, name, FewRows(child))


def in_strides(layer: nn.Linear) -> bool:
    """Whether PyTorch's kernel can compute a layer."""
    return layer.in_features % STRIDE == layer.out_features % STRIDE == 0
