"""One step a note against its flat-token twin: same grid, layers, widths, heads, conditions, windows and optimizer.

The twin reads and draws one token a step, four a note (shift, pitch, velocity, duration), so its sequences are four
times longer. Nothing else differs: its attention turns by the token's number and by its note's onset and pitch, as far
as they are drawn, and its heads are ours without what they see of each other (the layers show it to them).

    python benchmarks/flat_twin.py --data EMOPIA_1.0 --size tiny --epochs 2
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from emogen.data.corpus import open_corpus
from emogen.model.checkpoint import EpochLoss
from emogen.model.network import Composer, scaled_norm, turns
from emogen.music.tokens import COLUMN, NO_NOTE
from emogen.settings import load
from emogen.training.optimizer import make_optimizer
from emogen.training.run import Run
from emogen.training.trainer import Trainer


class Flat(Composer):
    """The twin: takes the same batches as ``Composer``."""

    def nats(
        self, notes: Tensor, emotion: Tensor, plan: Tensor, remaining_s: Tensor, *charts: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """As ``Composer.nats``; the twin knows no charts."""
        batch, length = notes.shape[0], notes.shape[1] - 1
        condition = self.condition(emotion, plan, remaining_s).repeat_interleave(4, dim=1)  # (B, 4 T, C)
        x = torch.stack([embed(notes[..., family].int()) for family, embed in enumerate(self.embed)], dim=2)
        x = x.flatten(1, 2)[:, 3:-1] + self.enter(condition)  # from the duration of note 0 to the velocity of note T
        gains = self.norm_gains(condition)
        x = F.dropout(x, self.settings.dropout, self.training)
        for layer, block in enumerate(self.blocks):
            x = block(x, gains[2 * layer : 2 * layer + 2], self.turns(notes), None, 0, None)
        h = scaled_norm(x, gains[-1]).view(batch, length, 4, -1)
        target = notes[:, 1:].long()
        real = target[..., COLUMN.shift] != NO_NOTE[COLUMN.shift]
        h, target = h[real], target[real]
        nats = [
            F.cross_entropy(
                self.head(family, h[:, family]).float(), target[:, family], ignore_index=nothing, reduction="none"
            )
            for family, nothing in enumerate(NO_NOTE)
        ]
        return torch.stack(nats, dim=-1), real

    def turns(self, notes: Tensor) -> Tensor:
        """Cosines and sines of the angles of the tokens, as ``Composer.rotation`` gives those of notes."""
        batch, length = notes.shape[0], notes.shape[1] - 1
        time_s = self.shift_s[notes[..., COLUMN.shift].int()].cumsum(1)
        time_s = time_s.repeat_interleave(4, dim=1)[:, 3:-1]
        pitch = notes[..., COLUMN.pitch].int().repeat_interleave(4, dim=1)[:, 3:-1].clone()
        pitch[:, 1::4] = NO_NOTE[COLUMN.pitch]  # a shift is drawn before its note's pitch
        number = torch.arange(4 * length)[:, None] * self.by_number[1]
        by_number = number.expand(batch, -1, -1)
        angle = torch.cat([by_number, time_s[..., None] * self.by_second, self.by_pitch[pitch]], dim=-1)[:, None]
        return turns(angle)


class Printer:
    """Prints a line an epoch."""

    def step(self, epoch: int, batch: int, batches: int, loss: float, notes_per_s: float, left_s: float) -> None:
        """Nothing."""

    def epoch(self, loss: EpochLoss) -> None:
        """The line."""
        families = "  ".join(f"{name} {nats:.3f}" for name, nats in loss.valid_by_family.items())
        print(f"  epoch {loss.epoch}: valid {loss.valid:.4f} ({families}), {loss.seconds:.0f} s", flush=True)

    def say(self, text: str) -> None:
        """A line."""
        print(text)


def main() -> None:
    """Train both, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="")
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    train = {"epochs": args.epochs, "threads": args.threads, "device": "cpu", "precision": "float32"}
    settings = load({"model": {"size": args.size}, "train": train}).settings
    corpus = open_corpus(settings.paths.data_home, args.data)
    print(f"{platform.machine()}, torch {torch.__version__}, {args.threads} threads, size {args.size}")
    for kind in (Composer, Flat):
        with tempfile.TemporaryDirectory() as folder, Run(Path(folder), "twin") as run:
            trainer = Trainer(corpus, settings, run)
            torch.manual_seed(0)
            trainer.model = kind(settings.model)
            trainer.optimizer = make_optimizer(trainer.model, settings.train)
            print("one step a note" if kind is Composer else "one step a token", flush=True)
            began = time.perf_counter()
            trainer.learn(Printer())
            print(f"  in all {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
