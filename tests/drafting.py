"""Drafts for the tests of composing: with a few notes, without a network."""

from __future__ import annotations

import numpy as np

from emogen.composing.drafts import Drafts
from emogen.composing.wish import Wish
from emogen.music.notes import Ints
from emogen.music.tokens import COLUMN, SHIFT_MS, Tokens, encode
from tests import tiny
from tests.music import random_piece

PLANS = tiny.plans()


def wish(seconds: float = 8, seed: int = 0, emotion: str = "happy", /, **pins: float) -> Wish:
    return Wish({emotion: 1.0}, seconds, seed, pins)


def strike(drafts: Drafts, notes: Tokens) -> None:
    """Every draft gets these notes."""
    for note in notes:
        drafts.add(np.tile(note, (len(drafts), 1)), np.full(len(drafts), SHIFT_MS[note[COLUMN.shift]]))


def random_notes(chords: int) -> Tokens:
    return encode(random_piece(1, chords, gap_ms=(40, 200)))


def drawn(*shift: int, pitch: int = 0) -> Ints:
    """Notes (B, 4) being drawn, as rules receive them: of each draft the shift's id, and one pitch for all."""
    note = np.zeros((len(shift), 4), dtype=np.int64)
    note[:, COLUMN.shift], note[:, COLUMN.pitch] = shift, pitch
    return note
