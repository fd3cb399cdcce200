"""Pointers: a note may be like an earlier one, whatever the network thinks of notes in general.

Each family of the next note has a pointer beside its head. It compares the state from which the note is drawn with the
states from which the earlier notes of the window were drawn; the more alike, the likelier is the id that was drawn
there. A sentinel, one more thing to point at, stands for the head: what the pointer gives to it, the head's own
probabilities share.

Source: Merity et al., "Pointer sentinel mixture models" (2016).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POINT = 64
"""Width of what is compared."""
LEAST = 1e-37
"""The least chance: its logarithm is finite, and it is never drawn."""
SENTINEL = 8.0
"""The sentinel's score in a new network: with nothing learnt, 500 earlier notes together have a chance of .14."""


class Pointer(nn.Module):
    """The pointer of one family; T notes are known, S are pointed at, ids are below V."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(width, POINT, bias=False)
        self.query = nn.Linear(width, POINT + 1)  # the last is the sentinel's score

    def scores(self, h: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, T, S) of keys (B, S, W) for states h (B, T, D), and of the sentinel (B, T, 1)."""
        query, sentinel = self.query(h).split([POINT, 1], dim=-1)
        return (query @ keys.mT).float() * POINT**-0.5, sentinel.float()

    def nats(self, h: Tensor, logits: Tensor, ids: Tensor) -> Tensor:
        """What the ids (B, T) drawn from states h (B, T, D) cost, (B, T), the head giving logits (B, T, V).

        Ids of V or more, which stand for no note, cost nothing that makes sense.
        """
        scores, sentinel = self.scores(h, self.key(h))
        earlier = torch.ones(scores.shape[1:], dtype=torch.bool, device=h.device).tril(-1)
        same = earlier & (ids[:, :, None] == ids[:, None, :])
        possible = ids.clamp(max=logits.shape[-1] - 1)[..., None]
        head = sentinel + F.log_softmax(logits.float(), dim=-1).gather(-1, possible)
        none = float("-inf")
        given = torch.cat([scores.masked_fill(~same, none), head], dim=-1).logsumexp(-1)
        return torch.cat([scores.masked_fill(~earlier, none), sentinel], dim=-1).logsumexp(-1) - given

    def mixed(self, h: Tensor, logits: Tensor, keys: Tensor, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Logarithms (B, V) of the probabilities of a next id, drawn from h (B, D) after ids (B, S) with their keys.

        Those that are ``hidden`` (B, S) are not pointed at.
        """
        scores, sentinel = self.scores(h[:, None], keys)
        if hidden is not None:
            scores = scores.masked_fill(hidden[:, None], float("-inf"))
        share = torch.cat([scores[:, 0], sentinel[:, 0]], dim=-1).softmax(-1)
        chance = logits.float().softmax(-1) * share[:, -1:]
        return chance.scatter_add(1, ids.long(), share[:, :-1]).clamp(min=LEAST).log()
