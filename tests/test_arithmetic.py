from __future__ import annotations

import time

import pytest

from emogen.training.arithmetic import speed_of_bf16


class Machine:
    """Computes nothing, in a time of its own; the first step of all takes ten times as long."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, float32_s: float, bf16_s: float, slow: tuple[int, ...] = ()):
        self.seconds, self.slow = {False: float32_s, True: bf16_s}, slow
        self.now, self.steps = 0.0, list[tuple[int, bool]]()
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def step(self, windows: int, bf16: bool) -> None:
        first, busy = not self.steps, len(self.steps) in self.slow
        self.now += windows * self.seconds[bf16] * (10 if first else 5 if busy else 1)
        self.steps.append((windows, bf16))


def test_speed_is_the_ratio_of_the_times(monkeypatch: pytest.MonkeyPatch) -> None:
    assert speed_of_bf16(Machine(monkeypatch, 0.023, 0.01).step, 8) == pytest.approx(2.3)
    assert speed_of_bf16(Machine(monkeypatch, 0.01, 0.02).step, 8) == pytest.approx(0.5)


def test_a_step_that_somebody_else_holds_up_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    for slow in ((4,), (5,), (8, 9)):
        assert speed_of_bf16(Machine(monkeypatch, 0.02, 0.01, slow).step, 8) == pytest.approx(2)


@pytest.mark.parametrize(
    ("float32_s", "windows"),
    [(0.001, 8), (0.03, 8), (0.05, 5), (0.1, 2), (0.2, 1), (9.0, 1)],
)
def test_as_many_windows_are_timed_as_take_a_moment_and_no_more_than_a_batch(
    float32_s: float, windows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, float32_s, float32_s)
    speed_of_bf16(machine.step, 8)
    assert machine.steps == [(1, False), (1, False), *[(windows, False), (windows, True)] * 4]
    assert machine.now < 3 or windows == 1
