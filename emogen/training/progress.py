"""Where a training stands, who watches it, and what its losses tell a person."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from emogen.model.checkpoint import EpochLoss


@dataclass
class Progress:
    """The progress of a training; with the weights and the optimizer, all that is needed to resume."""

    epoch: int = 0
    """Epochs completed."""
    batch: int = 0
    """Batches done in the current epoch."""
    step: int = 0
    """Optimizer steps taken."""
    nats: float = 0.0
    """Sum over the notes of the current epoch so far."""
    notes: int = 0
    seconds: float = 0.0
    """Time spent on the current epoch so far."""
    history: list[EpochLoss] = field(default_factory=list)

    def count(self, nats: float, notes: int, seconds: float) -> None:
        """Count a step of some nats over some notes, and its time."""
        self.batch, self.step = self.batch + 1, self.step + 1
        self.nats, self.notes, self.seconds = self.nats + nats, self.notes + notes, self.seconds + seconds


class Watch(Protocol):
    """An observer of the training."""

    def step(self, epoch: int, batch: int, batches: int, loss: float, notes_per_s: float, left_s: float) -> None:
        """A step is done: its epoch (from 1), batches done of it, its nats per note so far, time left in all."""

    def epoch(self, loss: EpochLoss) -> None:
        """An epoch is done."""

    def say(self, text: str) -> None:
        """Something a person should know."""


def advise(history: list[EpochLoss]) -> str:
    """Advice drawn from the losses, in the epoch in which it first applies; usually empty."""
    if len(history) < 4:
        return ""
    now, best = history[-1], min(history, key=lambda loss: loss.valid)
    if stalled(history) and not stalled(history[:-1]):
        return "the train loss has not fallen for 3 epochs: --fresh with a lower --learning-rate may help, or stop here"
    if now.epoch - best.epoch == 3 and not stalled(history):
        return (
            f"valid loss has not fallen since epoch {best.epoch} while train loss falls: the model overfits; "
            "'best' is kept, --patience 5 stops early, and --fresh with more --dropout or a smaller --size may help"
        )
    return ""


def stalled(history: list[EpochLoss]) -> bool:
    """Whether the train loss has not fallen in the last 3 epochs, nor the valid loss improved."""
    falls = len(history) < 4 or history[-4].train - history[-1].train >= 0.01
    return not falls and history[-1].valid > min(loss.valid for loss in history)
