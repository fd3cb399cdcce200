"""The network in NumPy, which composes on a CPU.

The same computation is explained in ``network``, which trains; a test holds the two together. A note is little work for
PyTorch: half of its time would go into launching operations, and a command would wait two seconds for the import. Two
things are arranged differently here: matrices are stored as a row times a matrix reads them, and the pairs that
attention rotates lie side by side, so that a rotation is one product of complex numbers.

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
from emogen.music.notes import Ints
from emogen.music.plan import ENTRIES
from emogen.music.tokens import COLUMN, SHIFT_MS, SIZES, Tokens
from emogen.settings import ModelSettings

Layer = tuple[Any, Floats32]
"""A matrix (inputs, outputs), or a ``ByteMatrix`` of ``int8``, and a bias (outputs,)."""
LEAST = 1e-37
"""As ``pointer.LEAST``."""
READ_AT_ONCE = 32
"""Largest number of notes of each piece that are read at once, so that attention takes little memory."""


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


class NumpyReader:
    """A batch of pieces being read, and the logits of their next notes."""

    def __init__(self, network: NumpyComposer, rows: int) -> None:
        s = network.settings
        self.network = network
        self.keys, self.values = np.zeros(
            (2, s.n_layers, rows, s.n_heads, s.context_notes, network.head_width), np.float32
        )
        self.length = 0
        self.time_s = np.zeros((rows, 1), np.float32)
        """Onset (B, 1) of the last note, from the first note on."""
        self.h = self.state = np.zeros((rows, s.d_model), np.float32)
        """The state (B, D) from which the next note is drawn; and as it was before anything of that was drawn."""
        self.heard: npt.NDArray[np.uint8] | None = None
        """What followed the longest earlier match of the last note (B, 5), see ``Composer.forward``."""
        self.pointed = s.context_notes if s.chart else 0
        width = network.pointers[0][0].shape[1] if s.chart else 0
        self.pointers = np.zeros((len(SIZES), rows, self.pointed, width), np.float32)
        """What the pointers compare (families, B, notes, W), one note fewer than were read: see ``pointer``."""
        self.ids = np.zeros((rows, self.pointed, len(SIZES)), np.uint8)
        """The notes that these stand for."""
        self.since: Ints | None = None
        """The first note (B,) that each piece remembers, if some do not remember all."""

    @property
    def room(self) -> int:
        """Notes that can still be read."""
        return self.keys.shape[3] - self.length

    def clear(self) -> None:
        """Forget all notes."""
        self.length = 0
        self.time_s[:] = 0
        self.since = None

    def keep(self, rows: Ints) -> None:
        """Drop all pieces but ``rows`` (ascending); only the notes read so far are copied."""
        for cache in (self.keys, self.values):
            for to, row in enumerate(rows):
                if to != row:
                    cache[:, to, :, : self.length] = cache[:, row, :, : self.length]
        self.keys, self.values = self.keys[:, : len(rows)], self.values[:, : len(rows)]
        self.time_s, self.h, self.state = self.time_s[rows], self.h[rows], self.state[rows]
        self.pointers, self.ids = self.pointers[:, rows], self.ids[rows]
        self.heard = None if self.heard is None else self.heard[rows]
        self.since = None if self.since is None else self.since[rows]

    def read(
        self,
        notes: Tokens,
        emotion: Floats32,
        plan: Floats32,
        remaining_s: Floats32,
        place: Floats32 | None = None,
        followed: npt.NDArray[np.uint8] | None = None,
        since: Ints | None = None,
    ) -> None:
        """Read notes (B, T, 4), given emotion (B, E), plan (B, P) and time remaining (B, T) in s.

        See ``growing.Reader.read``.
        """
        self.since = since
        for at in range(0, notes.shape[1], READ_AT_ONCE):
            some = slice(at, at + READ_AT_ONCE)
            where = None if place is None else place[:, some]
            heard = None if followed is None else followed[:, some]
            condition = self.network.condition(emotion, plan, remaining_s[:, some], where)
            self._read(notes[:, some], condition, where, heard)
        self.heard = None if followed is None else followed[:, -1]

    def _read(
        self,
        notes: Tokens,
        condition: Floats32,
        place: Floats32 | None,
        followed: npt.NDArray[np.uint8] | None,
    ) -> None:
        """As ``network.Composer.forward`` with a cache."""
        net, (rows, length, _) = self.network, notes.shape
        start, stop = self.length, self.length + length
        self.length = stop
        turn = self.turn(notes, start)
        c = condition.reshape(rows * length, -1)
        x = affine(c, net.enter) + net.embed[notes.reshape(-1, 4) + net.first].sum(1)  # (N, D)
        if followed is not None:
            x += net.followed[followed.reshape(-1, 5) + net.first_heard].sum(1)
        gains = affine(c, net.gains).reshape(rows * length, -1, x.shape[1])  # (N, 2 L + 1, D)
        hidden = self._hidden(start, stop)
        for layer, (qkv, out, up, down) in enumerate(net.blocks):
            heads = (scaled_norm(x, gains[:, 2 * layer]) @ qkv).reshape(rows, length, 3, -1, net.head_width)
            turned = (heads[:, :, :2].view(np.complex64) * turn).view(np.float32)
            self.keys[layer, :, :, start:stop] = turned[:, :, 1].swapaxes(1, 2)
            self.values[layer, :, :, start:stop] = heads[:, :, 2].swapaxes(1, 2)
            p = turned[:, :, 0].swapaxes(1, 2) @ self.keys[layer, :, :, :stop].swapaxes(2, 3)  # (B, H, T, stop)
            if hidden is not None:
                p += hidden
            p -= p.max(-1, keepdims=True)
            np.exp(p, out=p)
            y = (p @ self.values[layer, :, :, :stop]) / p.sum(-1, keepdims=True)
            x += y.swapaxes(1, 2).reshape(x.shape) @ out
            x += gelu(scaled_norm(x, gains[:, 2 * layer + 1]) @ up) @ down
        if not self.pointed:
            last = slice(length - 1, None, length)
            self.h = scaled_norm(x[last], gains[last, -1])
            return
        states = scaled_norm(x, gains[:, -1]).reshape(rows, length, -1)
        self._remember(notes, place, np.concatenate([self.state[:, None], states[:, :-1]], axis=1))
        self.h = self.state = states[:, -1]

    def _hidden(self, start: int, stop: int) -> Floats32 | None:
        """Minus infinity (B or 1, 1, T, stop) where one of T new notes does not hear another; None: all hear all."""
        new, old = np.arange(start, stop)[:, None], np.arange(stop)
        if self.since is None:
            return np.where(old > new, np.float32(-np.inf), np.float32(0))[None, None] if stop - start > 1 else None
        since = self.since[:, None, None]
        return np.where((old > new) | (old < since) & (new >= since), np.float32(-np.inf), np.float32(0))[:, None]

    def _remember(self, notes: Tokens, place: Floats32 | None, before: Floats32) -> None:
        """As ``growing.Reader._remember``."""
        first = self.length - notes.shape[1] - 1
        some, unknown = slice(max(first, 0), self.length - 1), int(first < 0)
        h, notes = before[:, unknown:], notes[:, unknown:]
        for family, (key, _) in enumerate(self.network.pointers):
            if family:
                h = h + self.network.seen[family - 1][notes[..., family - 1]]
            if family == 1 and place is not None:
                h += place[:, unknown:] @ self.network.land
            self.pointers[family, :, some] = h @ key
        self.ids[:, some] = notes

    def turn(self, notes: Tokens, start: int) -> npt.NDArray[np.complex64]:
        """The complex numbers (B, T, 1, 1, W/2) by which attention rotates the pairs of notes (B, T, 4)."""
        net = self.network
        time_s = self.time_s + net.shift_s[notes[..., COLUMN.shift]].cumsum(1)
        self.time_s = time_s[:, -1:]
        by_number = np.broadcast_to(
            net.by_number[start : start + notes.shape[1]], (*notes.shape[:2], net.by_number.shape[1])
        )
        parts = by_number, turns(time_s[..., None] * net.by_second), net.by_pitch[notes[..., COLUMN.pitch]]
        return np.concatenate(parts, axis=-1)[:, :, None, None]

    def logits(self, family: int, told: npt.NDArray[np.uint8] | None = None, sharpness: float = 0.0) -> Floats32:
        """Logits (B, size) of one family of the next note; those before it are seen. See ``growing.Reader.logits``."""
        net, rows = self.network, np.arange(len(self.h))
        mix, last = net.heads[family]
        mixed = gelu(affine(self.h, mix))
        logits = affine(mixed, last)
        off_beat = np.zeros((), np.float32)
        if told is not None and family == COLUMN.shift:
            parts, where = mixed @ net.pulse, (rows[:, None], told)
            logits += parts[where]
            if sharpness:
                parts[:, :-1] -= parts[:, position.NEIGHBOURS].max(-1)
                off_beat = np.float32(sharpness) * parts[where][:, 1:]
        if told is not None and family == COLUMN.pitch:
            which = relative.TABLE[np.arange(relative.REFERENCES), told]  # (B, 4, 88)
            logits += (mixed @ net.relative)[rows[:, None, None], which].sum(1)
        if self.heard is not None:
            guess = np.minimum(self.heard[:, family], SIZES[family] - 1)
            logits[rows, guess] += net.trust[self.heard[:, -1], family]
        if self.pointed:
            logits = self._pointed(family, logits)
        if off_beat.ndim:
            later = logits[:, 1:] + off_beat
            logits[:, 1:] = later + log_sum(logits[:, 1:]) - log_sum(later)
        return logits

    def _pointed(self, family: int, logits: Floats32) -> Floats32:
        """As ``pointer.Pointer.mixed``."""
        query = affine(self.h, self.network.pointers[family][1])
        known = slice(self.length - 1)
        scores = (self.pointers[family, :, known] @ query[:, :-1, None])[..., 0]
        if self.since is not None:
            scores[np.arange(1, self.length) < self.since[:, None]] = -np.inf
        share = softmax(np.concatenate([scores, query[:, -1:]], axis=1))
        chance = softmax(logits) * share[:, -1:]
        at = np.arange(len(logits))[:, None] * logits.shape[1] + self.ids[:, known, family]
        chance += np.bincount(at.ravel(), share[:, :-1].ravel(), logits.size).reshape(logits.shape)
        return np.log(np.maximum(chance, LEAST))

    def see(self, family: int, drawn: Ints, landing: Floats32 | None = None) -> None:
        """The next note has these ids (B,) of a family; with the shift, the chart's word on its landing (B, F)."""
        self.h = self.h + self.network.seen[family][drawn]
        if landing is not None:
            self.h += landing @ self.network.land


def affine(x: Floats32, layer: Layer) -> Floats32:
    """x (..., inputs) -> (..., outputs)."""
    y: Floats32 = x @ layer[0]
    y += layer[1]
    return y


def scaled_norm(x: Floats32, gain: Floats32) -> Floats32:
    """RMS norm of x (N, D) times a gain, which includes the factor sqrt(D)."""
    return x * (gain / np.sqrt(np.einsum("nd,nd->n", x, x))[:, None])


def softmax(x: Floats32) -> Floats32:
    """Probabilities (N, V) of logits (N, V)."""
    p = np.exp(x - x.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return p


def log_sum(x: Floats32) -> Floats32:
    """The logarithm (N, 1) of the sum of the exponentials of x (N, V)."""
    most = x.max(-1, keepdims=True)
    return most + np.log(np.exp(x - most).sum(-1, keepdims=True))


def turns(angle: Floats32) -> npt.NDArray[np.complex64]:
    """Complex numbers that rotate by angles."""
    turn = np.empty(angle.shape, np.complex64)
    np.cos(angle, out=turn.real)
    np.sin(angle, out=turn.imag)
    return turn


def gelu(x: Floats32) -> Floats32:
    """GELU: x times the cumulative normal distribution; the error function is exact to 1.5e-7.

    Source: Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964), 7.1.26.
    """
    t = np.abs(x)
    bell = x * x
    bell *= -0.5
    np.exp(bell, out=bell)
    near = t * -0.5
    t *= 0.3275911 * math.sqrt(0.5)
    t += 1
    np.reciprocal(t, out=t)
    tail: Floats32 = np.multiply(t, 1.061405429, dtype=np.float32)
    for a in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail += a
        tail *= t
    tail *= bell
    tail *= near  # -|x| / 2 (1 - erf(|x| / sqrt 2))
    tail += np.maximum(x, 0)
    return tail
