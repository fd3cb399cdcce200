"""A very small training on random music: a step takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from emogen.data.corpus import Corpus
from emogen.model.checkpoint import EpochLoss
from emogen.settings import ModelSettings, Settings, TrainSettings
from emogen.training.run import Run
from emogen.training.trainer import Trainer
from tests.music import corpus_of, random_tokens

CONTEXT = 32
SHAPE: dict[str, Any] = {
    "size": "tiny",
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 2,
    "context_notes": CONTEXT,
    "chart": False,
}
STEADY: dict[str, Any] = {"device": "cpu", "threads": 1, "precision": "float32"}
SPLIT = (0, 0, 0, 1, 2)
"""The splits of the clips, in turn."""


def settings(dropout: float = 0.1, **train: Any) -> Settings:
    """A tiny network, two epochs of batches of four, and no save of ``last`` within an epoch."""
    options: dict[str, Any] = {"epochs": 2, "batch_size": 4, "warmup_steps": 4, "save_every_s": 1e6} | STEADY | train
    return Settings(model=ModelSettings(**SHAPE, dropout=dropout), train=TrainSettings(**options))


def music(seed: int = 0, clips: int = 20) -> Corpus:
    """Random clips of 1 to 50 notes with all emotions, in all splits."""
    rng = np.random.default_rng(seed)
    notes = [random_tokens(rng, int(length)) for length in rng.integers(1, 51, clips)]
    corpus = corpus_of(notes, np.arange(clips) % 6, np.resize(SPLIT, clips))
    manifest = corpus.manifest.model_copy(update={"name": f"music {seed}", "fingerprint": f"{seed + 1:016x}"})
    return replace(corpus, manifest=manifest)


def new_trainer(runs: Path, corpus: Corpus | None = None, dropout: float = 0.1, **train: Any) -> Trainer:
    """A trainer at the beginning of the run ``tiny``."""
    run = Run(runs, "tiny")
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    return Trainer(corpus or music(), settings(dropout, **train), run)


class Notebook:
    """Somebody who writes down what is told of a training, and can do something after a number of steps."""

    def __init__(self, after: int = -1, do: Callable[[], None] = lambda: None) -> None:
        self.after, self.do = after, do
        self.steps: list[tuple[int, int, int, float, float, float]] = []
        self.losses: list[EpochLoss] = []
        self.said: list[str] = []

    def step(self, epoch: int, batch: int, batches: int, loss: float, notes_per_s: float, left_s: float) -> None:
        self.steps.append((epoch, batch, batches, loss, notes_per_s, left_s))
        if len(self.steps) == self.after:
            self.do()

    def epoch(self, loss: EpochLoss) -> None:
        self.losses.append(loss)

    def say(self, text: str) -> None:
        self.said.append(text)
