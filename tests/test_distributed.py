from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
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
from tests.conftest import Run
from tests.midi_files import dataset

EPOCHS = 8  # as many as let a signal come before the end
OPTIONS = f"""
[model]
size = "tiny"
d_model = 32
n_layers = 2
n_heads = 2
context_notes = 32
dropout = 0.0

[train]
epochs = {EPOCHS}
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


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    prepare(dataset(folder / "made", 12), folder / "data", DataSettings(workers=1), name="made")
    return folder


def environment(home: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("EMOGEN_")},
        "EMOGEN_HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }


def train_as_two(here: Path, home: Path, *arguments: str) -> str:
    """``emogen train`` in the folder ``here``, by two processes that torchrun starts; what it says."""
    here.mkdir(exist_ok=True)
    (here / "emogen.toml").write_text(OPTIONS)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launch, "-m", "emogen", "train", *arguments],
        cwd=here, env=environment(home), capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def pair(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run that two processes trained from its beginning to its end, and what they said."""
    here = tmp_path_factory.mktemp("trained") / "pair"
    return here, train_as_two(here, home)


def losses(here: Path) -> list[float]:
    lines = map(json.loads, (here / "runs/main/log.jsonl").read_text().splitlines())
    return [loss for line in lines for loss in (line["train"], line["valid"])]


def weights(here: Path) -> dict[str, torch.Tensor]:
    return load_weights(found(here / "runs/main/checkpoints", "last")[0])


@pytest.mark.slow
def test_two_processes_train_as_one_and_may_go_on_as_one(
    home: Path, pair: tuple[Path, str], tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOGEN_HOME", str(home))

    def train_alone(here: Path, *arguments: str) -> str:
        monkeypatch.chdir(here)
        code, _, said = run("train", *arguments)
        assert code == 0, said
        return said

    trained, said = pair
    alone, again, changed = (tmp_path / name for name in ("alone", "again", "changed"))
    for here in (again, changed):
        shutil.copytree(trained, here)
    alone.mkdir()
    (alone / "emogen.toml").write_text(OPTIONS)
    train_alone(alone)
    assert said.count(f"epoch {EPOCHS}/{EPOCHS}  train") == 1  # one process speaks
    assert len(losses(trained)) == 2 * EPOCHS
    assert losses(trained) == pytest.approx(losses(alone), abs=1e-4)
    found_weights, expected = weights(trained), weights(alone)
    for name, weight in expected.items():
        assert torch.allclose(found_weights[name], weight, atol=1e-4), name

    longer = ("--epochs", str(EPOCHS + 1))
    assert "resuming from last" in train_alone(changed, *longer)
    assert "resuming from last" in train_as_two(again, home, *longer)
    assert losses(again) == pytest.approx(losses(changed), abs=1e-4)


# ---- the processes of --processes


class Training:
    """``emogen train --processes 2`` under way, in a group of processes for itself, as a shell starts it."""

    def __init__(self, here: Path, home: Path, *arguments: str) -> None:
        here.mkdir(exist_ok=True)
        (here / "emogen.toml").write_text(OPTIONS)
        self.said = here / "said"
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "emogen", "train", *arguments], cwd=here, env=environment(home),
                stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def wait_for(self, text: str) -> None:
        until = time.monotonic() + 300
        while text not in self.said.read_text():
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < until, self.said.read_text()
            time.sleep(0.05)

    def others(self) -> list[int]:
        """The processes of the group beside the first that train."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                group, line = os.getpgid(int(folder.name)), (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if group == self.process.pid != int(folder.name) and b"spawn_main" in line:
                found.append(int(folder.name))
        return found

    def end(self) -> tuple[int, str]:
        return self.process.wait(300), self.said.read_text()


PAIR = ("--processes", "2")
LONG = (*PAIR, "--epochs", "1000", "--fresh")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the other processes are found in /proc")


@pytest.mark.slow
@on_linux
def test_two_processes_stop_at_a_ctrl_c_that_reaches_both_and_go_on_bit_for_bit(
    home: Path, pair: tuple[Path, str], tmp_path: Path
) -> None:
    parted = Training(tmp_path / "parted", home, *PAIR)
    parted.wait_for("batch 1/")
    os.killpg(parted.process.pid, signal.SIGINT)
    code, said = parted.end()
    assert code == 130, said
    assert "2 processes of 1 thread each" in said
    assert "stopped and saved in epoch" in said
    assert "Traceback" not in said
    assert not parted.others()
    parted = Training(tmp_path / "parted", home)  # as many processes as before
    assert parted.end()[0] == 0
    end = weights(tmp_path / "parted")
    assert all(torch.equal(weight, end[name]) for name, weight in weights(pair[0]).items())


@pytest.mark.slow
@on_linux
def test_a_process_that_is_killed_is_told_and_the_run_goes_on_from_its_last_save(home: Path, tmp_path: Path) -> None:
    training = Training(tmp_path / "run", home, *LONG, "--save-every-s", "0.1")
    training.wait_for("batch 1/")
    while not (saved := found(tmp_path / "run/runs/main/checkpoints", "last")):
        time.sleep(0.05)
    (other,) = training.others()
    os.kill(other, signal.SIGKILL)
    code, said = training.end()
    assert code == 1, said
    assert said.splitlines()[-2:] == [
        "error: a process of the training was killed (out of memory?)",
        "hint: emogen train resumes from the last save; with --processes 1 it takes less memory",
    ]
    assert "Traceback" not in said
    assert saved


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_other_processes_end_with_the_first_even_if_it_is_killed(
    number: signal.Signals, home: Path, tmp_path: Path
) -> None:
    training = Training(tmp_path / "run", home, *LONG)
    training.wait_for("batch 1/")
    assert len(training.others()) == 1
    training.process.send_signal(number)
    assert training.end()[0] == {signal.SIGTERM: 130, signal.SIGKILL: -signal.SIGKILL}[number]
    until = time.monotonic() + 60
    while training.others():
        assert time.monotonic() < until
        time.sleep(0.05)
