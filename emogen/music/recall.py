"""What was played before: the longest earlier match of the last pitches, anywhere in the piece, and what followed it.

After a figure that has been heard already, the best guess for the next note is the one that followed it then. A
network sees a window of some hundred notes; most repeats in real music lie further back. So the search is made
outside of it, in whole pieces, and the network receives its result: the note that followed, and how long the match is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from emogen.music.notes import Ints

LONGEST = 32
"""Pitches in a row beyond which a longer match says no more."""
BUCKETS = 13
"""Classes of the length of a match: 0 (none) to 8, 9 to 12, 13 to 16, 17 to 24, 25 to 32."""
BUCKET = np.searchsorted([*range(1, 10), 13, 17, 25], np.arange(LONGEST + 1), side="right").astype(np.uint8)
"""The class of each length, (33,)."""


def matches(pitch: npt.NDArray[np.integer]) -> tuple[Ints, Ints]:
    """For each note of a piece (N,) the end of its longest earlier match, and the length of that.

    The match of note i ends at ``end[i]`` < i: the last ``length[i]`` pitches up to there are those up to i. Of equally
    long ones the latest is taken; lengths above LONGEST count as LONGEST. Where there is none, the end is -1 and the
    length 0. What followed is note ``end[i] + 1``, which may be i itself.

    Stretches of k pitches get numbers, equal ones the same, by sorting those of k - 1: O(LONGEST N log N).
    """
    count = len(pitch)
    end, length = np.full(count, -1), np.zeros(count, dtype=np.int64)
    number = np.asarray(pitch, dtype=np.int64)
    for k in range(1, LONGEST + 1):
        if k > 1:  # a stretch of k is one of k - 1 and a pitch
            number = number[:-1] * 256 + pitch[k - 1 :]
        order = np.argsort(number, kind="stable")
        arranged = number[order]
        same = arranged[1:] == arranged[:-1]
        if not same.any():
            break
        later, earlier = order[1:][same] + k - 1, order[:-1][same] + k - 1
        end[later], length[later] = earlier, k
        group = np.concatenate([[0], np.cumsum(~same)])
        number = np.empty_like(number)
        number[order] = group
    return end, length


class Recall:
    """The same for B pieces that grow note by note: one comparison with all earlier notes per note."""

    def __init__(self, rows: int) -> None:
        self.pitch, self.run = np.zeros((2, rows, 256), dtype=np.int64)
        """The pitches (B, room) so far; and, one place further on, how many up to each of them equal those up to the
        last one."""
        self.count = 0

    def add(self, pitch: npt.NDArray[np.integer]) -> None:
        """One more pitch (B,) for each piece."""
        n = self.count
        if n + 1 == self.pitch.shape[1]:
            self.pitch, self.run = (np.concatenate([a, np.zeros_like(a)], axis=1) for a in (self.pitch, self.run))
        self.pitch[:, n] = pitch
        self.run[:, 1 : n + 1] = (self.run[:, :n] + 1) * (self.pitch[:, :n] == self.pitch[:, n, None])
        self.count += 1

    def latest(self) -> tuple[Ints, Ints]:
        """Of each piece (B,) the end and length of its last note's longest match, as ``matches`` gives them."""
        run = np.minimum(self.run[:, : self.count], LONGEST)
        end = self.count - 1 - run[:, ::-1].argmax(axis=1)
        length = run[np.arange(len(run)), end]
        return np.where(length > 0, end - 1, -1), length

    def keep(self, rows: Ints) -> None:
        """Go on with some of the pieces (indices) only."""
        self.pitch, self.run = self.pitch[rows], self.run[rows]
