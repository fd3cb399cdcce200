"""Reading pieces that grow note by note, in PyTorch: what composes on GPUs.

Shapes: B batch, T notes, D width, H heads, E emotions, P plan entries.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from emogen.model.network import Cache, Composer
from emogen.model.pointer import POINT
from emogen.model.rotary import Floats32
from emogen.music import position
from emogen.music.notes import Ints
from emogen.music.tokens import COLUMN, SIZES, Tokens


class Reader:
    """A batch of pieces being read, and the logits of their next notes: NumPy arrays in and out.

    Whether it is faster on a GPU than ``numpy_network`` in several processes has not been measured.
    """

    def __init__(self, model: Composer, rows: int) -> None:
        self.model, self.cache = model, Cache(model, rows)
        self.h = torch.zeros(rows, model.settings.d_model, device=model.device)
        """The state (B, D) from which the next note is drawn."""
        self.state = self.h
        """``h`` (B, D) as it was before anything of the next note was drawn."""
        self.heard: Tensor | None = None
        """What followed the longest earlier match of the last note (B, 5)."""
        self.pointed = model.settings.context_notes if model.settings.chart else 0
        self.keys = torch.empty(len(SIZES), rows, self.pointed, POINT, device=model.device)
        """What the pointers compare (families, B, notes, W), one note fewer than were read: see ``pointer``."""
        self.ids = torch.empty(rows, self.pointed, len(SIZES), dtype=torch.uint8, device=model.device)
        """The notes that these stand for."""

    @property
    def length(self) -> int:
        """Notes that are remembered."""
        return self.cache.length

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
        self.h, self.state, self.keys, self.ids = self.h[kept], self.state[kept], self.keys[:, kept], self.ids[kept]
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
        since: Ints | None = None,
    ) -> None:
        """Go on with notes (B, T, 4), the emotion (B, E), plan (B, P; NaN: unknown) and time remaining (B, T) given.

        A network that knows charts takes ``place`` (B, T, F) and ``followed`` (B, T, 5) too, see ``Composer``. With
        ``since`` a piece hears nothing from before that one (B,) of the notes read since the last ``clear``.
        """
        self.cache.since = self._here(since)
        read, heard, where = self._here(notes), self._here(followed), self._here(place)
        condition = self.model.condition(self._here(emotion), self._here(plan), self._here(remaining_s), where)
        states = self.model(read, condition, self.cache, heard)
        if self.pointed:
            self._remember(read, where, torch.cat([self.state[:, None], states[:, :-1]], dim=1))
        self.h = self.state = states[:, -1]
        self.heard = None if heard is None else heard[:, -1]

    def _remember(self, notes: Tensor, place: Tensor | None, before: Tensor) -> None:
        """Notes (B, T, 4) can be pointed at from now on, each by the state (B, T, D) after the note before it."""
        first = self.cache.length - notes.shape[1] - 1
        some = slice(max(first, 0), self.cache.length - 1)
        unknown = first < 0  # nothing was before the first note
        notes, before, place = notes[:, unknown:], before[:, unknown:], None if place is None else place[:, unknown:]
        for family, h in enumerate(self.model.seeing(before, notes, place)):
            self.keys[family, :, some] = self.model.pointer(family).key(h)
        self.ids[:, some] = notes

    def _here(self, array: npt.NDArray[Any] | None) -> Any:
        """An array as a tensor on the network's device."""
        return None if array is None else torch.from_numpy(array).to(self.model.device)

    @torch.inference_mode()
    def logits(self, family: int, told: npt.NDArray[np.uint8] | None = None, sharpness: float = 0.0) -> Floats32:
        """Logits (B, size) of one family of the next note; those before it are seen.

        Args:
            told: see ``Composer.head``.
            sharpness: of the pulse. A shift loses this many times what the score of its part of the beat is below the
                best of the parts nearby: what is drawn falls on a part that the network prefers, whichever that is. How
                likely a note is to be struck with the one before stays as it is.
        """
        model, known, where = self.model, slice(self.cache.length - 1), self._here(told)
        logits = model.head(family, self.h, where, self.heard)
        if self.pointed:
            keys, ids = self.keys[family, :, known], self.ids[:, known, family]
            since = self.cache.since
            hidden = None if since is None else torch.arange(1, self.length, device=keys.device) < since[:, None]
            logits = model.pointer(family).mixed(self.h, logits, keys, ids, hidden)
        if sharpness and where is not None and family == COLUMN.shift:
            parts = model.pulse(F.gelu(model.mix[family](self.h)))
            parts = parts - parts[:, torch.from_numpy(position.NEIGHBOURS).to(parts.device)].amax(-1)
            chord, before = logits[:, :1], logits[:, 1:]
            later = before + sharpness * model.by_part(parts, where)[:, 1:]
            later = later + before.logsumexp(-1, keepdim=True) - later.logsumexp(-1, keepdim=True)
            logits = torch.cat([chord, later], dim=-1)
        return logits.float().cpu().numpy()

    @torch.inference_mode()
    def see(self, family: int, drawn: Ints, landing: Floats32 | None = None) -> None:
        """The next note has these ids (B,) of a family; with the shift, the chart's word on its landing (B, F)."""
        self.h = self.model.see(family, self.h, self._here(drawn), self._here(landing))
