"""float32 or bfloat16: which of them trains faster on a CPU is timed, because no list of its abilities tells.

With AMX bfloat16 is faster; with AVX512-BF16 alone it depends on the processor, the size of the network and the load.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

STEP_S = 0.25
"""About how long a timed step is: as many windows as one fits, at least one and at most a whole batch."""
TURNS = 3
"""Turns that count, each of one step in float32 and one in bfloat16: a busy machine slows both."""
WORTH = 1.1
"""bfloat16 must be at least this many times as fast: of two that are equally fast float32 is the more exact one."""


def speed_of_bf16(step: Callable[[int, bool], object], windows: int) -> float:
    """How many times as fast steps are in bfloat16 as in float32: the median over TURNS turns.

    Args:
        step: computes some windows, in bfloat16 or not, and leaves nothing behind.
        windows: of a batch.
    """

    def seconds(some: int, bf16: bool) -> float:
        began = time.perf_counter()
        step(some, bf16)
        return time.perf_counter() - began

    seconds(1, False)  # whatever is done once only
    some = min(max(1, round(STEP_S / seconds(1, False))), windows)
    turns = [seconds(some, False) / seconds(some, True) for _ in range(1 + TURNS)]
    return median(turns[1:])
