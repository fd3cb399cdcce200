"""Weights of one byte, for composing a few pieces on a CPU: to read its weights is most of the work of a note.

Only the weights are quantised, each output by its own scale. PyTorch has the kernel, so this needs its import; its
dynamic quantisation, in which the activations of a batch share a scale and so its pieces change each other, is no
faster for a few rows.
"""

from __future__ import annotations

import numpy as np
import torch

from emogen.model.numpy_network import NumpyComposer
from emogen.model.rotary import Floats32

MOST_ROWS = 12
"""With more rows than that, float32 is faster."""
LEAST_WEIGHTS = 32_768
"""Matrices of fewer weights are quickly read as they are."""
STRIDE = 16
"""PyTorch's kernel reads so many weights at a time; of a matrix that is not a multiple it reads what is not there."""


class ByteMatrix:
    """A matrix (inputs, outputs) that a few rows are multiplied with in one byte a weight, and many rows as it was."""

    __array_ufunc__ = None  # so that NumPy leaves ``rows @ matrix`` to this class

    def __init__(self, exact: Floats32) -> None:
        self.exact = exact
        scale = np.maximum(np.abs(exact).max(0), 1e-12) / 127  # of each output; 0 / 0 is no number
        self.weight = torch.from_numpy(np.ascontiguousarray(np.rint(exact / scale).T.astype(np.int8)))
        self.scale = torch.from_numpy(scale).bfloat16()

    def __rmatmul__(self, x: Floats32) -> Floats32:
        """x (N, inputs) -> (N, outputs); a few rows pass through bfloat16."""
        if len(x) > MOST_ROWS:
            return x @ self.exact
        y = torch._weight_int8pack_mm(torch.from_numpy(x).bfloat16(), self.weight, self.scale)
        return y.float().numpy()


def shrink(network: NumpyComposer) -> None:
    """Give the larger matrices of a network weights of one byte too, in place."""
    network.gains = shrunk(network.gains[0]), network.gains[1]
    network.heads = [((shrunk(mix), bias), logits) for (mix, bias), logits in network.heads]
    network.blocks = [(shrunk(qkv), shrunk(out), shrunk(up), shrunk(down)) for qkv, out, up, down in network.blocks]


def shrunk(matrix: Floats32 | ByteMatrix) -> Floats32 | ByteMatrix:
    """A matrix in one byte a weight, if it is large and PyTorch's kernel can compute it."""
    if isinstance(matrix, ByteMatrix) or matrix.size < LEAST_WEIGHTS or any(side % STRIDE for side in matrix.shape):
        return matrix
    return ByteMatrix(matrix)
