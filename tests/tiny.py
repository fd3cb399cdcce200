"""A very small network of random weights, its plans, and a checkpoint of it: nothing is trained in the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from emogen.composing.voice import Voice
from emogen.emotion import EMOTIONS
from emogen.model import checkpoint
from emogen.model.checkpoint import DatasetFacts, EpochLoss, Meta
from emogen.model.network import Composer
from emogen.model.numpy_network import NumpyComposer
from emogen.music.plan import ENTRIES, PlanTable
from emogen.music.tokens import COLUMN, SHIFT_MS
from emogen.settings import ModelSettings
from emogen.training import shelf
from tests.music import PLAN_MEAN, PLAN_SD

SETTINGS = ModelSettings(size="tiny", d_model=32, n_layers=2, n_heads=2, context_notes=32, dropout=0.0, chart=False)


def composer(settings: ModelSettings = SETTINGS, seed: int = 0) -> Composer:
    """A network in which nothing is zero as in a fresh one: every weight counts, every condition has its effect.

    What it draws varies; about six notes a second, like music.
    """
    torch.manual_seed(seed)
    model = Composer(settings)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2)
        model.get_parameter(f"logits.{COLUMN.shift}.bias").sub_(torch.from_numpy(SHIFT_MS / 200).float())
    return model.eval()


def in_numpy(model: Composer) -> NumpyComposer:
    """The network that composes on a CPU, with the same weights."""
    return NumpyComposer(model.settings, {name: weight.numpy() for name, weight in model.state_dict().items()})


def plans(seed: int = 0) -> PlanTable:
    """A table of twenty plans of each emotion."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(PLAN_MEAN, PLAN_SD, (20 * len(EMOTIONS), len(ENTRIES)))
    return PlanTable.of(rows.astype(np.float32), np.repeat(np.arange(len(EMOTIONS)), 20), seed)


def meta(model: Composer, run: str = "tiny") -> Meta:
    """What a checkpoint of the network says of itself."""
    dataset = DatasetFacts(name="random", fingerprint="0" * 16, clips={})
    made = Meta.of(model, plans(), dataset, run=run, epoch=0, step=0, history=(), train={})
    return made.model_copy(update={"emogen": "0", "created": "2024-01-01T00:00:00+00:00"})


def save(runs: Path, name: str = "best_epoch_000_loss_17.4740", run: str = "tiny") -> Path:
    """A checkpoint of ``composer`` in the folder ``runs``."""
    model = composer()
    path = runs / run / "checkpoints" / name
    checkpoint.save(path, meta(model, run), model.state_dict())
    return path


def at(epoch: int, step: int = 0, loss: float = 9.0, run: str = "main") -> Meta:
    """What a checkpoint says of itself after so many epochs and steps."""
    history = tuple(
        EpochLoss(epoch=number, train=9.0, valid=loss, valid_by_family={}, seconds=1.0)
        for number in range(1, epoch + 1)
    )
    return meta(composer(), run).model_copy(update={"epoch": epoch, "step": step, "history": history})


def put(folder: Path, kind: str, meta: Meta) -> Path:
    """Save a checkpoint of a kind, with a trainer's state where it is resumable."""
    path = folder / shelf.name(kind, meta)
    checkpoint.save(path, meta, {"weight": torch.ones(2)}, {"place": meta.step} if kind in shelf.RESUMABLE else None)
    return path


def voice(runs: Path) -> Voice:
    """The voice of a checkpoint of ``composer`` in the folder ``runs``."""
    return Voice.open(str(save(runs)))
