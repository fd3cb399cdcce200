"""The processes that train beside the first. What they run is here, without PyTorch, which each would import."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from emogen.errors import EmogenError
from emogen.system.processes import companions


def answers(say_ready: Callable[[], None], place: int, at: int, late: bool) -> None:
    """A companion in whose way something comes, before or after it is ready, where its place is ``at``."""
    if late:
        say_ready()
    if place == at:
        raise EmogenError("no room", "take less")
    if place == -at:
        os.kill(os.getpid(), signal.SIGKILL)
    raise ConnectionError("the one in the other place is gone")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("at", "error", "hint"), [(2, "no room", "take less"), (-2, "was killed", "once more")])
def test_why_a_companion_is_gone_is_told(at: int, error: str, hint: str, late: bool) -> None:
    at, number = (at, 2) if late else (at // 2, 1)
    entered = False

    def accompanied() -> None:
        nonlocal entered
        with companions(number, answers, (at, late), "once more"):
            entered = True
            raise ConnectionError("somebody is gone")

    with pytest.raises(EmogenError, match=error) as caught:
        accompanied()
    assert caught.value.hint == hint
    assert entered is late, "who enters waits until all are ready"
