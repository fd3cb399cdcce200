from __future__ import annotations

import errno
import io
import itertools
import json
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

import emogen
from emogen.cli import main
from emogen.cli import training_screen as screen
from emogen.data.prepare import prepare
from emogen.model.checkpoint import META, TRAINER, WEIGHTS, load_trainer, load_weights, read_meta
from emogen.model.network import Composer
from emogen.settings import DataSettings, flag
from emogen.training import curves
from emogen.training.run import Run
from emogen.training.shelf import found, resumable
from emogen.training.trainer import Trainer
from tests import conftest
from tests.hostile import forget_checksums
from tests.midi_files import dataset

Command = Callable[..., tuple[int, str, str]]

OPTIONS = {
    "model.size": "tiny",
    "model.d_model": 32,
    "model.n_layers": 2,
    "model.n_heads": 2,
    "model.context_notes": 32,
    "train.epochs": 2,
    "train.batch_size": 4,
    "train.device": "cpu",
    "train.threads": 1,
    "train.precision": "float32",
    "train.save_every_s": 1000,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two prepared corpora, of which ``other`` is not the current one."""
    folder = tmp_path_factory.mktemp("home")
    for name, songs in (("other", 8), ("made", 12)):
        prepare(dataset(folder / name, songs), folder / "data", DataSettings(workers=1), name=name)
    return folder


@pytest.fixture
def emogen_train(run: Command, home: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """``emogen train`` with a tiny network and prepared data: exit code, standard output, standard error."""
    monkeypatch.setenv("EMOGEN_HOME", str(home))
    Path("emogen.toml").write_text("\n".join(f"{option} = {json.dumps(value)}" for option, value in OPTIONS.items()))
    return lambda *arguments: run("train", *arguments)


MAIN = Path("runs/main")


def names(folder: Path = MAIN / "checkpoints") -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def last(run: Path = MAIN) -> Path:
    (path,) = found(run / "checkpoints", "last")
    return path


def epochs_logged(run: Path = MAIN) -> list[int]:
    return [json.loads(line)["epoch"] for line in (run / "log.jsonl").read_text().splitlines()]


def after_steps(monkeypatch: pytest.MonkeyPatch, steps: int, do: Callable[[], None]) -> None:
    """Do something at the end of a training's step of that number, once."""
    step, left = Trainer.step, [steps]

    def counted(self: Trainer, *arguments: Any) -> tuple[float, int]:
        result = step(self, *arguments)
        left[0] -= 1
        if left[0] == 0:
            do()
        return result

    monkeypatch.setattr(Trainer, "step", counted)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def interrupt_twice() -> None:
    interrupt()
    interrupt()


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def trained(emogen_train: Command, *arguments: str) -> None:
    code, _, err = emogen_train(*arguments)
    assert code == 0, err


# ---- the whole way


def test_precision_auto_says_what_was_timed_and_a_run_that_goes_on_is_not_timed_again(emogen_train: Command) -> None:
    code, _, err = emogen_train("--precision", "auto", "--epochs", "1")
    assert code == 0, err
    facts, _, timed, *_ = err.splitlines()  # what is trained is said before anything takes time
    said = re.fullmatch(
        r"computing in (float32|bfloat16): bfloat16 was timed to be \S+ times as fast as float32", timed
    )
    assert said
    assert "on cpu, arithmetic to be timed, 1 thread" in facts
    code, _, err = emogen_train("--precision", "auto", "--epochs", "2")
    assert code == 0, err
    assert f"on cpu, {said[1]}, 1 thread" in err.splitlines()[0]


def test_training_tells_in_plain_lines_what_it_does_and_what_comes_next(emogen_train: Command) -> None:
    code, out, err = emogen_train()
    assert (code, out) == (0, "")
    lines = err.splitlines()
    assert re.fullmatch(
        r"run 'main': 0\.1 M parameters on cpu, float32, 1 thread; \d+ training clips of made", lines[0]
    )
    number = r"\d+\.\d+"
    families = rf"\(shift {number}  pitch {number}  velocity {number}  duration {number}\)"
    needs = rf"the bundled voice needs {number} nats per note on these validation songs; --init default begins with it"
    assert re.fullmatch(needs, lines[1])
    assert re.fullmatch(rf"epoch 1/2 batch 1/\d+  loss {number}  [\d,]+ notes/s  \d+ s left", lines[2])
    assert re.fullmatch(r"about \d+ s until all 2 epochs are done", lines[3])  # before the first of them is
    for epoch, line in enumerate(lines[4:6], 1):
        pattern = rf"epoch {epoch}/2  train {number}  valid {number} nats per note {families}  \d+ s"
        assert re.fullmatch(pattern, line), line
    assert re.fullmatch(rf"best: epoch [12], valid {number} nats per note, in runs/main", lines[6])
    assert re.fullmatch(
        rf"the bundled voice is better \({number}\), and composes unless --checkpoint is given", lines[7]
    )
    assert lines[8:] == ["next: emogen generate --emotion happy --seconds 30"]
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", err)


def test_nobody_composes_with_a_run_that_is_worse_than_the_bundled_voice_unasked(
    emogen_train: Command, run: conftest.Run
) -> None:
    emogen_train()
    meta = read_meta(found(MAIN / "checkpoints", "best")[0])
    assert meta.voice_loss is not None
    assert meta.voice_loss < (meta.valid_loss or 0)
    log = (MAIN / "log.jsonl").read_text().splitlines()
    assert all(json.loads(line)["voice"] == pytest.approx(meta.voice_loss) for line in log)
    for choice, composes in (((), "the bundled voice ("), (("--checkpoint", "main"), "main/best_")):
        _, _, err = run("generate", "-e", "sad", "-s", "5", "--seed", "1", "--force", *choice)
        assert f"composing with {composes}" in err
        assert ("whose best has" in err and "--checkpoint main takes it" in err) == (not choice)
    listed = run("ckpt", "list")[2]
    assert f"the bundled voice needs {meta.voice_loss:.4f} on the validation songs of run 'main'" in listed
    assert f"{meta.voice_loss:.4f} nats per note on the same songs" in run("ckpt", "show", "main")[1]


def test_a_run_leaves_its_settings_logs_and_checkpoints(emogen_train: Command) -> None:
    _, _, err = emogen_train("--seed", "5")
    assert names(MAIN) == sorted([".lock", "checkpoints", "curves.png", "log.jsonl", "log.txt", "settings.json"])
    assert epochs_logged() == [1, 2]
    stamped = [line.split(" ", 2) for line in (MAIN / "log.txt").read_text().splitlines()]
    assert [text for _, _, text in stamped] == err.splitlines()[:-1]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", f"{day} {clock}") for day, clock, _ in stamped)
    assert json.loads((MAIN / "settings.json").read_text())["train"]["seed"] == 5
    assert len(found(MAIN / "checkpoints", "best")) == 2
    assert [path.name for path in found(MAIN / "checkpoints", "epoch")] == ["epoch_002"]
    assert read_meta(last()).dataset.name == "made"


def test_between_epochs_there_is_a_line_now_and_then(emogen_train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "LOG_EVERY_S", -1)
    code, _, err = emogen_train("--epochs", "1")
    assert code == 0
    pattern = r"epoch 1/1 batch (\d+)/(\d+)  loss \d+\.\d{3}  [\d,]+ notes/s  \d+ s left"
    lines = re.findall(f"^{pattern}$", err, re.MULTILINE)
    assert [int(batch) for batch, _ in lines] == list(range(1, int(lines[0][1]) + 1))
    assert re.search(rf" {pattern}$", (MAIN / "log.txt").read_text(), re.MULTILINE)


def test_on_a_terminal_a_bar_moves_and_the_log_stays_plain(
    emogen_train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=150, color_system=None, _environ={})
    monkeypatch.setattr(screen, "console", terminal)
    monkeypatch.setattr(screen, "LOG_EVERY_S", -1)
    assert emogen_train("--epochs", "1")[0] == 0
    assert re.search(r"epoch 1/1 .*━.* \d+/\d+ loss \d+\.\d{3}  [\d,]+ notes/s  \d+ s left", shown.getvalue())
    assert "batch 2/" not in shown.getvalue()
    log = (MAIN / "log.txt").read_text()
    assert "batch 2/" in log
    assert "\x1b" not in log


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (99.4, "99 s"), (100, "2 min"), (5940, "99 min"), (6000, "1 h 40")]
)
def test_times_are_told_for_people(seconds: float, told: str) -> None:
    assert screen._time(seconds) == told


# ---- stopping and going on


@pytest.mark.parametrize("ask", [interrupt, terminate])
def test_asking_to_stop_saves_first_and_the_same_command_goes_on_to_the_same_end(
    ask: Callable[[], None], emogen_train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(emogen_train, "--name", "whole")
    with monkeypatch.context() as patch:
        after_steps(patch, 3, ask)
        code, out, err = emogen_train()
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "stopped and saved in epoch 1 after 3 batches; resume with: emogen train"
    assert "stopped and saved" in (MAIN / "log.txt").read_text()
    assert names() == ["last_epoch_000_step_00000003"]
    Path("emogen.toml").write_text("[train]\nbatch_size = 64\n")  # the run has its own
    code, _, err = emogen_train()
    assert code == 0
    assert err.splitlines()[0].endswith("clips of made, resuming from last_epoch_000_step_00000003")
    assert epochs_logged() == [1, 2]
    whole, stopped = (load_weights(last(Path("runs") / run)) for run in ("whole", "main"))
    assert all(torch.equal(weight, stopped[name]) for name, weight in whole.items())


def test_a_second_ctrl_c_interrupts_at_once(emogen_train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    after_steps(monkeypatch, 3, interrupt_twice)
    code, out, err = emogen_train()
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted; resume from the last save with: emogen train"
    assert "stopped and saved" not in err
    assert names() == []


def test_the_command_to_go_on_with_names_what_is_not_the_default(
    emogen_train: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path
) -> None:
    monkeypatch.delenv("EMOGEN_HOME")
    flags = ["--name", "my run", "--data", "other", "--runs", str(tmp_path / "there"), "--home", str(home)]
    with monkeypatch.context() as patch:
        after_steps(patch, 1, interrupt)
        code, _, err = emogen_train(*flags, "--epochs", "1")
    again = f"emogen train --name 'my run' --data other --runs {tmp_path}/there --home {home}"
    assert (code, err.splitlines()[-1].partition("resume with: ")[2]) == (130, again)
    assert emogen_train(*flags)[0] == 0


def test_a_finished_run_says_so_and_how_to_train_more(emogen_train: Command) -> None:
    trained(emogen_train)
    before = {path: path.stat().st_mtime_ns for path in (MAIN / "checkpoints").rglob("*")}
    code, out, err = emogen_train()
    assert (code, out) == (0, "")
    assert err == "run 'main' has all its 2 epochs: emogen train --epochs 52 continues, --fresh starts over\n"
    assert {path: path.stat().st_mtime_ns for path in (MAIN / "checkpoints").rglob("*")} == before
    assert epochs_logged() == [1, 2]


def test_more_epochs_go_on_after_the_end(emogen_train: Command) -> None:
    trained(emogen_train, "--epochs", "1")
    code, _, err = emogen_train("--epochs", "3")
    assert code == 0
    assert "resuming from last_epoch_001" in err
    assert epochs_logged() == [1, 2, 3]
    assert (read_meta(last()).epoch, read_meta(last()).train["epochs"]) == (3, 3)
    assert json.loads((MAIN / "settings.json").read_text())["train"]["epochs"] == 3
    assert "has all its 3 epochs" in emogen_train()[2]


def test_flags_that_are_free_to_change_do(emogen_train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        after_steps(patch, 2, interrupt)
        assert emogen_train()[0] == 130
    flags = ["--patience", "9", "--threads", "1", "--accumulate", "2", "--keep-best", "1", "--checkpoint-every", "1"]
    code, _, err = emogen_train(*flags)
    assert code == 0, err
    assert len(found(MAIN / "checkpoints", "best")) == 1
    assert [path.name for path in found(MAIN / "checkpoints", "epoch")] == ["epoch_002", "epoch_001"]
    assert read_meta(last()).train["patience"] == 9


def test_flags_that_contradict_the_run_are_named(emogen_train: Command) -> None:
    trained(emogen_train, "--epochs", "1")
    before = names()
    code, out, err = emogen_train("--epochs", "2", "--batch-size", "8", "--d-model", "64", "--seed", "1")
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == (
        "error: run 'main' was begun with --d-model 32 (not 64), --batch-size 4 (not 8), --seed 0 (not 1)"
    )
    assert "--fresh" in err
    assert names() == before


def test_a_run_that_was_never_saved_takes_new_settings(emogen_train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Composer, "loss", lambda *_: torch.tensor([torch.nan] * 4, requires_grad=True))
        assert emogen_train()[0] == 1
    trained(emogen_train, "--batch-size", "8", "--learning-rate", "0.0005")
    assert read_meta(last()).train["batch_size"] == 8


def test_fresh_moves_the_old_run_aside_and_loses_nothing(emogen_train: Command) -> None:
    trained(emogen_train, "--epochs", "1")
    before = {path.relative_to(MAIN): path.read_bytes() for path in MAIN.rglob("*") if path.is_file()}
    code, _, err = emogen_train("--fresh", "--epochs", "1", "--batch-size", "8")
    assert code == 0
    assert err.splitlines()[0] == "the old run 'main' is now in runs/main-1"
    aside = Path("runs/main-1")
    assert {path.relative_to(aside): path.read_bytes() for path in aside.rglob("*") if path.is_file()} == before
    assert epochs_logged() == [1]
    assert read_meta(last()).train["batch_size"] == 8
    assert emogen_train("--fresh", "--name", "new", "--epochs", "1")[2].startswith("run 'new'")


def test_resuming_a_named_checkpoint_sets_the_later_ones_aside(emogen_train: Command) -> None:
    trained(emogen_train, "--epochs", "3", "--checkpoint-every", "1")
    end = load_weights(last())
    code, _, err = emogen_train("--resume", "epoch_002")
    assert code == 0
    assert err.splitlines()[0] == f"the checkpoints after epoch_002 are now in {MAIN}/checkpoints/set-aside-1"
    assert "resuming from epoch_002" in err.splitlines()[1]
    assert {"epoch_003", "best_epoch_003"} <= {
        name[:14].rstrip("_") for name in names(MAIN / "checkpoints/set-aside-1")
    }
    assert epochs_logged() == [1, 2, 3, 3]
    again = load_weights(last())
    assert all(torch.equal(weight, again[name]) for name, weight in end.items())


@pytest.mark.parametrize("flags", [(), ("--resume", "last")])
def test_going_on_from_last_sets_nothing_aside(
    flags: tuple[str, ...], emogen_train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(emogen_train, "--epochs", "1")
    with monkeypatch.context() as patch:  # killed at an epoch's end, when all but last is saved
        patch.setattr(Trainer, "save_last", lambda _: interrupt_twice())
        assert emogen_train("--epochs", "3")[0] == 130
    assert resumable(MAIN / "checkpoints")[0] == last()
    assert len(found(MAIN / "checkpoints", "best")) == 2
    trained(emogen_train, "--epochs", "3", *flags)
    assert not list(MAIN.glob("checkpoints/set-aside-*"))
    assert epochs_logged() == [1, 2, 2, 3]


REFUSED = [
    ("--resume best", 2, ["the best checkpoints hold weights only", "named last or epoch"]),
    ("--resume best_epoch_001_loss_9.0000", 2, ["hold weights only"]),
    ("--resume epoch_01", 1, ["run 'main' has no checkpoint 'epoch_01'", "did you mean 'epoch_001'?"]),
    ("--resume last --name new", 1, ["run 'new' has no checkpoint 'last'", "there are: none"]),
    ("--resume last --fresh", 2, ["--fresh and --resume contradict each other"]),
    ("--name a/b", 2, ["'a/b' cannot be the name of a folder"]),
    ("--name ..", 2, ["'..' cannot be the name of a folder"]),
    ("--name=", 2, ["'' cannot be the name of a folder"]),
    ("--data mdae", 1, ["no prepared corpus 'mdae'", "made-"]),
    ("--data other --epochs 9", 1, ["was trained on other data (made) than this (other)", "--data"]),
    ("--batch-size 0", 2, ["--batch-size"]),
    ("--precision bf16", 2, ["--precision float32 (not bf16)"]),
]


def test_what_cannot_be_done_is_refused_with_the_reason(emogen_train: Command) -> None:
    trained(emogen_train, "--epochs", "1")
    before = names()
    for arguments, expected, said in REFUSED:
        code, out, err = emogen_train(*arguments.split())
        assert (code, out) == (expected, ""), arguments
        assert err.startswith("error: "), arguments
        assert all(part in err for part in said), err
        assert names() == before, arguments


def test_without_prepared_data_the_command_that_makes_some_is_told(
    emogen_train: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMOGEN_HOME", str(tmp_path / "empty"))
    code, _, err = emogen_train()
    assert (code, err) == (1, "error: no music is prepared yet\nhint: prepare one first: emogen prepare ./EMOPIA_1.0\n")
    assert not MAIN.exists()


def test_a_run_in_use_by_another_process_is_left_alone(emogen_train: Command) -> None:
    trained(emogen_train, "--epochs", "1")
    before = names()
    for flags in ([], ["--fresh"]):
        with Run(Path("runs"), "main"):
            code, out, err = emogen_train(*flags, "--epochs", "2")
        assert (code, out) == (1, "")
        assert err.startswith("error: run 'main' is in use by another process\nhint: wait")
        assert names() == before


# ---- damage


def test_damaged_settings_hinder_nothing(emogen_train: Command) -> None:
    trained(emogen_train, "--epochs", "1")
    (MAIN / "settings.json").write_text("{")
    Path("emogen.toml").write_text("")
    trained(emogen_train, "--epochs", "2")
    assert json.loads((MAIN / "settings.json").read_text())["train"]["batch_size"] == 4


class Trap:
    """An object whose pickle makes a file when it is read."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, ("sprung",)


def test_a_hostile_checkpoint_is_refused_and_another_takes_its_place(emogen_train: Command) -> None:
    trained(emogen_train, "--epochs", "2", "--checkpoint-every", "1")
    forget_checksums(last())  # whoever makes such a file makes its checksum, too
    torch.save({"optimizer": Trap()}, last() / TRAINER)
    code, out, err = emogen_train("--epochs", "3")
    assert (code, out) == (1, "")
    assert re.match(r"error: runs/main/checkpoints/last_.*/trainer\.pt cannot be used", err)
    assert "Traceback" not in err
    assert not Path("sprung").exists()
    trained(emogen_train, "--epochs", "3", "--resume", "epoch_002")


def change_format(path: Path) -> None:
    data = (path / WEIGHTS).read_bytes().replace(rb"\"format\": 1", rb"\"format\": 0")
    (path / WEIGHTS).write_bytes(data)


def cut_short(path: Path) -> None:
    os.truncate(path / WEIGHTS, (path / WEIGHTS).stat().st_size - 10)


@pytest.mark.parametrize(("damage", "said"), [(cut_short, "is cut short"), (change_format, "is of format 0")])
def test_a_damaged_last_is_refused_and_another_takes_its_place(
    damage: Callable[[Path], None], said: str, emogen_train: Command
) -> None:
    trained(emogen_train, "--epochs", "2", "--checkpoint-every", "1")
    damage(last())
    code, out, err = emogen_train("--epochs", "3")
    assert (code, out) == (1, "")
    assert err.startswith("error: runs/main/checkpoints/last_")
    assert said in err.splitlines()[0]
    trained(emogen_train, "--epochs", "3", "--resume", "epoch_001")
    assert epochs_logged()[-2:] == [2, 3]


# ---- it watches itself


def test_a_loss_that_is_no_number_is_told_here_and_in_the_log(
    emogen_train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(emogen_train, "--epochs", "1")
    before = {path: path.read_bytes() for path in (MAIN / "checkpoints").rglob("*") if path.is_file()}
    loss = Composer.loss
    monkeypatch.setattr(Composer, "loss", lambda *batch: loss(*batch) * torch.nan)
    code, out, err = emogen_train("--epochs", "2")
    assert (code, out) == (1, "")
    assert re.search(r"^error: the loss is no longer finite at step \d+; the last checkpoint is untouched$", err, re.M)
    assert "--learning-rate below 0.001" in err
    assert "error: the loss is no longer finite" in (MAIN / "log.txt").read_text()
    assert {path: path.read_bytes() for path in (MAIN / "checkpoints").rglob("*") if path.is_file()} == before


def test_too_little_memory_is_told_and_the_batch_is_computed_in_parts(
    emogen_train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Composer.loss

    def little(self: Composer, notes: Tensor, *conditions: Tensor) -> Tensor:
        if len(notes) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(self, notes, *conditions)

    monkeypatch.setattr(Composer, "loss", little)
    code, _, err = emogen_train("--epochs", "1")
    assert code == 0
    assert err.count("out of memory: each batch is now computed in 2 parts (--accumulate 2)\n") == 1


def test_no_memory_for_the_model_itself_is_an_error_with_a_hint(
    emogen_train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Composer, "to", no_room)
    code, _, err = emogen_train()
    assert (code, err.splitlines()[0]) == (1, "error: out of memory: there is no room for the model itself")
    assert "--size" in err


def test_a_full_disk_is_told_and_the_same_command_goes_on_later(
    emogen_train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    trained(emogen_train, "--epochs", "1")
    before = names()
    with monkeypatch.context() as patch:
        after_steps(patch, 2, lambda: patch.setattr(os, "fsync", full))
        code, out, err = emogen_train("--epochs", "2")
    assert (code, out) == (1, "")
    assert "No space left on device" in err
    assert re.search("^hint: make room on that disk", err, re.MULTILINE)
    assert "Traceback" not in err
    assert names() == before
    trained(emogen_train, "--epochs", "2")


def test_a_log_that_cannot_be_written_does_not_hide_the_error(
    emogen_train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Trainer) -> dict[str, float]:
        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Run, "say", full)
        self.check_finite(float("nan"))
        return {}

    monkeypatch.setattr(Trainer, "evaluate", fail)
    code, _, err = emogen_train()
    assert code == 1
    assert "the loss is no longer finite" in err


def test_patience_stops_early_says_so_and_can_be_lifted(emogen_train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "evaluate", lambda self: {"shift": 9.0 + self.progress.epoch})
    code, _, err = emogen_train("--epochs", "4", "--patience", "2")
    assert code == 0
    assert "stopped early: no better valid loss for 2 epochs (--patience)\nbest: epoch 1, valid 9.0000" in err
    code, _, err = emogen_train()
    assert code == 0
    assert err == "run 'main' is out of --patience 2: emogen train --patience 0 continues, --fresh starts over\n"
    assert epochs_logged() == [1, 2, 3]
    code, _, err = emogen_train("--patience", "0")
    assert code == 0
    assert epochs_logged() == [1, 2, 3, 4]


# ---- kill -9


def train_until_killed(touch: int, arguments: list[str]) -> None:
    """``emogen train`` that is killed, with no chance to clean up, at that touch of a file after its first save."""
    left, saved = itertools.count(touch, -1), False

    def kill(name: str, given: tuple[object, ...]) -> None:
        nonlocal saved
        saved = saved or (name == "os.rename" and "last_epoch" in str(given[1]))
        if saved and name.startswith(("open", "os.", "shutil.", "tempfile.")) and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)
    main(arguments)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_comes_to_the_same_end(
    emogen_train: Command, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = OPTIONS | {"train.save_every_s": 1e-9, "train.epochs": 4}
    options |= {"paths.home": home, "paths.runs": tmp_path / "runs"}
    flags = [word for option, value in options.items() for word in (flag(option), str(value))]
    trained(emogen_train, *flags, "--name", "whole")

    monkeypatch.setenv("PYTHONPATH", str(Path(emogen.__file__).parents[1]))
    processes = multiprocessing.get_context("forkserver")  # a process starts with PyTorch already imported
    processes.set_forkserver_preload(["emogen.training.trainer", "emogen.cli.train", "torch._dynamo"])
    folder, reached = tmp_path / "runs" / "main" / "checkpoints", []
    for touch in (1, 0, 7, 20, 33, 50):
        process = processes.Process(target=train_until_killed, args=(touch, ["train", *flags]))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        newest = resumable(folder)[0]
        meta = read_meta(newest)
        assert meta == type(meta).model_validate_json((newest / META).read_text())
        assert load_trainer(newest)["progress"]["step"] == meta.step
        assert load_weights(newest)
        reached.append(meta.step)
    assert reached == sorted(reached)

    trained(emogen_train, *flags)
    assert not list(folder.parent.rglob(".*.tmp"))
    assert len(found(folder, "last")) == 1
    ends = [load_weights(last(tmp_path / "runs" / run)) for run in ("whole", "main")]
    assert all(torch.equal(weight, ends[1][name]) for name, weight in ends[0].items())
    history = [
        [(loss.train, loss.valid) for loss in read_meta(last(tmp_path / "runs" / run)).history]
        for run in ("whole", "main")
    ]
    assert history[0] == history[1]
    lines = {json.loads(line)["epoch"] for line in (folder.parent / "log.jsonl").read_text().splitlines()}
    assert lines == set(range(1, 5))


# ---- beginning from a checkpoint


def test_init_begins_another_run_with_a_checkpoint_and_takes_its_shape(emogen_train: Command) -> None:
    trained(emogen_train, "--epochs", "1")
    Path("emogen.toml").write_text(Path("emogen.toml").read_text().replace("model.d_model = 32", "model.d_model = 64"))
    code, _, err = emogen_train("--name", "tuned", "--init", "main/best", "--dropout", "0.3", "--epochs", "1")
    assert code == 0, err
    (best,) = found(MAIN / "checkpoints", "best")
    assert f"begun from main/{best.name}" in err
    meta = read_meta(last(Path("runs/tuned")))
    assert (meta.init, meta.model.d_model, meta.model.dropout) == (f"main/{best.name}", 32, 0.3)
    assert [facts.name for facts in meta.ancestors] == ["made"]
    code, _, err = emogen_train("--name", "tuned", "--init", "main/best", "--epochs", "2")
    assert (code, "resuming from last_epoch_001" in err) == (0, True), err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--init", "main/best", "--d-model", "64"), 2, "checkpoint 'main/best' has --d-model 32 (not 64)"),
        (("--init", "moon/best"), 1, "no run 'moon'"),
        (("--init", "open", "--d-model", "64"), 2, "checkpoint 'open' has --d-model 192 (not 64)"),
    ],
)
def test_what_cannot_be_begun_from_is_told(
    arguments: tuple[str, ...], code: int, told: str, emogen_train: Command
) -> None:
    trained(emogen_train, "--epochs", "1")
    found_code, out, err = emogen_train("--name", "tuned", *arguments)
    assert (found_code, out) == (code, "")
    assert told in err


def test_the_context_may_be_another_one(emogen_train: Command) -> None:
    trained(emogen_train, "--epochs", "1")
    trained(emogen_train, "--name", "tuned", "--init", "main/best", "--max-seq-len", "48", "--epochs", "1")
    assert read_meta(last(Path("runs/tuned"))).model.context_notes == 48


def test_the_curves_are_drawn_anew_each_epoch(emogen_train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def draw(folder: Path) -> None:
        drawn.append(len(curves.read_log((folder / "log.jsonl").read_text())))

    monkeypatch.setattr(curves, "draw", draw)
    assert emogen_train()[0] == 0
    assert drawn == [1, 2]
    rates = [json.loads(line)["learning_rate"] for line in (MAIN / "log.jsonl").read_text().splitlines()]
    assert len(rates) == 2
    assert all(0 < rate < 1e-3 for rate in rates)


def test_curves_that_cannot_be_drawn_cost_no_training(emogen_train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(curves, "draw", fail)
    code, _, err = emogen_train()
    assert code == 0
    assert epochs_logged() == [1, 2]
    assert err.count("curves.png could not be drawn: ") == 1
