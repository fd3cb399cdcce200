"""int8 weights, for composing a few pieces on a CPU: most of the work of a note is reading the weights.

Only the weights are quantised, with one scale per output. The kernel is PyTorch's, so this needs its import; PyTorch's
dynamic quantisation, in which the activations of a batch share a scale so that its pieces influence each other, is no
faster for a few rows.
"""

from __future__ import annotations

import numpy as np
import torch

from emogen.model.numpy_network import NumpyComposer
from emogen.model.rotary import Floats32

MOST_ROWS = 12
"""Largest number of rows for which int8 is faster than float32."""
LEAST_WEIGHTS = 32_768
"""Smaller matrices stay float32: they are read quickly."""
STRIDE = 16
"""PyTorch's kernel reads this many weights at a time, also beyond the end of a matrix that is not a multiple of it."""


class ByteMatrix:
    """A matrix (inputs, outputs): a few rows are multiplied by its int8 weights, many rows by its float32 weights."""

    __array_ufunc__ = None  # so that NumPy leaves ``rows @ matrix`` to this class

    def __init__(self, exact: Floats32) -> None:
        self.exact = exact
        scale = np.maximum(np.abs(exact).max(0), 1e-12) / 127  # of each output; 0 / 0 would be NaN
        self.weight = torch.from_numpy(np.ascontiguousarray(np.rint(exact / scale).T.astype(np.int8)))
        self.scale = torch.from_numpy(scale).bfloat16()

    def __rmatmul__(self, x: Floats32) -> Floats32:
        """x (N, inputs) -> (N, outputs); a few rows pass through bfloat16."""
        if len(x) > MOST_ROWS:
            return x @ self.exact
        y = torch._weight_int8pack_mm(torch.from_numpy(x).bfloat16(), self.weight, self.scale)
        return y.float().numpy()


def shrink(network: NumpyComposer) -> None:
    """Replace the larger matrices of a network by ``ByteMatrix``, in place."""
    network.gains = shrunk(network.gains[0]), network.gains[1]
    network.heads = [((shrunk(mix), bias), logits) for (mix, bias), logits in network.heads]
    network.blocks = [(shrunk(qkv), shrunk(out), shrunk(up), shrunk(down)) for qkv, out, up, down in network.blocks]


def shrunk(matrix: Floats32 | ByteMatrix) -> Floats32 | ByteMatrix:
    """The matrix as a ``ByteMatrix``, if it is large and PyTorch's kernel can multiply it."""
    if isinstance(matrix, ByteMatrix) or matrix.size < LEAST_WEIGHTS or any(side % STRIDE for side in matrix.shape):
        return matrix
    return ByteMatrix(matrix)
