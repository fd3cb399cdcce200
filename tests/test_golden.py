"""What a refactor must not change: the bytes of one piece (less its manifest), and the losses of twenty steps.

A change that is meant to alter either records it afresh in a commit of its own that says so.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from emogen.music.midi import midi_bytes, read_piece
from tests.conftest import Run
from tests.training import Notebook, new_trainer

PIECE = "e4700adfe5b37a6ae2d08e6dace64f4d001fb47e6eefb33333ac5e27e137655d"
LOSSES = (
    17.60699, 17.55694, 17.63483, 17.64514, 17.63189, 17.63068, 17.61852, 17.81663, 17.5689, 17.53413,
    17.53734, 17.53106, 17.95506, 17.64285, 17.38723, 17.48749, 17.42525, 17.39385, 17.34253, 17.30597,
)  # fmt: skip


def test_the_same_seed_still_gives_the_same_bytes(run: Run) -> None:
    arguments = ("--emotion", "sad", "--seconds", "10", "--seed", "7", "--checkpoint", "default", "--out", "piece.mid")
    code, _, err = run("generate", *arguments)
    assert not code, err
    assert hashlib.sha256(midi_bytes(read_piece(Path("piece.mid")))).hexdigest() == PIECE


def test_twenty_steps_still_have_the_same_losses(tmp_path: Path) -> None:
    notebook = Notebook()
    trainer = new_trainer(tmp_path, epochs=10)
    assert trainer.learn(notebook)
    losses = [loss for *_, loss, _, _ in notebook.steps][:20]
    assert losses == pytest.approx(LOSSES, abs=2e-4)
