"""Files that others made, and machines that are not as ours: refused in one line, or done, and nothing in between.

Every case stands for a kind; ``python -m tests.fuzz`` tries many more of each.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emogen.data.corpus import CLIPS, MANIFEST, NOTES, Manifest, checksums, open_corpus
from emogen.data.prepare import prepare
from emogen.errors import EmogenError
from emogen.model.checkpoint import TRAINER, WEIGHTS, check_fits, load_arrays, load_trainer, read_meta
from emogen.model.opening import open_in_torch, open_network
from emogen.settings import DataSettings, ModelSettings
from emogen.training import shelf
from emogen.training.trainer import Trainer
from tests import tiny
from tests.hostile import change_header, change_meta, forget_checksums
from tests.midi_files import dataset
from tests.training import Notebook, new_trainer

# ---- a trainer's state


@pytest.fixture(scope="module")
def run_of_three_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder ``runs`` of a training that was stopped after three steps."""
    runs = tmp_path_factory.mktemp("three") / "runs"
    trainer = new_trainer(runs)
    assert not trainer.learn(Notebook(3, lambda: signal.raise_signal(signal.SIGINT)))
    return runs


@pytest.fixture
def stopped(run_of_three_steps: Path, tmp_path: Path) -> Path:
    """The last checkpoint of that training, in a copy; without checksums, as emogen 0.3 wrote it."""
    shutil.copytree(run_of_three_steps, tmp_path / "runs")
    (path,) = shelf.resumable(tmp_path / "runs" / "tiny" / "checkpoints")
    forget_checksums(path)
    return path


def resumed(path: Path) -> Trainer:
    trainer = new_trainer(path.parents[2])
    trainer.resume(path)
    return trainer


def first(state: Any) -> dict[str, Any]:
    moments: dict[str, Any] = state["optimizer"]["state"][0]
    return moments


def numbers(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], Any]:
    return lambda state: first(state).update({name: change(first(state)[name])})


WRONG_STATES: dict[str, Callable[[Any], Any]] = {
    "a moment of one number": numbers("exp_avg", lambda own: torch.zeros(1)),
    "a moment that is turned": numbers("exp_avg", lambda own: own.T),
    "a moment in double": numbers("exp_avg", torch.Tensor.double),
    "whole numbers": numbers("exp_avg", torch.Tensor.int),
    "sparse": numbers("exp_avg", torch.Tensor.to_sparse),
    "no tensor": lambda state: first(state).update(exp_avg=0.0),
    "NaN": numbers("exp_avg", lambda own: own * torch.nan),
    "infinity": numbers("exp_avg_sq", lambda own: own + torch.inf),
    "negative squares": numbers("exp_avg_sq", lambda own: -1 - own),
    "other steps": numbers("step", lambda own: own + 1),
    "a moment missing": lambda state: first(state).pop("exp_avg"),
    "a moment more": lambda state: first(state).update(max_exp_avg_sq=first(state)["exp_avg_sq"]),
    "a weight missing": lambda state: state["optimizer"]["state"].pop(3),
    "a weight more": lambda state: state["optimizer"]["state"].update({999: first(state)}),
    "no state": lambda state: state["optimizer"]["state"].clear(),
    "no groups": lambda state: state["optimizer"].update(param_groups=[]),
    "groups of nothing": lambda state: state["optimizer"].update(param_groups=None),
    "a list for an optimizer": lambda state: state.update(optimizer=[1]),
    "batches below nothing": lambda state: state["progress"].update(batch=-1),
    "batches that are a word": lambda state: state["progress"].update(batch="three"),
    "half a batch": lambda state: state["progress"].update(batch=2.5),
    "another step": lambda state: state["progress"].update(step=4),
    "another epoch": lambda state: state["progress"].update(epoch=1),
    "no notes": lambda state: state["progress"].update(notes=0),
    "nats that are no number": lambda state: state["progress"].update(nats=float("nan")),
    "time without end": lambda state: state["progress"].update(seconds=float("inf")),
    "no batch": lambda state: state["progress"].pop("batch"),
}


@pytest.mark.parametrize("wrong", WRONG_STATES)
def test_a_state_that_no_training_had_is_refused(wrong: str, stopped: Path) -> None:
    state = load_trainer(stopped)
    WRONG_STATES[wrong](state)
    torch.save(state, stopped / TRAINER)
    with pytest.raises(EmogenError, match="does not fit together") as caught:
        resumed(stopped)
    assert "emogen ckpt list" in caught.value.hint


def test_options_of_an_optimizer_are_those_of_the_settings_whatever_a_file_says(stopped: Path) -> None:
    state = load_trainer(stopped)
    for group in state["optimizer"]["param_groups"]:
        group.update(betas=(5.0, -5.0), eps=-1.0, lr=float("nan"), maximize=True, fused=False, capturable=True)
    torch.save(state, stopped / TRAINER)
    ours = new_trainer(stopped.parents[2] / "other").optimizer.state_dict()["param_groups"]
    assert resumed(stopped).optimizer.state_dict()["param_groups"] == ours


def test_moments_that_share_memory_are_parted(stopped: Path) -> None:
    state = load_trainer(stopped)
    moments = first(state)
    shared = moments["exp_avg_sq"][:1].expand_as(moments["exp_avg"])
    moments.update(exp_avg=shared, exp_avg_sq=shared)
    torch.save(state, stopped / TRAINER)
    trainer = resumed(stopped)
    taken = trainer.optimizer.state_dict()["state"][0]
    assert taken["exp_avg"].is_contiguous()
    assert taken["exp_avg"].untyped_storage().data_ptr() != taken["exp_avg_sq"].untyped_storage().data_ptr()
    assert trainer.learn(Notebook())


@pytest.mark.parametrize("file", [TRAINER, WEIGHTS])
def test_a_bit_that_fell_over_is_noticed_by_its_checksum(file: str, run_of_three_steps: Path, tmp_path: Path) -> None:
    shutil.copytree(run_of_three_steps, tmp_path / "runs")
    (path,) = shelf.resumable(tmp_path / "runs" / "tiny" / "checkpoints")
    content = bytearray((path / file).read_bytes())
    content[len(content) // 2] ^= 1
    (path / file).write_bytes(content)
    with pytest.raises(EmogenError, match=r"damaged: (its|their) checksum is another"):
        resumed(path)


def test_a_checkpoint_of_0_3_without_checksums_is_resumed(stopped: Path) -> None:
    assert read_meta(stopped).checksums == {}
    assert resumed(stopped).learn(Notebook())


def test_weights_that_are_no_numbers_reach_no_checkpoint(tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path)
    trainer.save_last()
    there = list(trainer.run.checkpoints.iterdir())
    trainer.progress.step += 1
    with torch.no_grad():
        next(trainer.model.parameters())[0] = torch.nan
    with pytest.raises(EmogenError, match="no longer finite"):
        trainer.save_last()
    assert list(trainer.run.checkpoints.iterdir()) == there


# ---- a checkpoint's metadata


def test_no_network_is_drawn_before_its_weights_are_seen_to_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny.save(tmp_path)
    large = ModelSettings(d_model=8192, n_layers=128, n_heads=1, context_notes=65536)
    change_meta(path, model=large.model_dump())
    assert read_meta(path).model == large
    with pytest.raises(EmogenError, match="do not fit"):
        check_fits(path, read_meta(path).model)
    monkeypatch.setattr("emogen.model.opening.load_into", None)
    for device in ("cpu", "auto"):
        with pytest.raises(EmogenError, match="do not fit"):
            open_network(path, read_meta(path), device)
    with pytest.raises(EmogenError, match="do not fit"):
        open_in_torch(path, read_meta(path), "cpu")


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor.update(shape=[2**40]),
        lambda tensor: tensor.update(shape=[-1, -32]),
        lambda tensor: tensor.update(dtype="I64"),
        lambda tensor: tensor.update(data_offsets=[0, 2**62]),
        lambda tensor: tensor.update(data_offsets=[4, 0]),
        lambda tensor: tensor.update(data_offsets="all"),
        lambda tensor: tensor.pop("shape"),
    ],
)
def test_weights_fill_their_file_exactly(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    path = tiny.save(tmp_path)
    change_header(path / WEIGHTS, lambda header, _: change(header["emotion.weight"]))
    with pytest.raises(EmogenError, match="is not an emogen checkpoint, or is damaged"):
        load_arrays(path)


# ---- a prepared corpus


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return dataset(tmp_path / "source")


def prepared_in(tmp_path: Path, source: Path) -> Path:
    return prepare(source, tmp_path / "data", DataSettings(workers=1)).directory


def a_bit(name: str) -> Callable[[Path], None]:
    def flip(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 4
        (folder / name).write_bytes(content)

    return flip


def another_name(folder: Path) -> None:
    path = folder / MANIFEST
    path.write_text(path.read_text().replace('"name": "source"', '"name": "sauce"'))


def other_clips(**columns: Any) -> Callable[[Path], None]:
    """Columns of clips.npz that cannot be, with checksums that are right."""

    def change(folder: Path) -> None:
        with np.load(folder / CLIPS) as arrays:
            kept = dict(arrays)
        np.savez(folder / CLIPS, **kept | {name: value(kept[name]) for name, value in columns.items()})
        manifest = open_corpus_manifest(folder)
        true = manifest.model_copy(update={"checksums": checksums(folder, manifest)})
        (folder / MANIFEST).write_text(true.model_dump_json())

    return change


def open_corpus_manifest(folder: Path) -> Manifest:
    return Manifest.model_validate_json((folder / MANIFEST).read_text())


def a_pipe(folder: Path) -> None:
    (folder / NOTES).unlink()
    os.mkfifo(folder / NOTES)


DAMAGED_CACHES: dict[str, Callable[[Path], None]] = {
    **{f"a bit of {name}": a_bit(name) for name in (NOTES, CLIPS, MANIFEST)},
    "another name": another_name,
    "no checksums": lambda folder: (folder / MANIFEST).write_text(
        open_corpus_manifest(folder).model_copy(update={"checksums": {}}).model_dump_json()
    ),
    "a manifest nested without end": lambda folder: (folder / MANIFEST).write_text("[" * 100_000),
    "a pipe": a_pipe,
    "clips that go backwards": other_clips(start=lambda own: own[::-1].copy()),
    "an emotion too many": other_clips(emotion=lambda own: own + 6),
    "a song too many": other_clips(song=lambda own: own + 1000),
    "a split that is a fraction": other_clips(split=lambda own: own + 0.5),
    "a clip fewer": other_clips(split=lambda own: own[1:]),
}


@pytest.mark.parametrize("damage", DAMAGED_CACHES)
def test_a_damaged_cache_is_refused_in_a_line_and_prepare_mends_it(damage: str, source: Path, tmp_path: Path) -> None:
    folder = prepared_in(tmp_path, source)
    notes = (folder / NOTES).read_bytes()
    DAMAGED_CACHES[damage](folder)
    with pytest.raises(EmogenError, match=f"^{folder} (is damaged|was prepared by another version)") as caught:
        open_corpus(tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert "emogen prepare" in caught.value.hint
    assert not prepare(source, tmp_path / "data", DataSettings(workers=1)).already_there
    assert open_corpus(tmp_path / "data").tokens.tobytes() == notes


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"a\0b", b"\x1b[2J"])
def test_a_name_of_the_current_corpus_that_is_none_is_mended_too(content: bytes, source: Path, tmp_path: Path) -> None:
    folder = prepared_in(tmp_path, source)
    (tmp_path / "data" / "current").write_bytes(content)
    with pytest.raises(EmogenError, match="current is damaged"):
        open_corpus(tmp_path / "data")
    assert prepare(source, tmp_path / "data", DataSettings(workers=1)).already_there
    assert open_corpus(tmp_path / "data").directory == folder
