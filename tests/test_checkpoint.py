from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from emogen.errors import EmogenError, UsageError
from emogen.model.checkpoint import (
    META,
    TRAINER,
    VOICE,
    WEIGHTS,
    Meta,
    load_trainer,
    load_weights,
    plans_of,
    read_meta,
    save,
)
from emogen.music import tokens
from tests import tiny
from tests.hostile import forget_checksums
from tests.tiny import at, put

MODEL = tiny.composer()


# ---- writing


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    path, meta = tmp_path / "epoch_003", at(3, 77)
    save(path, meta, MODEL.state_dict(), {"optimizer": {"state": {0: torch.arange(3.0)}}, "place": 5})
    assert read_meta(path).model_copy(update={"checksums": {}}) == meta
    assert Meta.model_validate_json((path / META).read_text(encoding="utf-8")) == read_meta(path)
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


def test_what_people_read_of_the_bundled_voice_is_what_its_weights_say() -> None:
    assert Meta.model_validate_json((VOICE / META).read_text(encoding="utf-8")) == read_meta(VOICE)


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
        ({"vocabulary": "0" * 16}, "was made with different tokens", "use the emogen that made it"),
        ({"emotions": ("bored",)}, "was made with different tokens", "use the emogen that made it"),
        (
            {"plan": NO_PLANS | {"entries": ("mood",), "mean": (0.0,), "sd": (1.0,)}},
            "different tokens",
            "use the emogen that made it",
        ),
        ({"plan": NO_PLANS}, "lacks entries", "emogen train --init"),
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
    with pytest.raises(EmogenError, match="cut short"):
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
    forget_checksums(path)
    state = {"optimizer": Trap(sprung)}
    with (path / TRAINER).open("wb") as stream:
        if form == "pickle":
            pickle.dump(state, stream)
        else:
            torch.save(state, stream, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(EmogenError, match=r"trainer.pt cannot be used: it is damaged or holds more than tensors"):
        load_trainer(path)
    assert not sprung.exists()
    torch.load(path / TRAINER, weights_only=False) if form != "pickle" else pickle.loads((path / TRAINER).read_bytes())
    assert sprung.exists(), "the trap works"


def test_a_damaged_trainer_is_refused_by_name(tmp_path: Path) -> None:
    path = put(tmp_path, "last", at(1, 1))
    whole = (path / TRAINER).read_bytes()
    forget_checksums(path)
    rng = np.random.default_rng(0)
    for content in (b"", b"\x80", whole[: len(whole) // 2], whole[100:], rng.bytes(500), b"\x80\x02}q\x00."[:4]):
        (path / TRAINER).write_bytes(content)
        with pytest.raises(EmogenError, match=r"trainer.pt cannot be used: it is damaged .*\(\w+\)$") as caught:
            load_trainer(path)
        assert "--resume NAME" in caught.value.hint


def test_a_checkpoint_without_a_trainer_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"best_epoch_001_loss_9\.0000 holds weights only") as caught:
        load_trainer(put(tmp_path, "best", at(1, 1)))
    assert caught.value.hint == "resume from one named last or epoch"


def test_the_vocabulary_of_a_checkpoint_is_that_of_the_tokens() -> None:
    assert at(0).vocabulary == tokens.fingerprint()
