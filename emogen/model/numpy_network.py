"""The network in NumPy, which composes on a CPU.

The same computation is explained in ``network``, which trains; a test holds the two together. A note is little work for
PyTorch: half of its time would go into launching operations, and a command would wait two seconds for the import. Two
things are arranged differently here: matrices are stored as a row times a matrix reads them, and the pairs that
attention rotates lie side by side, so that a rotation is one product of complex numbers. Pieces that grow note by note
are read by ``numpy_growing``.

Shapes: B batch, T notes, N = B T, D width, L layers, H heads, W width of a head, E emotions, P plan entries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from emogen.emotion import EMOTIONS
from emogen.model.rotary import FAR_S, OCTAVES, WAVES, Floats32, angles
from emogen.music import position, recall, relative
from emogen.music.plan import ENTRIES
from emogen.music.tokens import SHIFT_MS, SIZES
from emogen.settings import ModelSettings

Layer = tuple[Any, Floats32]
"""A matrix (inputs, outputs), or a ``ByteMatrix`` of ``int8``, and a bias (outputs,)."""


class _Weights:
    """Weights that are taken one after the other; ``left`` are those not taken yet.

    All raise LookupError or ValueError where there is none of that name and shape.
    """

    def __init__(self, weights: Mapping[str, Floats32]) -> None:
        self.left = dict(weights)

    def take(self, name: str, *shape: int) -> Floats32:
        """A weight as it is."""
        if self.left[name].shape != shape:
            raise ValueError(f"{name} is {self.left[name].shape}, not {shape}")
        return self.left.pop(name)

    def matrix(self, name: str, inputs: int, outputs: int) -> Floats32:
        """A layer's matrix (inputs, outputs)."""
        return np.ascontiguousarray(self.take(f"{name}.weight", outputs, inputs).T)

    def layer(self, name: str, inputs: int, outputs: int) -> Layer:
        """A layer's matrix and bias."""
        return self.matrix(name, inputs, outputs), self.take(f"{name}.bias", outputs)


class NumpyComposer:
    """The whole network."""

    def __init__(self, settings: ModelSettings, weights: Mapping[str, Floats32]) -> None:
        """Takes the weights of a ``network.Composer``, by their names there.

        Raises:
            LookupError, ValueError: they do not belong to a network with these settings.
        """
        self.settings = settings
        width, heads = settings.d_model, settings.n_heads
        self.head_width = width // heads
        self.finite = all(bool(np.isfinite(weight.sum())) for weight in weights.values())
        rest = _Weights(weights)
        take, matrix, layer = rest.take, rest.matrix, rest.layer
        tables = [take(f"embed.{family}.weight", size + 1, width) for family, size in enumerate(SIZES)]
        self.embed, self.first = np.concatenate(tables), np.cumsum([0, *map(len, tables[:-1])])
        """All embeddings, and the row (4,) at which those of each family begin."""
        self.seen = [take(f"seen.{family}.weight", size + 1, width) for family, size in enumerate(SIZES[:-1])]
        told = len(rest.left["enter.weight"].T)
        self.emotion, self.plan = matrix("emotion", len(EMOTIONS), told), matrix("plan", 2 * len(ENTRIES), told)
        self.remaining, self.enter = layer("remaining", 2 * WAVES + 1, told), layer("enter", told, width)
        gains, bias = layer("gains", told, (2 * settings.n_layers + 1) * width)
        self.gains = gains * width**0.5, (1 + bias) * width**0.5
        pairs = np.arange(self.head_width).reshape(2, -1).T.ravel()  # 0, W/2, 1, W/2 + 1, ...
        self.blocks: list[tuple[Any, Any, Any, Any]] = []
        """The matrices qkv, out, up and down of each layer, as in a ``Layer``."""
        for number in range(settings.n_layers):
            name = f"blocks.{number}"
            qkv = take(f"{name}.qkv.weight", 3 * width, width).reshape(3, heads, self.head_width, width).copy()
            qkv[:2] = qkv[:2, :, pairs]
            qkv[0] *= self.head_width**-0.5
            hidden = len(rest.left[f"{name}.up.weight"])
            out, up = matrix(f"{name}.out", width, width), matrix(f"{name}.up", width, hidden)
            down = matrix(f"{name}.down", hidden, width)
            self.blocks.append((np.ascontiguousarray(qkv.reshape(-1, width).T), out, up, down))
        self.heads = [
            (layer(f"mix.{family}", width, width // 2), layer(f"logits.{family}", width // 2, size))
            for family, size in enumerate(SIZES)
        ]
        if settings.chart:
            self._take_charts(rest, told)
        if rest.left:
            raise ValueError(f"weights of another network: {', '.join(rest.left)}")
        by_number, self.by_second, by_pitch = angles(self.head_width, settings.context_notes, settings.chart)
        self.by_number, self.by_pitch = turns(by_number), turns(by_pitch)
        self.shift_s = np.append(SHIFT_MS / 1000, 0).astype(np.float32)

    def _take_charts(self, rest: _Weights, told: int) -> None:
        """What only a network that follows charts has."""
        width = self.settings.d_model
        self.chart, self.land = rest.matrix("chart", position.WIDTH, told), rest.matrix("land", position.WIDTH, width)
        self.pulse = np.pad(rest.matrix("pulse", width // 2, position.PARTS), ((0, 0), (0, 1)))  # 0 where not known
        self.relative = rest.matrix("relative", width // 2, relative.SCORES)
        sizes = *(size + 1 for size in SIZES), recall.BUCKETS
        heard = [rest.take(f"followed.{number}.weight", size, width) for number, size in enumerate(sizes)]
        self.followed, self.first_heard = np.concatenate(heard), np.cumsum([0, *sizes[:-1]])
        self.trust = rest.take("trust.weight", recall.BUCKETS, len(SIZES))
        self.trust[0] = 0
        self.pointers: list[tuple[Floats32, Layer]] = []
        """Of each family the matrix of the keys, and the layer of the query (scaled) and the sentinel's score."""
        for family in range(len(SIZES)):
            name = f"pointers.{family}"
            key = rest.matrix(f"{name}.key", width, len(rest.left[f"{name}.key.weight"]))
            query, bias = rest.layer(f"{name}.query", width, key.shape[1] + 1)
            scale = np.append(np.full(key.shape[1], key.shape[1] ** -0.5), 1).astype(np.float32)
            self.pointers.append((key, (query * scale, bias * scale)))

    def is_finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        return self.finite

    def condition(
        self, emotion: Floats32, plan: Floats32, remaining_s: Floats32, place: Floats32 | None = None
    ) -> Floats32:
        """c (B, T, C) of emotion weights (B, E), plan (B, P; NaN: unknown) and time remaining (B, T) in s, known."""
        known = ~np.isnan(plan)
        told = np.concatenate([np.where(known, plan, 0), known], axis=1, dtype=np.float32)
        fixed = emotion @ self.emotion + told @ self.plan
        far = np.log1p(np.minimum(remaining_s, FAR_S).clip(0)) / math.log1p(FAR_S)
        angle = far[..., None] * OCTAVES
        waves = np.concatenate([np.cos(angle), np.sin(angle), np.ones_like(far)[..., None]], axis=-1, dtype=np.float32)
        c = fixed[:, None] + affine(waves, self.remaining)
        if place is not None:
            c += place @ self.chart
        return 0.5 * c * (1 + np.tanh(0.5 * c))  # SiLU


def affine(x: Floats32, layer: Layer) -> Floats32:
    """x (..., inputs) -> (..., outputs)."""
    y: Floats32 = x @ layer[0]
    y += layer[1]
    return y


def turns(angle: Floats32) -> npt.NDArray[np.complex64]:
    """Complex numbers that rotate by angles."""
    turn = np.empty(angle.shape, np.complex64)
    np.cos(angle, out=turn.real)
    np.sin(angle, out=turn.imag)
    return turn
