from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from emogen.errors import EmogenError
from emogen.model.checkpoint import VOICE, VOICES, WEIGHTS, load_trainer, load_weights, read_meta
from emogen.training.shelf import all_in, found, name, resolve, resumable, rotate, runs_in, set_aside_after, unasked
from tests.tiny import at, put


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


# ---- names


def test_names_tell_the_kind_and_how_far_it_is() -> None:
    meta = at(45, 1360, 9.12344)
    assert name("last", meta) == "last_epoch_045_step_00001360"
    assert name("epoch", meta) == "epoch_045"
    assert name("best", meta) == "best_epoch_045_loss_9.1234"
    assert name("last", at(0, 0)) == "last_epoch_000_step_00000000"


def test_checkpoints_are_found_latest_first_and_best_first_by_their_names_alone(tmp_path: Path) -> None:
    for folder in (
        "last_epoch_001_step_00000099", "last_epoch_002_step_00000099", "last_epoch_001_step_00000100",
        "epoch_998", "epoch_1000", "epoch_999",
        "best_epoch_003_loss_10.2000", "best_epoch_002_loss_9.9000", "best_epoch_009_loss_9.9000",
        "best_of_all", "epoch_", "epoch_003_copy", "last", ".epoch_005.x.tmp", "epochs", "set-aside-1",
    ):  # fmt: skip
        (tmp_path / folder).mkdir()
    assert names(found(tmp_path, "last")) == [
        "last_epoch_002_step_00000099",
        "last_epoch_001_step_00000100",
        "last_epoch_001_step_00000099",
    ]
    assert names(found(tmp_path, "epoch")) == ["epoch_1000", "epoch_999", "epoch_998"]
    assert names(found(tmp_path, "best")) == [
        "best_epoch_002_loss_9.9000",
        "best_epoch_009_loss_9.9000",
        "best_epoch_003_loss_10.2000",
    ]
    assert found(tmp_path / "nowhere", "last") == []


def test_of_equal_losses_the_earlier_epoch_is_better_in_whatever_order_the_folder_is_listed(tmp_path: Path) -> None:
    epochs = list(range(1, 13))
    for epoch in random.Random(0).sample(epochs, 12):
        (tmp_path / f"best_epoch_{epoch:03d}_loss_9.9000").mkdir()
    assert names(found(tmp_path, "best")) == [f"best_epoch_{epoch:03d}_loss_9.9000" for epoch in epochs]


def test_training_goes_on_from_the_furthest_of_last_and_periodic_ones(tmp_path: Path) -> None:
    put(tmp_path, "epoch", at(10, 100))
    put(tmp_path, "last", at(10, 100))
    put(tmp_path, "last", at(9, 95))
    put(tmp_path, "best", at(11, 110))
    assert names(resumable(tmp_path)) == ["last_epoch_010_step_00000100", "epoch_010", "last_epoch_009_step_00000095"]


def test_rotation_keeps_so_many_of_one_kind(tmp_path: Path) -> None:
    for epoch, loss in ((1, 9.0), (2, 7.0), (3, 8.0)):
        put(tmp_path, "best", at(epoch, epoch, loss))
        put(tmp_path, "epoch", at(epoch, epoch))
    rotate(tmp_path, "best", 2)
    rotate(tmp_path, "epoch", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best_epoch_002_loss_7.0000",
        "best_epoch_003_loss_8.0000",
        "epoch_003",
    ]


def test_what_is_further_than_a_checkpoint_is_set_aside_and_kept(tmp_path: Path) -> None:
    start = put(tmp_path, "epoch", at(2, 20))
    for kind, meta in (
        ("last", at(3, 33)), ("epoch", at(3, 30)), ("best", at(1, 10)), ("best", at(2, 20)), ("best", at(3, 30, 8.0)),
        ("last", at(2, 20)),
    ):  # fmt: skip
        put(tmp_path, kind, meta)
    aside = set_aside_after(start)
    assert aside == tmp_path / "set-aside-1"
    assert sorted(path.name for path in aside.iterdir()) == [
        "best_epoch_003_loss_8.0000",
        "epoch_003",
        "last_epoch_003_step_00000033",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best_epoch_001_loss_9.0000",
        "best_epoch_002_loss_9.0000",
        "epoch_002",
        "last_epoch_002_step_00000020",
        "set-aside-1",
    ]
    assert set_aside_after(start) is None
    put(tmp_path, "last", at(2, 21))
    assert set_aside_after(start) == tmp_path / "set-aside-2"


def test_a_damaged_checkpoint_does_not_stand_in_the_way_of_another(tmp_path: Path) -> None:
    folder = tmp_path / "main" / "checkpoints"
    start = put(folder, "epoch", at(1, 10))
    for kind in ("last", "best", "epoch"):
        (put(folder, kind, at(2, 20)) / WEIGHTS).write_bytes(b"")
    good = put(folder, "best", at(1, 10, 5.0))
    assert resolve("best", tmp_path) == good
    assert resumable(folder)[0].name == "last_epoch_002_step_00000020"
    rotate(folder, "best", 1)
    assert found(folder, "best") == [good]
    assert set_aside_after(start) is not None
    assert resumable(folder) == [start]


def killed_at(event: int, do: Callable[[], object]) -> bool:
    """Whether a process that does it is killed, with no chance to clean up, at its so many-th touch of a file."""
    with warnings.catch_warnings():  # the child computes nothing, so it needs no threads
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, -signal.SIGKILL)
        return code != 0
    left = itertools.count(event, -1)

    def kill(name: str, _: object) -> None:
        if name.startswith(("open", "os.", "shutil.", "tempfile.")) and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)
    try:
        do()
    except BaseException:
        os._exit(1)  # nothing of the tests goes on in here
    os._exit(0)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_moment_of_saving_leaves_a_whole_last(tmp_path: Path) -> None:
    def save_next() -> None:
        put(tmp_path, "last", at(1, 20))
        rotate(tmp_path, "last", 1)

    steps = []
    for event in itertools.count():
        for path in tmp_path.iterdir():
            shutil.rmtree(path)
        put(tmp_path, "last", at(1, 10))
        if not killed_at(event, save_next):
            break
        steps.append(read_meta(resumable(tmp_path)[0]).step)
        for path in all_in(tmp_path):  # the one before, too, is whole or not there
            assert load_trainer(path) == {"place": read_meta(path).step}
            assert load_weights(path)["weight"].tolist() == [1, 1]
    assert steps == sorted(steps)
    assert steps.count(10) > 5, "kills before the new one has its name"
    assert steps.count(20) > 5, "and after"
    assert names(list(tmp_path.iterdir())) == ["last_epoch_001_step_00000020"]


# ---- what a person means


def runs(tmp_path: Path) -> Path:
    """Two runs: ``old``, with two of each kind, and ``new``, in its first epoch."""
    folder = tmp_path / "runs"
    for epoch, loss in ((1, 8.0), (2, 9.0)):
        for kind in ("best", "epoch", "last"):
            put(folder / "old" / "checkpoints", kind, at(epoch, epoch, loss, "old"))
    put(folder / "new" / "checkpoints", "last", at(0, 3, run="new"))
    (folder / "begun" / "checkpoints").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    for age, run in enumerate(("new", "old")):
        for path in (folder / run / "checkpoints").iterdir():
            os.utime(path, (1e9 - age, 1e9 - age))
    return folder


def test_the_run_trained_last_comes_first(tmp_path: Path) -> None:
    folder = runs(tmp_path)
    assert names(runs_in(folder)) == ["new", "old"]
    (folder / "old" / "checkpoints" / ".x.tmp").mkdir()  # pruning, for one, is no training
    assert names(runs_in(folder)) == ["new", "old"]
    os.utime(found(folder / "old" / "checkpoints", "best")[1])
    assert names(runs_in(folder)) == ["old", "new"]
    assert runs_in(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("last", "new/checkpoints/last_epoch_000_step_00000003"),
        ("new/last", "new/checkpoints/last_epoch_000_step_00000003"),
        ("old/last", "old/checkpoints/last_epoch_002_step_00000002"),
        ("old/best", "old/checkpoints/best_epoch_001_loss_8.0000"),
        ("old/epoch_001", "old/checkpoints/epoch_001"),
        ("old", "old/checkpoints/best_epoch_001_loss_8.0000"),
        ("runs/old", "old/checkpoints/best_epoch_001_loss_8.0000"),
        ("runs/old/", "old/checkpoints/best_epoch_001_loss_8.0000"),
        ("last_epoch_000_step_00000003", "new/checkpoints/last_epoch_000_step_00000003"),
        ("runs/old/checkpoints/epoch_002", "old/checkpoints/epoch_002"),
        ("", "old/checkpoints/best_epoch_001_loss_8.0000"),  # the newest run has no epoch complete
    ],
)
def test_a_name_or_path_finds_its_checkpoint(
    said: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert resolve(said, Path("runs")) == Path("runs") / meant


def test_an_exported_file_is_a_checkpoint_and_best_is_never_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = runs(tmp_path)
    monkeypatch.chdir(tmp_path)
    for file in ("mine.safetensors", "last", "best"):
        shutil.copy(folder / "old" / "checkpoints" / "epoch_001" / WEIGHTS, file)
    assert resolve("mine.safetensors", folder) == Path("mine.safetensors")
    assert resolve("last", folder).parent == folder / "new" / "checkpoints"


@pytest.mark.parametrize(
    ("said", "message", "hint"),
    [
        ("lst", "no checkpoint 'lst' in run 'new'", "did you mean 'last'? there are last, last_epoch_000"),
        ("best", "no checkpoint 'best' in run 'new', no epoch is complete yet", "there are last, last_epoch_000"),
        ("new", "no checkpoint 'best' in run 'new', no epoch is complete yet", "there are last, last_epoch_000"),
        ("odl", "no checkpoint 'odl' in run 'new'", "did you mean 'old'?"),
        ("odl/best", "no run 'odl' in", "did you mean 'old'? the runs are new, old"),
        ("moon/best", "no run 'moon' in", "the runs are new, old"),
        (
            "old/epoch_01",
            "no checkpoint 'epoch_01' in run 'old'",
            "did you mean 'epoch_001'? there are best, last, best_",
        ),
        ("old/", "no checkpoint '' in run 'old'", "there are best, last, best_"),
        ("gone/mine.safetensors", "there is no file gone/mine.safetensors", "ckpt export"),
    ],
)
def test_what_cannot_be_found_is_told_with_what_there_is(said: str, message: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(EmogenError) as caught:
        resolve(said, runs(tmp_path))
    assert str(caught.value).startswith(message)
    assert hint in caught.value.hint


def test_without_any_run_the_command_that_makes_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(EmogenError, match="no trained run in") as caught:
        resolve("best", tmp_path)
    assert caught.value.hint == "train one: emogen train; the bundled voices are called default and open"


def test_the_bundled_voice_is_meant_by_default_and_where_nothing_is_trained(tmp_path: Path) -> None:
    assert resolve("default", runs(tmp_path)) == resolve("", tmp_path / "none") == VOICE


def test_the_open_voice_is_found_by_its_name_and_never_taken_unasked(tmp_path: Path) -> None:
    begun = runs(tmp_path)
    assert resolve("open", tmp_path / "none") == resolve("open", begun) == VOICES["open"] != VOICE
    assert VOICES["open"] not in (unasked(tmp_path / "none")[0], unasked(begun)[0])
    assert read_meta(VOICES["open"]).dataset.name == "pop909"
    assert not read_meta(VOICES["open"]).ancestors


@pytest.mark.parametrize(("voice", "taken"), [(8.0, VOICE), (9.5, None), (None, None)])
def test_the_best_run_composes_unasked_where_it_beats_the_voice(
    voice: float | None, taken: Path | None, tmp_path: Path
) -> None:
    meta = at(1, loss=9.0).model_copy(update={"voice_loss": voice})
    path = put(tmp_path / "main" / "checkpoints", "best", meta)
    chosen, why = unasked(tmp_path)
    assert chosen == resolve("", tmp_path) == (taken or path)
    assert ("8.00 nats per note on the validation songs of run 'main', whose best has 9.00" in why) == (voice == 8.0)
    assert ("9.00 on its validation songs; the bundled voice: 9.50" in why) == (voice == 9.5)
    assert resolve("main", tmp_path) == path
