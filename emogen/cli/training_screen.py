"""What a training shows while it runs: on the terminal, or in plain lines, and in the run's ``log.txt``."""

from __future__ import annotations

import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from emogen.cli.console import console
from emogen.errors import EmogenError

if TYPE_CHECKING:
    from emogen.model.checkpoint import EpochLoss
    from emogen.training.trainer import Trainer

LOG_EVERY_S = 30.0
"""Seconds between lines of progress in the log, and on standard error without a terminal."""
ESTIMATE_STEPS = 20
"""Steps after which the time of the whole training is estimated."""


class Screen:
    """Shows the training on the terminal, or in plain lines, and writes the run's ``log.txt``."""

    def __init__(self, trainer: Trainer) -> None:
        self.run, self.epochs = trainer.run, trainer.settings.train.epochs
        self.folder = self.run.folder
        before, after = TextColumn("epoch {task.fields[epoch]}"), TextColumn("{task.fields[facts]}")
        columns = (before, BarColumn(), MofNCompleteColumn(), after)
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task("", total=None, epoch=1, facts="")
        self.logged = time.monotonic()
        self.draws = True
        self.steps = 0

    def __enter__(self) -> Screen:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        if isinstance(error, EmogenError):
            with suppress(OSError):  # the disk may be full
                self.run.say(f"error: {error}")

    def step(self, epoch: int, batch: int, batches: int, loss: float, notes_per_s: float, left_s: float) -> None:
        """Move the bar; every LOG_EVERY_S, and after the first step, write a line into the log.

        Once, after ESTIMATE_STEPS of the training or at the end of a shorter epoch, say how long all of it takes.
        """
        facts = f"loss {loss:.3f}  {notes_per_s:,.0f} notes/s  {_time(left_s)} left"
        self.bar.update(self.task, completed=batch, total=batches, epoch=f"{epoch}/{self.epochs}", facts=facts)
        if time.monotonic() - self.logged > LOG_EVERY_S or batch == epoch == 1:
            self.say(f"epoch {epoch}/{self.epochs} batch {batch}/{batches}  {facts}", only_log=console.is_terminal)
        self.steps += 1
        if self.steps <= ESTIMATE_STEPS and (self.steps == ESTIMATE_STEPS or batch == batches):
            self.steps = ESTIMATE_STEPS
            self.say(f"about {_time(left_s)} until all {self.epochs} epochs are done")

    def epoch(self, loss: EpochLoss) -> None:
        """A line per epoch."""
        families = "  ".join(f"{name} {nats:.3f}" for name, nats in loss.valid_by_family.items())
        self.say(
            f"epoch {loss.epoch}/{self.epochs}  train {loss.train:.4f}  valid {loss.valid:.4f} nats per note "
            f"({families})  {_time(loss.seconds)}"
        )
        self.draw()

    def draw(self) -> None:
        """Redraw the run's curves.png; where that fails say so once, for a picture must not cost a training."""
        from emogen.training import curves

        try:
            curves.draw(self.run.folder)
        except Exception as error:
            if self.draws:
                self.say(f"{curves.NAME} could not be drawn: {error}")
            self.draws = False

    def say(self, text: str, only_log: bool = False) -> None:
        """A line for the user, here and in the log."""
        self.logged = time.monotonic()
        self.run.say(text)
        if self.run.folder != self.folder:
            self.folder, only_log = self.run.folder, False
            text = f"the run's folder is gone and cannot be made again: it goes on in {self.folder}\n{text}"
        if not only_log:
            with suppress(OSError):  # a terminal that is gone costs no training
                console.print(escape(text), soft_wrap=True)


class Silent:
    """The observer in processes of a team that have no screen."""

    def step(self, epoch: int, batch: int, batches: int, loss: float, notes_per_s: float, left_s: float) -> None:
        """Ignored."""

    def epoch(self, loss: EpochLoss) -> None:
        """Ignored."""

    def say(self, text: str) -> None:
        """Ignored."""


def _time(seconds: float) -> str:
    """A duration, such as "41 s", "12 min" or "3 h 05"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d}"
