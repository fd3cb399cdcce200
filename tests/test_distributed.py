from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from emogen.data.batches import Batch
from emogen.data.prepare import prepare
from emogen.emotion import EMOTIONS
from emogen.model.checkpoint import load_weights
from emogen.music.plan import ENTRIES
from emogen.settings import DataSettings
from emogen.training.distributed import Team
from emogen.training.shelf import found
from tests.midi_files import dataset

OPTIONS = """
[model]
size = "tiny"
d_model = 32
n_layers = 2
n_heads = 2
context_notes = 32
dropout = 0.0

[train]
epochs = 2
batch_size = 5
precision = "float32"
device = "cpu"
"""


def batch(rows: int) -> Batch:
    notes = torch.arange(rows).view(rows, 1, 1).expand(rows, 3, 4)
    emotion, plan = torch.zeros(rows, len(EMOTIONS)), torch.zeros(rows, len(ENTRIES))
    return Batch(notes, emotion, plan, torch.zeros(rows, 2), *[torch.zeros(rows, 2, 0)] * 5)  # no charts


def test_one_process_is_a_team_that_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    team = Team()
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, 2.0])
    team.meet(torch.device("cpu"))
    team.sum_gradients([weight])
    assert team.leads
    assert weight.grad.tolist() == [1, 2]
    assert team.sum(torch.tensor(3.0)).item() == 3
    assert [team.any(fact) for fact in (True, False)] == [True, False]
    assert torch.equal(team.share(batch(5)).notes, batch(5).notes)


def test_the_shares_of_a_batch_are_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        share = Team().share(batch(4))
        rows += share.notes[:, 0, 0].tolist()
        assert {len(part) for part in share} == {len(share.notes)}
    assert sorted(rows) == [0, 1, 2, 3]
    monkeypatch.setenv("RANK", "2")
    assert len(Team().share(batch(2)).notes) == 0


def train(here: Path, home: Path, processes: int, *arguments: str) -> str:
    """``emogen train`` in the folder ``here``, by so many processes; what it says."""
    here.mkdir(exist_ok=True)
    (here / "emogen.toml").write_text(OPTIONS)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("EMOGEN_")},
        "EMOGEN_HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    done = subprocess.run(
        [sys.executable, *(launch if processes > 1 else []), "-m", "emogen", "train", *arguments],
        cwd=here, env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def losses(here: Path) -> list[float]:
    lines = map(json.loads, (here / "runs/main/log.jsonl").read_text().splitlines())
    return [loss for line in lines for loss in (line["train"], line["valid"])]


@pytest.mark.slow
def test_two_processes_train_as_one_and_may_go_on_as_one(tmp_path: Path) -> None:
    home = tmp_path / "home"
    prepare(dataset(tmp_path / "made", 12), home / "data", DataSettings(workers=1), name="made")
    alone, pair, changed = tmp_path / "alone", tmp_path / "pair", tmp_path / "changed"
    train(alone, home, 1)
    told = train(pair, home, 2)
    assert told.count("epoch 2/2  train") == 1  # one process speaks
    assert len(losses(pair)) == 4
    assert losses(pair) == pytest.approx(losses(alone), abs=1e-4)
    (weights, expected) = (load_weights(found(here / "runs/main/checkpoints", "last")[0]) for here in (pair, alone))
    for name, weight in expected.items():
        assert torch.allclose(weights[name], weight, atol=1e-4), name

    shutil.copytree(pair, changed)
    assert "resuming from last" in train(changed, home, 1, "--epochs", "3")
    assert "resuming from last" in train(pair, home, 2, "--epochs", "3")
    assert losses(pair) == pytest.approx(losses(changed), abs=1e-4)
