"""The network in PyTorch: a causal Transformer that takes one step per note.

This file is what trains, and what composes on GPUs. On a CPU ``numpy_network`` composes: the same network with the same
weights; a test holds the two together.

The four embeddings of a note are summed; pre-norm blocks read the notes; a chain of small heads draws shift, pitch,
velocity, duration in that order, each seeing those drawn before it. Attention rotates a quarter of each query and key
by the number of the note, half by its onset in seconds and a quarter by its pitch, so it sees differences: the third
note back, what was struck half a second ago (performances have no beat grid), the octave below. Three conditions enter
every step: an emotion, a plan and the time remaining. They become one vector c (B, T, C), which is added to the
embedding and scales every norm, so that a condition cannot be forgotten on the way up. With ``ModelSettings.chart`` the
beat and the chords are a fourth, see ``music.position``, ``music.relative`` and ``music.recall``. (Above 300 lines:
half is the network, half the reading of growing pieces on a GPU and the taking of older weights.)

Shapes: B batch, T notes, D width, H heads, C width of the condition, E emotions, P plan entries.
Sources: rotary positions: Su et al., "RoFormer" (2021); RMS norm: Zhang and Sennrich (2019); norms scaled by a
condition: Perez et al., "FiLM" (2018), Peebles and Xie, "DiT" (2023); branches that begin smaller the more layers there
are: Radford et al., "Language models are unsupervised multitask learners" (GPT-2, 2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emogen.emotion import EMOTIONS
from emogen.model import rotary
from emogen.model.rotary import FAR_S, OCTAVES, WAVES, Floats32
from emogen.music import position, recall, relative
from emogen.music.notes import Ints
from emogen.music.plan import ENTRIES
from emogen.music.tokens import COLUMN, NO_NOTE, SHIFT_MS, SIZES, Tokens
from emogen.settings import ModelSettings

CONDITION_WIDTH, PLAIN_CONDITION_WIDTH = 128, 64
"""C: the width of the one vector that all conditions become, with a chart and without. Chosen without comparison."""
NO_OPINION = ("gains.", "logits.", "pulse.", "relative.", "trust.", "land.")
"""Layers that begin at zero."""
FEED_FORWARD = 6
"""Width of the feed-forward layers over D. The usual is 4; whether 6 is better has not been measured."""


class Cache:
    """Keys and values of the notes read so far, allocated once: (layers, 2, B, H, context, D/H)."""

    def __init__(self, model: Composer, batch: int) -> None:
        s = model.settings
        shape = (s.n_layers, 2, batch, s.n_heads, s.context_notes, s.d_model // s.n_heads)
        self.kv = torch.empty(shape, device=model.device)
        self.length = 0
        self.time_s = torch.zeros(batch, 1, device=model.device)
        """Onset (B, 1) of the last note, from the first note on."""

    @property
    def room(self) -> int:
        """Notes that can still be added."""
        return self.kv.shape[4] - self.length

    def keep(self, rows: Tensor) -> None:
        """Drop all pieces but ``rows`` (ascending indices into the batch); only the notes read so far are copied."""
        for to, row in enumerate(rows.tolist()):
            if to != row:
                self.kv[:, :, to, :, : self.length] = self.kv[:, :, row, :, : self.length]
        self.kv, self.time_s = self.kv[:, :, : len(rows)], self.time_s[rows]

    def clear(self) -> None:
        """Forget all notes."""
        self.length = 0
        self.time_s.zero_()


class Reader:
    """A batch of pieces being read, and the logits of their next notes: NumPy arrays in and out.

    This composes on GPUs. Whether it is needed there has not been measured: no GPU was available to compare it with
    ``numpy_network`` in several processes.
    """

    def __init__(self, model: Composer, rows: int) -> None:
        self.model, self.cache = model, Cache(model, rows)
        self.h = torch.zeros(rows, model.settings.d_model, device=model.device)
        """The state (B, D) from which the next note is drawn."""
        self.heard: Tensor | None = None
        """What followed the longest earlier match of the last note (B, 5)."""

    @property
    def room(self) -> int:
        """Notes that can still be read."""
        return self.cache.room

    @torch.inference_mode()
    def clear(self) -> None:
        """Forget all notes."""
        self.cache.clear()

    @torch.inference_mode()
    def keep(self, rows: Ints) -> None:
        """Drop all pieces but ``rows`` (ascending)."""
        kept = torch.from_numpy(rows).to(self.model.device)
        self.cache.keep(kept)
        self.h = self.h[kept]
        self.heard = None if self.heard is None else self.heard[kept]

    @torch.inference_mode()
    def read(
        self,
        notes: Tokens,
        emotion: Floats32,
        plan: Floats32,
        remaining_s: Floats32,
        place: Floats32 | None = None,
        followed: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        """Go on with notes (B, T, 4), the emotion (B, E), plan (B, P; NaN: unknown) and time remaining (B, T) given.

        A network that knows charts takes ``place`` (B, T, F) and ``followed`` (B, T, 5) too, see ``Composer``.
        """
        condition = self.model.condition(*map(self._here, (emotion, plan, remaining_s, place)))
        heard = self._here(followed)
        self.h = self.model(self._here(notes), condition, self.cache, heard)[:, -1]
        self.heard = None if heard is None else heard[:, -1]

    def _here(self, array: npt.NDArray[Any] | None) -> Any:
        """An array as a tensor on the network's device."""
        return None if array is None else torch.from_numpy(array).to(self.model.device)

    @torch.inference_mode()
    def logits(self, family: int, told: npt.NDArray[np.uint8] | None = None, pulse: float = 1.0) -> Floats32:
        """Logits (B, size) of one family of the next note; those before it are seen. Told: see ``Composer.head``."""
        return self.model.head(family, self.h, self._here(told), self.heard, pulse).float().cpu().numpy()

    @torch.inference_mode()
    def see(self, family: int, drawn: Ints, landing: Floats32 | None = None) -> None:
        """The next note has these ids (B,) of a family; with the shift, the chart's word on its landing (B, F)."""
        self.h = self.model.see(family, self.h, self._here(drawn), self._here(landing))


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind a norm scaled by the condition."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        width = settings.d_model
        self.n_heads = settings.n_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, FEED_FORWARD * width, bias=False)
        self.down = nn.Linear(FEED_FORWARD * width, width, bias=False)
        self.dropout = settings.dropout  # on the residual only: inside attention the fast kernel would not be used

    def forward(self, x: Tensor, gains: Sequence[Tensor], turn: Tensor, kv: Tensor | None, start: int) -> Tensor:
        """x (B, T, D) after this block; ``gains`` of its two norms, like x; ``turn``: see rotate; ``kv``: cache."""
        x = x + self.drop(self.attend(scaled_norm(x, gains[0]), turn, kv, start))
        return x + self.drop(self.down(F.gelu(self.up(scaled_norm(x, gains[1])))))

    def drop(self, x: Tensor) -> Tensor:
        """Dropout, at no cost when composing."""
        return F.dropout(x, self.dropout) if self.training else x

    def attend(self, x: Tensor, turn: Tensor, kv: Tensor | None, start: int) -> Tensor:
        """Attention of T new notes to themselves and, with a cache, to the ``start`` notes before them."""
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)  # each (B, H, T, D/H)
        (q, k), v = rotate(qkv[:2], turn), qkv[2]
        if kv is not None:
            kv[0, :, :, start : start + length] = k
            kv[1, :, :, start : start + length] = v
            k, v = kv[:, :, :, : start + length]
        mask = None
        if start and length > 1:  # new notes see all old ones, themselves, and the new ones before them
            mask = torch.ones(length, start + length, dtype=torch.bool, device=x.device).tril(start)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None and length > 1)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


class Composer(nn.Module):
    """The whole network."""

    by_number: Tensor
    by_time: Tensor
    by_pitch: Tensor
    relations: Tensor
    octaves: Tensor
    shift_s: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        width, layers = settings.d_model, settings.n_layers
        self.embed = nn.ModuleList(nn.Embedding(size + 1, width) for size in SIZES)
        told = CONDITION_WIDTH if settings.chart else PLAIN_CONDITION_WIDTH
        self.emotion = nn.Linear(len(EMOTIONS), told, bias=False)
        self.plan = nn.Linear(2 * len(ENTRIES), told, bias=False)
        self.remaining = nn.Linear(2 * WAVES + 1, told)
        self.enter = nn.Linear(told, width)
        self.gains = nn.Linear(told, (2 * layers + 1) * width)  # of all norms at once
        self.blocks = nn.ModuleList(Block(settings) for _ in range(layers))
        self.seen = nn.ModuleList(nn.Embedding(size + 1, width) for size in SIZES[:-1])
        self.mix = nn.ModuleList(nn.Linear(width, width // 2) for _ in SIZES)
        self.logits = nn.ModuleList(nn.Linear(width // 2, size) for size in SIZES)
        if settings.chart:
            self.chart = nn.Linear(position.WIDTH, told, bias=False)
            self.land = nn.Linear(position.WIDTH, width, bias=False)
            self.pulse = nn.Linear(width // 2, position.PARTS, bias=False)
            self.relative = nn.Linear(width // 2, relative.SCORES, bias=False)
            self.followed = nn.ModuleList(nn.Embedding(size + 1, width) for size in (*SIZES, recall.BUCKETS - 1))
            self.trust = nn.Embedding(recall.BUCKETS, len(SIZES))
        head_width = width // settings.n_heads
        for name, table in (
            ("by_number", rotary.by_number(head_width, settings.context_notes)),
            ("by_time", rotary.by_second(head_width)),
            ("by_pitch", rotary.by_pitch(head_width)),
            ("octaves", OCTAVES),
            ("relations", relative.TABLE),
        ):
            self.register_buffer(name, torch.from_numpy(table), persistent=False)
        self.register_buffer("shift_s", torch.tensor([*SHIFT_MS / 1000, 0.0], dtype=torch.float32), persistent=False)
        self.draw_weights()

    def draw_weights(self) -> None:
        """Initialise the weights at random.

        Gains, scores and the last layers of the heads are zero, so that a new network has plain norms and no opinion:
        it costs ln(size) nats per family. Embeddings have a variance of 1. A matrix keeps the variance of what it
        multiplies, but the 2 L matrices that end a branch share that variance, so that depth does not make the sum
        of them grow.
        """
        branches = 2 * self.settings.n_layers
        for name, weight in self.named_parameters():
            if weight.ndim < 2 or name.startswith(NO_OPINION):
                nn.init.zeros_(weight)
            elif name.startswith(("embed.", "seen.", "followed.")):
                nn.init.normal_(weight)
            else:
                ends_branch = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=(weight.shape[1] * (branches if ends_branch else 1)) ** -0.5)

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return self.shift_s.device

    def reader(self, rows: int) -> Reader:
        """A reader of a batch of ``rows`` pieces."""
        return Reader(self, rows)

    def is_finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        return all(bool(weight.sum().isfinite()) for weight in self.parameters())

    def take(self, weights: dict[str, Tensor]) -> None:
        """Take on the weights of another. What it lacks has no effect then: the newest entries of plans, charts.

        A network of wider condition than the other has the other's in its first entries.
        """
        told, given = self.plan.out_features, len(weights["plan.weight"])
        by_entry = weights["plan.weight"].reshape(given, 2, -1)  # weights of the values, and of whether they are known
        missing = max(len(ENTRIES) - by_entry.shape[2], 0)
        taken = {**weights, "plan.weight": F.pad(by_entry, (0, missing)).flatten(1)}
        if self.settings.chart and given == PLAIN_CONDITION_WIDTH:
            rows, columns = ("emotion.weight", "plan.weight", "remaining.weight"), ("enter.weight", "gains.weight")
            taken |= {name: F.pad(taken[name], (0, 0, 0, told - given)) for name in rows}
            taken |= {name: F.pad(taken[name], (0, told - given)) for name in (*columns, "remaining.bias")}
            new = {name: weight for name, weight in self.state_dict().items() if name not in taken}
            chart = new.pop("chart.weight").clone()
            chart[:given] = 0
            taken |= {"chart.weight": chart, **{name: torch.zeros_like(weight) for name, weight in new.items()}}
        self.load_state_dict(taken)

    def condition(self, emotion: Tensor, plan: Tensor, remaining_s: Tensor, place: Tensor | None = None) -> Tensor:
        """c (B, T, C) of emotion weights (B, E; zeros: none), plan (B, P; NaN: unknown), time (B, T; NaN: unknown) and
        what a chart says of each note's onset (B, T, F; zeros: nothing)."""
        known = ~plan.isnan()
        fixed = self.emotion(emotion) + self.plan(torch.cat([plan.nan_to_num(0.0), known.float()], dim=-1))
        c = fixed[:, None] + self.remaining(time_features(remaining_s, self.octaves))
        return F.silu(c if place is None else c + self.chart(place))

    def forward(
        self,
        notes: Tensor,
        condition: Tensor,
        cache: Cache | None = None,
        followed: Tensor | None = None,
    ) -> Tensor:
        """The states h (B, T, D) after each of the notes (B, T, 4), from which the next note is drawn.

        With a cache the notes follow those that it holds, and are added to it.

        Args:
            followed: (B, T, 5), the note that followed the longest earlier match, and the class of its length.
        """
        start = cache.length if cache else 0
        turn = self.rotation(notes, cache)
        x = self.enter(condition)
        for embed, ids in zip(self.embed, notes.int().unbind(-1), strict=True):
            x = x + embed(ids)
        if followed is not None:
            for embed, ids in zip(self.followed, followed.int().unbind(-1), strict=True):
                x = x + embed(ids)
        x = F.dropout(x, self.settings.dropout, self.training)
        gains = self.norm_gains(condition)
        for layer, block in enumerate(self.blocks):
            x = block(x, gains[2 * layer : 2 * layer + 2], turn, cache.kv[layer] if cache else None, start)
        if cache:
            cache.length += notes.shape[1]
        return scaled_norm(x, gains[-1])

    def norm_gains(self, condition: Tensor) -> tuple[Tensor, ...]:
        """The gains (B, T, D) of all norms for a condition (B, T, C), see scaled_norm."""
        return ((1 + self.gains(condition)) * self.settings.d_model**0.5).chunk(2 * len(self.blocks) + 1, dim=-1)

    def rotation(self, notes: Tensor, cache: Cache | None) -> Tensor:
        """Cosines and sines (2, B, 1, T, W) of the angles of notes (B, T, 4), by number, time and pitch: see rotate."""
        start, (batch, length, _) = cache.length if cache else 0, notes.shape
        time_s = self.shift_s[notes[..., COLUMN.shift].int()].cumsum(1)
        if cache:
            time_s = time_s + cache.time_s
            cache.time_s = time_s[:, -1:]
        by_number = self.by_number[start : start + length].expand(batch, -1, -1)
        by_pitch = self.by_pitch[notes[..., COLUMN.pitch].int()]
        angle = torch.cat([by_number, time_s[..., None] * self.by_time, by_pitch], dim=-1)[:, None]
        return turns(angle)

    def head(
        self,
        family: int,
        h: Tensor,
        told: Tensor | None = None,
        followed: Tensor | None = None,
        pulse: float = 1.0,
    ) -> Tensor:
        """Logits (N, size) of one family from h (N, D), which has seen the families before it.

        Args:
            told: of the shift in which part of a beat each would land (N, 145); of the pitch the references (N, 4) that
                intervals and degrees are measured from.
            followed: (N, 5), as in ``forward``.
            pulse: by how much the scores of the parts of a beat are multiplied.
        """
        mixed = F.gelu(self.mix[family](h))
        logits = self.logits[family](mixed)
        if told is not None and family == COLUMN.shift:
            logits = logits + pulse * F.pad(self.pulse(mixed), (0, 1)).gather(1, told.long())
        if told is not None and family == COLUMN.pitch:
            which = self.relations[torch.arange(relative.REFERENCES, device=h.device), told.long()]  # (N, 4, 88)
            scores = self.relative(mixed).gather(1, which.flatten(1))
            logits = logits + scores.view(which.shape).sum(1)
        if followed is not None:
            length = followed[:, -1].int()
            trust = self.trust(length)[:, family] * (length > 0)
            guess = followed[:, family].long().clamp(max=SIZES[family] - 1)
            logits = logits.scatter_add(1, guess[:, None], trust[:, None].to(logits.dtype))
        return logits

    def see(self, family: int, h: Tensor, drawn: Tensor, landing: Tensor | None = None) -> Tensor:
        """h (..., D) after the ids (...) drawn of one family, for the heads that follow; after the shift also what the
        chart says of where it landed (..., F)."""
        h = h + self.seen[family](drawn.int())
        return h if landing is None or family != COLUMN.shift else h + self.land(landing)

    def nats(
        self,
        notes: Tensor,
        emotion: Tensor,
        plan: Tensor,
        remaining_s: Tensor,
        place: Tensor | None = None,
        followed: Tensor | None = None,
        landing: Tensor | None = None,
        bins: Tensor | None = None,
        references: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Nats (N, 4) by family of the N targets in notes[:, 1:] of (B, T + 1, 4), and the mask (B, T) of targets."""
        if not self.settings.chart:
            place = followed = landing = bins = references = None
        h = self(notes[:, :-1], self.condition(emotion, plan, remaining_s, place), None, followed)
        target = notes[:, 1:].long()
        real = target[..., COLUMN.shift] != NO_NOTE[COLUMN.shift]

        def only(given: Tensor | None) -> Tensor | None:  # padding is neither computed nor counted from here on
            return None if given is None else given[real]

        h, target, followed, landing = h[real], target[real], only(followed), only(landing)  # (N, ...)
        told = [only(bins), only(references), None, None]
        nats = []
        for family, nothing in enumerate(NO_NOTE):
            if family:
                h = self.see(family - 1, h, target[:, family - 1], landing)
            logits = self.head(family, h, told[family], followed).float()
            nats.append(F.cross_entropy(logits, target[:, family], ignore_index=nothing, reduction="none"))
        return torch.stack(nats, dim=-1), real

    def loss(self, notes: Tensor, *given: Tensor) -> Tensor:
        """Summed nats of each family (4,) for predicting notes[:, 1:] of (B, T + 1, 4); see ``nats``."""
        return self.nats(notes, *given)[0].sum(0)


def scaled_norm(x: Tensor, gain: Tensor) -> Tensor:
    """RMS norm of x (..., D) times a gain, in fewer operations than F.rms_norm takes on a CPU."""
    return x * (gain / torch.linalg.vector_norm(x, dim=-1, keepdim=True))


def turns(angle: Tensor) -> Tensor:
    """Cosines and sines (2, ..., W) of angles (..., W/2), as ``rotate`` takes them."""
    angle = torch.cat([-angle, angle], dim=-1)
    return torch.stack([angle.cos(), angle.sin()])


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """x (..., B, H, T, W) with its pairs (i, i + W/2) rotated.

    ``turn`` holds cosines and sines (2, B, 1, T, W), of the negative angle for the first of each pair: to both is added
    the other one times its sine.
    """
    cos, sin = turn.to(x.dtype)
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def time_features(remaining_s: Tensor, octaves: Tensor) -> Tensor:
    """Waves over the logarithm of the time remaining, and whether it is known (B, T, 17); all zero where it is not."""
    known = ~remaining_s.isnan()
    place = torch.log1p(remaining_s.nan_to_num(0.0).clamp(0, FAR_S)) / math.log1p(FAR_S)  # 0..1
    angle = place[..., None] * octaves
    waves = torch.cat([angle.cos(), angle.sin(), torch.ones_like(place)[..., None]], dim=-1)
    return waves * known[..., None]
