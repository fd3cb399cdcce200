from __future__ import annotations

import itertools
import json
import os
import pickle
import shutil
import signal
import struct
import sys
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from emogen.errors import EmogenError, UsageError
from emogen.model import checkpoint
from emogen.model.checkpoint import (
    META,
    TRAINER,
    VOICE,
    WEIGHTS,
    EpochLoss,
    Meta,
    found,
    load_trainer,
    load_weights,
    name,
    plans_of,
    read_meta,
    resolve,
    resumable,
    rotate,
    runs_in,
    save,
    set_aside_after,
)
from emogen.music import tokens
from tests import tiny

MODEL = tiny.composer()


def at(epoch: int, step: int = 0, loss: float = 9.0, run: str = "main") -> Meta:
    """What a checkpoint says of itself after so many epochs and steps."""
    history = tuple(
        EpochLoss(epoch=number, train=9.0, valid=loss, valid_by_family={}, seconds=1.0)
        for number in range(1, epoch + 1)
    )
    return tiny.meta(MODEL, run).model_copy(update={"epoch": epoch, "step": step, "history": history})


def put(folder: Path, kind: str, meta: Meta) -> Path:
    """Save a checkpoint of a kind, with a trainer's state where it is resumable."""
    path = folder / name(kind, meta)
    save(path, meta, {"weight": torch.ones(2)}, {"place": meta.step} if kind in checkpoint.RESUMABLE else None)
    return path


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


# ---- writing


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    path, meta = tmp_path / "epoch_003", at(3, 77)
    save(path, meta, MODEL.state_dict(), {"optimizer": {"state": {0: torch.arange(3.0)}}, "place": 5})
    assert read_meta(path) == meta
    assert Meta.model_validate_json((path / META).read_text(encoding="utf-8")) == meta
    weights = load_weights(path)
    assert weights.keys() == MODEL.state_dict().keys()
    assert all(torch.equal(weights[key], weight) for key, weight in MODEL.state_dict().items())
    state = load_trainer(path)
    assert state["place"] == 5
    assert torch.equal(state["optimizer"]["state"][0], torch.arange(3.0))


def test_the_one_file_of_weights_is_enough(tmp_path: Path) -> None:
    path = tiny.save(tmp_path)
    alone = tmp_path / "alone.safetensors"
    shutil.copy(path / WEIGHTS, alone)
    assert read_meta(alone) == read_meta(path)
    assert load_weights(alone).keys() == MODEL.state_dict().keys()
    assert not (path / TRAINER).exists()


def test_a_checkpoint_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    path = put(tmp_path, "last", at(1, 10))
    before = (path / META).stat()
    save(path, at(2, 20), {"weight": torch.zeros(2)})
    assert read_meta(path).step == 10
    assert (path / META).stat() == before


def test_a_checkpoint_that_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(EmogenError, match="could not be written: I/O error: No space left") as caught:
        put(tmp_path / "checkpoints", "last", at(1, 10))
    assert "make room" in caught.value.hint
    assert list((tmp_path / "checkpoints").iterdir()) == []


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
        for path in checkpoint.all_in(tmp_path):  # the one before, too, is whole or not there
            assert load_trainer(path) == {"place": read_meta(path).step}
            assert load_weights(path)["weight"].tolist() == [1, 1]
    assert steps == sorted(steps)
    assert steps.count(10) > 5, "kills before the new one has its name"
    assert steps.count(20) > 5, "and after"
    assert names(list(tmp_path.iterdir())) == ["last_epoch_001_step_00000020"]


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
    assert caught.value.hint == "train one: emogen train; the bundled voice is called default"


def test_what_people_read_of_the_bundled_voice_is_what_its_weights_say() -> None:
    assert Meta.model_validate_json((VOICE / META).read_text(encoding="utf-8")) == read_meta(VOICE)


def test_the_bundled_voice_is_meant_by_default_and_where_nothing_is_trained(tmp_path: Path) -> None:
    assert resolve("default", runs(tmp_path)) == resolve("", tmp_path / "none") == VOICE


# ---- damaged and hostile files


def write_header(file: Path, header: Any, body: bytes = b"", length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)


def described(**changes: Any) -> dict[str, Any]:
    """A header of no weights whose metadata has some changes."""
    meta = json.loads(at(1, 1).model_dump_json()) | changes
    return {"__metadata__": {"emogen": json.dumps(meta)}}


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        [],
        5,
        {},
        {"__metadata__": []},
        {"__metadata__": {}},
        {"__metadata__": {"emogen": 5}},
        {"__metadata__": {"emogen": "5"}},
        {"__metadata__": {"emogen": "{}"}},
        described(format="1"),
        described(format=1.5),
        described(format=float("inf")),
        described(format=None),
        described() | {"w": 5},
        described() | {"w": {"data_offsets": 5}},
        described() | {"w": {"data_offsets": [0]}},
        described() | {"w": {"data_offsets": [0, "8"]}},
        described() | {"w": {}},
    ],
    ids=lambda header: repr(header)[:40],
)
def test_a_foreign_file_is_refused_by_name(header: Any, tmp_path: Path) -> None:
    file = tmp_path / "foreign.safetensors"
    write_header(file, header)
    with pytest.raises(EmogenError, match=r"foreign.safetensors is not an emogen checkpoint, or is damaged"):
        read_meta(file)


@pytest.mark.parametrize("content", [b"", b"1234567", b"MThd" * 100, pickle.dumps({"a": 1})])
def test_a_file_of_another_kind_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "other.mid"
    file.write_bytes(content)
    with pytest.raises(EmogenError, match="not an emogen checkpoint"):
        read_meta(file)


def test_a_hostile_header_length_costs_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "huge.safetensors"
    write_header(file, described(), length=64 * 2**20)
    os.truncate(file, 65 * 2**20)
    tracemalloc.start()
    with pytest.raises(EmogenError, match="not an emogen checkpoint"):
        read_meta(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


NO_PLANS: dict[str, Any] = {"entries": (), "mean": (), "sd": (), "by_emotion": {}}


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"format": 0}, "is of format 0, this emogen reads 1", "use the emogen that made it"),
        ({"format": 2}, "is of format 2, this emogen reads 1", "update emogen"),
        ({"vocabulary": "0" * 16}, "speaks of other tokens", "use the emogen that made it"),
        ({"emotions": ("bored",)}, "speaks of other tokens", "use the emogen that made it"),
        ({"plan": NO_PLANS | {"entries": ("mood",)}}, "other tokens", "use the emogen that made it"),
        ({"plan": NO_PLANS}, "does not know all entries", "emogen train --init"),
        ({"plan": {"entries": 3}}, "the plans of .* are damaged", "take another one"),
        ({"epoch": "many"}, "the metadata of .* is damaged", "take another one"),
        ({"model": {"d_model": 33}}, "the metadata of .* is damaged: .*d_model 33", "take another one"),
        ({"history": [{"epoch": 1}]}, "the metadata of .* is damaged", "take another one"),
    ],
)
def test_another_format_or_vocabulary_is_refused_with_what_to_do(
    changes: dict[str, Any], message: str, hint: str, tmp_path: Path
) -> None:
    file = tmp_path / "other.safetensors"
    write_header(file, described(**changes))
    with pytest.raises(EmogenError, match=message) as caught:
        plans_of(file, read_meta(file))
    assert hint in caught.value.hint


def test_facts_that_a_newer_version_added_are_let_pass(tmp_path: Path) -> None:
    write_header(tmp_path / "newer.safetensors", described(moon_phase=3))
    assert read_meta(tmp_path / "newer.safetensors") == at(1, 1)


@pytest.mark.parametrize("missing", [1, 100])
def test_weights_that_are_cut_short_are_refused_by_name(missing: int, tmp_path: Path) -> None:
    path = tiny.save(tmp_path)
    os.truncate(path / WEIGHTS, (path / WEIGHTS).stat().st_size - missing)
    with pytest.raises(EmogenError, match=r"weights.safetensors is cut short: \d+ bytes of \d+") as caught:
        read_meta(path)
    assert "ckpt list" in caught.value.hint
    with pytest.raises(EmogenError, match="cannot be read"):
        load_weights(path)


def test_whatever_bytes_change_in_a_header_the_answer_is_facts_or_an_error_of_ours(tmp_path: Path) -> None:
    path = put(tmp_path, "epoch", at(1, 1)) / WEIGHTS
    whole = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = whole.copy()
        where = rng.integers(0, len(whole) - 8, 3)
        damaged[where] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        try:
            assert isinstance(read_meta(path), Meta)
        except EmogenError:
            refused += 1
    assert refused > 100


def test_a_missing_checkpoint_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "gone", tmp_path / "empty"):
        with pytest.raises(EmogenError, match="there is no checkpoint at") as caught:
            read_meta(path)
        assert "ckpt list" in caught.value.hint
        with pytest.raises(EmogenError, match="is gone") as caught:
            load_weights(path)
        assert "try again" in caught.value.hint


# ---- the trainer's state


class Trap:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("form", ["torch", "torch, old", "pickle"])
def test_a_hostile_pickle_is_refused_and_nothing_is_executed(form: str, tmp_path: Path) -> None:
    path, sprung = put(tmp_path, "last", at(1, 1)), tmp_path / "sprung"
    state = {"optimizer": Trap(sprung)}
    with (path / TRAINER).open("wb") as stream:
        if form == "pickle":
            pickle.dump(state, stream)
        else:
            torch.save(state, stream, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(EmogenError, match=r"trainer.pt is not read: it is damaged or holds more than tensors"):
        load_trainer(path)
    assert not sprung.exists()
    torch.load(path / TRAINER, weights_only=False) if form != "pickle" else pickle.loads((path / TRAINER).read_bytes())
    assert sprung.exists(), "the trap works"


def test_a_damaged_trainer_is_refused_by_name(tmp_path: Path) -> None:
    path = put(tmp_path, "last", at(1, 1))
    whole = (path / TRAINER).read_bytes()
    rng = np.random.default_rng(0)
    for content in (b"", b"\x80", whole[: len(whole) // 2], whole[100:], rng.bytes(500), b"\x80\x02}q\x00."[:4]):
        (path / TRAINER).write_bytes(content)
        with pytest.raises(EmogenError, match=r"trainer.pt is not read: it is damaged .*Error\)$") as caught:
            load_trainer(path)
        assert "--resume NAME" in caught.value.hint


def test_a_checkpoint_without_a_trainer_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"best_epoch_001_loss_9\.0000 holds weights only") as caught:
        load_trainer(put(tmp_path, "best", at(1, 1)))
    assert caught.value.hint == "resume from one named last or epoch"


def test_the_vocabulary_of_a_checkpoint_is_that_of_the_tokens() -> None:
    assert at(0).vocabulary == tokens.fingerprint()
