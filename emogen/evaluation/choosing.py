"""Choosing among pieces by ear: the takes of one wish, and which of them is the best.

The best has the highest sum of three ranks: how well it holds together (``ear.coherence``), how near its pulse is to
that of real clips (``ear.craft``), and how likely the judge finds the quadrants that were wished. What it is worth was
measured with the second judge, which has no say here: benchmarks/recipe.md, "The best of four".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

import numpy as np

from emogen.composing.wish import Wish
from emogen.ear.craft import of_kind
from emogen.ear.fitted import Ear
from emogen.emotion import QUADRANT_OF
from emogen.music.notes import Floats, Piece

Take = TypeVar("Take", bound=Piece)

PULSE = 2.71
"""That of EMOPIA's validation clips, in bits, see ``Craft.pulse``."""
STRIDE, SEEDS = 2_654_435_761, 2**32
"""Between the seeds of two takes, and the number of seeds: the first is odd, so no two takes of a wish are the same."""


def takes(wish: Wish, count: int) -> list[Wish]:
    """Wishes for ``count`` takes: the wish itself, and others that differ in their seeds; always the same ones."""
    return [replace(wish, seed=(wish.seed + number * STRIDE) % SEEDS) for number in range(count)]


def best_of(pieces: Iterable[Take], wishes: Sequence[Wish], count: int, ear: Ear) -> Iterator[Take]:
    """The best of each wish's ``count`` takes, as they come: the pieces of ``takes`` of every wish in turn."""
    coming = iter(pieces)
    for wish in wishes:
        some = list(islice(coming, count))
        yield some[int(merit(some, wish, ear).argmax())]


def merit(pieces: Sequence[Piece], wish: Wish, ear: Ear) -> Floats:
    """How good each of N takes of a wish is (N,) beside the others: the sum of its three ranks, 0 to 3 (N - 1)."""
    opinions = ear.opinions(pieces)
    shares = [(QUADRANT_OF[name], share) for one in wish.path for name, share in one.emotion.items()]
    obeys = [sum(share * one.chance[f"Q{quadrant}"] for quadrant, share in shares) for one in opinions]
    off = [abs(of_kind(piece, "pulse")[0] - PULSE) for piece in pieces]
    coherent = [one.coherence for one in opinions]
    return _rank(coherent) + _rank(obeys) + _rank(-np.nan_to_num(off, nan=np.inf))


def _rank(values: Sequence[float] | Floats) -> Floats:
    """How many of some values (N,) are below each (N,); equal ones count half."""
    below = np.asarray(values)[:, None] > np.asarray(values)
    same = np.asarray(values)[:, None] == np.asarray(values)
    rank: Floats = below.sum(1) + (same.sum(1) - 1) / 2
    return rank
