"""Pieces that grow note by note, in NumPy: the twin of ``growing``, for a ``numpy_network``.

Shapes as there: B batch, T notes, N = B T, D width, W width of a head.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from emogen.model.numpy_network import NumpyComposer, affine, turns
from emogen.model.rotary import Floats32
from emogen.music import position, relative
from emogen.music.notes import Ints
from emogen.music.tokens import COLUMN, SIZES, Tokens

LEAST = 1e-37
"""As ``pointer.LEAST``."""
READ_AT_ONCE = 32
"""Largest number of notes of each piece that are read at once, so that attention takes little memory."""


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
