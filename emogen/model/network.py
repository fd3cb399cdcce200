"""The network in PyTorch: a causal Transformer that takes one step per note.

This file is what trains, and what composes on GPUs. On a CPU ``numpy_network`` composes: the same network with the same
weights; a test holds the two together.

The four embeddings of a note are summed; pre-norm blocks read the notes; a chain of small heads draws shift, pitch,
velocity, duration in that order, each seeing those drawn before it. Attention rotates a quarter of each query and key
by the number of the note, half by its onset in seconds and a quarter by its pitch, so it sees differences: the third
note back, what was struck half a second ago (performances have no beat grid), the octave below. Three conditions enter
every step: an emotion, a plan and the time remaining. They become one vector c (B, T, C), which is added to the
embedding and scales every norm, so that a condition cannot be forgotten on the way up. With ``ModelSettings.chart`` the
beat and the chords are a fourth, see ``music.position``, ``music.relative`` and ``music.recall``; such a network turns
only every other pair of each head, so that the rest compare what notes are wherever they are, and points at earlier
notes, see ``pointer``. Pieces that grow note by note are read by ``growing``. (Above 300 lines: what is trained is read
from top to bottom.)

Shapes: B batch, T notes, D width, H heads, C width of the condition, E emotions, P plan entries.
Sources: rotary positions: Su et al., "RoFormer" (2021); RMS norm: Zhang and Sennrich (2019); norms scaled by a
condition: Perez et al., "FiLM" (2018), Peebles and Xie, "DiT" (2023); branches that begin smaller the more layers there
are: Radford et al., "Language models are unsupervised multitask learners" (GPT-2, 2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emogen.emotion import EMOTIONS
from emogen.model import rotary
from emogen.model.pointer import SENTINEL, Pointer
from emogen.model.rotary import FAR_S, OCTAVES, WAVES
from emogen.music import position, recall, relative
from emogen.music.plan import ENTRIES
from emogen.music.tokens import COLUMN, NO_NOTE, SHIFT_MS, SIZES
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
        self.since: Tensor | None = None
        """The first note (B,) that each piece remembers, if some do not remember all."""

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
        self.since = None if self.since is None else self.since[rows]

    def clear(self) -> None:
        """Forget all notes."""
        self.length = 0
        self.time_s.zero_()
        self.since = None

    def heard(self, length: int) -> Tensor | None:
        """Which notes (B or 1, 1, T, start + T) each of T new ones hears; None where they hear all before them."""
        new, old = self.length + torch.arange(length)[:, None], torch.arange(self.length + length)
        if self.since is None:
            both = self.length and length > 1  # of old and new notes
            return (old <= new)[None, None].to(self.kv.device) if both else None
        new, old, since = new.to(self.kv.device), old.to(self.kv.device), self.since[:, None, None]
        return ((old <= new) & ((old >= since) | (new < since)))[:, None]


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

    def forward(
        self, x: Tensor, gains: Sequence[Tensor], turn: Tensor, kv: Tensor | None, start: int, heard: Tensor | None
    ) -> Tensor:
        """x (B, T, D) after this block; ``gains`` of its two norms, like x; ``turn``: see rotate; ``kv``: cache."""
        x = x + self.drop(self.attend(scaled_norm(x, gains[0]), turn, kv, start, heard))
        return x + self.drop(self.down(F.gelu(self.up(scaled_norm(x, gains[1])))))

    def drop(self, x: Tensor) -> Tensor:
        """Dropout, at no cost when composing."""
        return F.dropout(x, self.dropout) if self.training else x

    def attend(self, x: Tensor, turn: Tensor, kv: Tensor | None, start: int, heard: Tensor | None) -> Tensor:
        """Attention of T new notes to themselves and, with a cache, to those ``heard`` of the ``start`` before them."""
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)  # each (B, H, T, D/H)
        (q, k), v = rotate(qkv[:2], turn), qkv[2]
        if kv is not None:
            kv[0, :, :, start : start + length] = k
            kv[1, :, :, start : start + length] = v
            k, v = kv[:, :, :, : start + length]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=heard, is_causal=heard is None and length > 1)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


class Composer(nn.Module):
    """The whole network."""

    by_number: Tensor
    by_second: Tensor
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
            self.pointers = nn.ModuleList(Pointer(width) for _ in SIZES)
        angles = rotary.angles(width // settings.n_heads, settings.context_notes, settings.chart)
        for name, table in {**angles._asdict(), "octaves": OCTAVES, "relations": relative.TABLE}.items():
            self.register_buffer(name, torch.from_numpy(table), persistent=False)
        self.register_buffer("shift_s", torch.tensor([*SHIFT_MS / 1000, 0.0], dtype=torch.float32), persistent=False)
        self.draw_weights()

    def draw_weights(self) -> None:
        """Initialise the weights at random.

        Gains, scores, the pointers' keys and the last layers of the heads are zero, so that a new network has plain
        norms and no opinion: it costs ln(size) nats per family. Embeddings have a variance of 1. A matrix keeps the
        variance of what it multiplies, but the 2 L matrices that end a branch share that variance, so that depth does
        not make the sum of them grow.
        """
        branches = 2 * self.settings.n_layers
        for name, weight in self.named_parameters():
            if weight.ndim < 2 or name.startswith(NO_OPINION) or name.endswith("key.weight"):
                nn.init.zeros_(weight)
            elif name.startswith(("embed.", "seen.", "followed.")):
                nn.init.normal_(weight)
            else:
                ends_branch = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=(weight.shape[1] * (branches if ends_branch else 1)) ** -0.5)
        if self.settings.chart:
            for family in range(len(SIZES)):
                nn.init.constant_(self.get_parameter(f"pointers.{family}.query.bias")[-1:], SENTINEL)

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return self.shift_s.device

    def is_finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        return all(bool(weight.sum().isfinite()) for weight in self.parameters())

    def take(self, weights: dict[str, Tensor]) -> None:
        """Take on the weights of another; the newest entries of plans, which it may lack, have no effect then."""
        by_entry = weights["plan.weight"].reshape(self.plan.out_features, 2, -1)  # the values; whether they are known
        missing = max(len(ENTRIES) - by_entry.shape[2], 0)
        self.load_state_dict({**weights, "plan.weight": F.pad(by_entry, (0, missing)).flatten(1)})

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
        gains, heard = self.norm_gains(condition), cache.heard(notes.shape[1]) if cache else None
        for layer, block in enumerate(self.blocks):
            x = block(x, gains[2 * layer : 2 * layer + 2], turn, cache.kv[layer] if cache else None, start, heard)
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
        angle = torch.cat([by_number, time_s[..., None] * self.by_second, by_pitch], dim=-1)[:, None]
        return turns(angle)

    def head(self, family: int, h: Tensor, told: Tensor | None = None, followed: Tensor | None = None) -> Tensor:
        """Logits (..., V) of one family from h (..., D), which has seen the families before it.

        Args:
            told: of the shift in which part of a beat each would land (..., 145); of the pitch the references (..., 4)
                that intervals and degrees are measured from.
            followed: (..., 5), as in ``forward``.
        """
        mixed = F.gelu(self.mix[family](h))
        logits = self.logits[family](mixed)
        if told is not None and family == COLUMN.shift:
            logits = logits + self.by_part(self.pulse(mixed), told)
        if told is not None and family == COLUMN.pitch:
            which = self.relations[torch.arange(relative.REFERENCES, device=h.device), told.long()]  # (..., 4, 88)
            scores = self.relative(mixed).gather(-1, which.flatten(-2))
            logits = logits + scores.view(which.shape).sum(-2)
        if followed is not None:
            length = followed[..., -1].int()
            trust = self.trust(length)[..., family] * (length > 0)
            guess = followed[..., family].long().clamp(max=SIZES[family] - 1)
            logits = logits.scatter_add(-1, guess[..., None], trust[..., None].to(logits.dtype))
        return logits

    def pointer(self, family: int) -> Pointer:
        """The pointer of a family."""
        pointer = self.pointers[family]
        assert isinstance(pointer, Pointer)  # noqa: S101 (for the type checker: a ModuleList holds any module)
        return pointer

    def by_part(self, scores: Tensor, bins: Tensor) -> Tensor:
        """The scores (..., 48) of the parts of a beat where each shift would land, (..., 145); 0 where not known."""
        return F.pad(scores, (0, 1)).gather(-1, bins.long())

    def seeing(self, h: Tensor, notes: Tensor, landing: Tensor | None = None) -> list[Tensor]:
        """h (..., D) as the head of each family receives it: having seen the families before it of the next notes
        (..., 4), and after the shift what the chart says of where it landed (..., F)."""
        states = [h]
        for family in range(len(SIZES) - 1):
            states.append(self.see(family, states[-1], notes[..., family], landing))
        return states

    def see(self, family: int, h: Tensor, drawn: Tensor, landing: Tensor | None = None) -> Tensor:
        """h (..., D) after the ids (...) drawn of one family, for the heads that follow."""
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
        """Nats (B, T, 4) by family of the targets in notes[:, 1:] of (B, T + 1, 4), and the mask (B, T) of targets.

        What is no target, as the pitch of a piece's end and padding, costs 0.
        """
        if not self.settings.chart:
            place = followed = landing = bins = references = None
        h = self(notes[:, :-1], self.condition(emotion, plan, remaining_s, place), None, followed)
        target = notes[:, 1:].long()
        told, nats = (bins, references, None, None), []
        with torch.autocast(h.device.type, enabled=False):  # relative scores are large, and differ by little
            for family, state in enumerate(self.seeing(h.float(), target, landing)):
                logits, ids = self.head(family, state, told[family], followed), target[..., family]
                if self.settings.chart:
                    cost = self.pointer(family).nats(state, logits, ids)
                else:
                    cost = F.cross_entropy(logits.mT, ids, ignore_index=NO_NOTE[family], reduction="none")
                nats.append(cost.masked_fill(ids == NO_NOTE[family], 0))
        return torch.stack(nats, dim=-1), target[..., COLUMN.shift] != NO_NOTE[COLUMN.shift]

    def loss(self, notes: Tensor, *given: Tensor) -> Tensor:
        """Summed nats of each family (4,) for predicting notes[:, 1:] of (B, T + 1, 4); see ``nats``."""
        return self.nats(notes, *given)[0].sum((0, 1))


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
