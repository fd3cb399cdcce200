"""Files that others made, and machines that are not as ours: refused in one line, or done, and nothing in between.

Every case stands for a kind; ``python -m tests.fuzz`` tries many more of each.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

import emogen as emogen_package
from emogen.cli.console import console, output
from emogen.data.corpus import CLIPS, MANIFEST, NOTES, Manifest, checksums, open_corpus
from emogen.data.prepare import prepare
from emogen.ear.fitted import BUNDLED, Ear
from emogen.errors import EmogenError, UnusableFile
from emogen.model.checkpoint import TRAINER, WEIGHTS, check_fits, load_arrays, load_trainer, plans_of, read_meta
from emogen.model.opening import open_in_torch, open_network
from emogen.music.midi import midi_bytes
from emogen.settings import DataSettings, ModelSettings, Settings
from emogen.sound.regions import Gen
from emogen.sound.soundfont import MOST_AT_ONCE, SoundFont
from emogen.system.devices import is_out_of_memory
from emogen.system.files import disk_of, whole, write_text
from emogen.training import shelf
from emogen.training.curves import read_log
from emogen.training.run import Run as TrainingRun
from emogen.training.trainer import Trainer
from tests import tiny
from tests.conftest import Run
from tests.hostile import change_header, change_meta, forget_checksums
from tests.midi_files import dataset
from tests.music import random_piece
from tests.soundfonts import soundfont, span
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


def first(state: Any, name: str = "exp_avg") -> dict[str, Any]:
    """What an optimizer keeps of the first weight of which it keeps that: AdamW its moments, Muon a momentum."""
    kept: Iterator[dict[str, Any]] = iter(state["optimizer"]["state"].values())
    return next(moments for moments in kept if name in moments)


def numbers(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], Any]:
    return lambda state: first(state, name).update({name: change(first(state, name)[name])})


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
    "a momentum of one number": numbers("momentum", lambda own: torch.zeros(1)),
    "a momentum that is NaN": numbers("momentum", lambda own: own * torch.nan),
    "a momentum where moments should be": lambda state: first(state).update(momentum=first(state).pop("exp_avg")),
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
    with pytest.raises(EmogenError, match="do not fit together") as caught:
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
    taken = first({"optimizer": trainer.optimizer.state_dict()})
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
    "no checksums": lambda folder: write_text(
        folder / MANIFEST, open_corpus_manifest(folder).model_copy(update={"checksums": {}}).model_dump_json()
    ),
    "a manifest nested without end": lambda folder: write_text(folder / MANIFEST, "[" * 100_000),
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


# ---- what others say of themselves


STEERS = "x\x1b]0;PWNED\x07\x1b[2J\x9b31m\u202e"


def hostile_home(here: Path) -> None:
    """Names, labels and metadata that would steer a terminal, wherever a command finds some."""
    path = tiny.save(here / "runs", run="escapes")
    change_meta(path, run=STEERS, created=STEERS, emogen=STEERS, init=STEERS)
    shutil.copy(path / WEIGHTS, here / "escapes.safetensors")
    for number in range(3):
        folder = here / "music" / STEERS.replace("/", "") / "happy"
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"emogen": 1, "emotion": {STEERS: 1}, "seconds": 5, "seed": STEERS, STEERS: [STEERS]})
        (folder / f"{number}{STEERS}.mid").write_bytes(midi_bytes(random_piece(number, 30), text))
    (here / "music" / f"{STEERS}.mid").write_bytes(b"no music")
    (here / "list.csv").write_text(f"path,emotion\n{STEERS}.mid,{STEERS}\n", encoding="utf-8")
    (here / "bad.toml").write_text(f'[train]\n"{STEERS.encode("unicode_escape").decode()}" = 1\n')


@pytest.mark.parametrize("terminal", [False, True])
def test_no_command_lets_others_steer_the_terminal(terminal: bool, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path.cwd()
    hostile_home(here)
    songs = sorted(map(str, here.rglob("*x*.mid")))
    if terminal:
        for one in (console, output):
            monkeypatch.setattr(one, "_force_terminal", True)
    said = ""
    for command in (
        ["ckpt", "list"], ["ckpt", "show", "escapes.safetensors"], ["ckpt", "show", STEERS],
        ["ckpt", "show", "best", "--json"], ["show", songs[0]], ["show", songs[0], "--json"], ["judge", *songs],
        ["render", "--png", "--out", "out", *songs], ["generate", "-e", STEERS], ["prepare", "list.csv"],
        ["prepare", "music", "--home", "home"], ["prepare", "music", "--home", "home", "--json"],
        ["train", "--home", "home", "--name", "a", "--init", STEERS], ["evaluate", "--checkpoint", STEERS],
        ["listening-test", "--score", STEERS], ["doctor", "--home", "home"], ["config", "show", "--runs", STEERS],
        ["config", "show"], [STEERS], ["generate", "-e", "happy", "-s", "5", "--out", STEERS],
    ):  # fmt: skip
        code, out, err = run(*command)
        assert code in (0, 1, 2), command
        said += out + err
    for character in "\x07\x9b\u202e":
        assert character not in said
    assert "\x1b]" not in said
    assert "\x1b[2J" not in said
    assert "\\x1b]0;PWNED\\x07" in said


@pytest.mark.parametrize(
    "says",
    [
        {"emotion": [5]},
        {"emotion": 5},
        {"emotion": {}},
        {"seconds": "long"},
        {"seed": {"a": []}},
        {"emotion": {"\ud800": 1}},
    ],
)
def test_an_odd_manifest_does_not_cost_the_batch(says: dict[str, Any], run: Run) -> None:
    known = {"emogen": 1, "emotion": {"sad": 1}, "seconds": 5, "seed": 1} | says
    Path("odd.mid").write_bytes(midi_bytes(random_piece(0, 20), json.dumps(known)))
    Path("plain.mid").write_bytes(midi_bytes(random_piece(1, 20)))
    code, _, err = run("render", "--png", "odd.mid", "plain.mid")
    assert (code, err.count("wrote")) == (0, 2)
    assert run("show", "odd.mid")[0] == 0


def test_losses_that_are_no_numbers_are_shown_as_such(run: Run) -> None:
    path = tiny.save(Path("runs"))
    epochs = [{"epoch": n, "train": 9.0, "valid": loss, "valid_by_family": {}, "seconds": 1.0}
              for n, loss in enumerate((9.0, float("nan"), 8.0, float("inf")), 1)]  # fmt: skip
    change_meta(path, history=epochs)
    code, out, _ = run("ckpt", "show", "best")
    assert (code, "█?▁?" in out) == (0, True)
    assert run("ckpt", "export", "best", "half", "--half")[0] == 0
    assert [loss.epoch for loss in read_meta(Path("half.safetensors")).history] == [1, 2, 3, 4]


@pytest.mark.parametrize("row", [[1e38] * 21, [float("nan")] * 21, [0.0], []])
def test_plans_that_no_music_has_are_refused(row: list[float], tmp_path: Path) -> None:
    path = tiny.save(tmp_path)
    plan = read_meta(path).plan
    rows = [[0.0] * len(plan["mean"]), (row * 2)[: len(plan["mean"])] if len(row) > 1 else row]
    change_meta(path, plan={**plan, "by_emotion": {"happy": rows}})
    with pytest.raises(EmogenError, match="are damaged"):
        plans_of(path, read_meta(path))


def test_composing_stops_at_the_first_scores_that_are_no_numbers(run: Run) -> None:
    path = tiny.save(Path("runs"))
    body = bytes(4 * sum(weight.size for weight in load_arrays(path).values()))
    change_meta(path, body, checksums={})
    code, _, err = run("generate", "-e", "happy", "-s", "5")
    assert (code, "contain NaN or infinity" in err) == (1, True)
    assert "hint: try another checkpoint" in err


def other_ears() -> dict[str, Callable[[dict[str, Any], dict[str, Any]], None]]:
    return {
        "no scores": lambda known, arrays: known.pop("scores"),
        "scores that are words": lambda known, arrays: known.update(
            scores={"quadrant": "good", "arousal": 1, "valence": 1}
        ),
        "NaN": lambda known, arrays: arrays.update({"judge/mean": arrays["judge/mean"] * np.nan}),
        "a feature fewer": lambda known, arrays: arrays.update({"judge/scale": arrays["judge/scale"][1:]}),
        "coherence of fewer features": lambda known, arrays: arrays.update(
            {f"coherence/{name}": arrays[f"coherence/{name}"][1:] for name in ("mean", "scale", "weights")}
        ),
    }


@pytest.mark.parametrize("odd", other_ears())
def test_an_odd_ear_is_refused(odd: str, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    with safe_open(BUNDLED, framework="numpy") as stored:
        known = json.loads(stored.metadata()["ear"])
        arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
    other_ears()[odd](known, arrays)
    save_file(arrays, tmp_path / "ear.safetensors", {"ear": json.dumps(known)})
    with pytest.raises(EmogenError, match="cannot be used"):
        Ear.load(tmp_path / "ear.safetensors")


# ---- SoundFonts and settings


def test_a_soundfont_does_not_stand_for_more_than_it_is(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match="sound at once"):
        SoundFont(soundfont(tmp_path / "many.sf2", *[[]] * (MOST_AT_ONCE + 1)))
    SoundFont(soundfont(tmp_path / "most.sf2", *[[]] * MOST_AT_ONCE))
    split = [[(Gen.KEYS, span(key, key))] for key in range(128)]
    assert len(SoundFont(soundfont(tmp_path / "split.sf2", *split)).regions) == 128
    file = soundfont(tmp_path / "shared.sf2", *split)
    raw = bytearray(file.read_bytes())
    at = raw.index(b"ibag") + 8
    raw[at : at + 4] = struct.pack("<HH", 300, 0)  # the first zone's amounts would be those of all
    file.write_bytes(raw)
    with pytest.raises(UnusableFile, match="damaged"):
        SoundFont(file)


@pytest.mark.parametrize("content", ["x = " + "[" * 5000, "[train]\nepochs = 0x" + "f" * 9000])
def test_settings_nested_without_end_are_refused(content: str, run: Run) -> None:
    Path("emogen.toml").write_text(content)
    code, _, err = run("config", "show")
    assert (code, err.startswith("error: ./emogen.toml: ")) == (2, True)


# ---- odd machines


def test_a_pipe_is_no_file_whatever_it_is_given_for(run: Run) -> None:
    tiny.save(Path("runs"))
    for name in ("pipe.mid", "pipe.zip", "pipe.csv", "pipe.sf2", "pipe.safetensors", "emogen.toml"):
        os.mkfifo(name)
    plain = Path("plain.mid")
    plain.write_bytes(midi_bytes(random_piece(1, 20)))
    assert run("config", "show")[0] == 2
    Path("emogen.toml").unlink()
    for command in (
        ["show", "pipe.mid"], ["judge", "pipe.mid"], ["judge", "plain.mid", "--ear", "pipe.safetensors"],
        ["render", "--png", "pipe.mid"], ["render", "--wav", "--soundfont", "pipe.sf2", "plain.mid"],
        ["prepare", "pipe.zip"], ["prepare", "pipe.csv"], ["ckpt", "show", "pipe.safetensors"],
        ["generate", "-e", "sad", "--checkpoint", "pipe.safetensors"], ["generate", "-e", "sad", "--prime", "pipe.mid"],
    ):  # fmt: skip
        code, _, err = run(*command)
        assert (code in (1, 2), "error: " in err) == (True, True), command


def test_what_cannot_be_written_is_refused_before_composing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.save(Path("runs"))
    monkeypatch.setattr("emogen.composing.voice.open_network", None)
    Path("link").symlink_to("nowhere")
    Path("a file").write_text("")
    Path("folder.png").mkdir()
    for out in ("link/x.mid", "link", "a file/x.mid", "x" * 300 + ".mid", "x" * 300):
        code, _, err = run("generate", "-e", "sad", "--out", out)
        assert (code, "error: " in err) == (1, True), out
    code, _, err = run("generate", "-e", "sad", "--out", "folder.mid", "--png", "--force")
    assert (code, "folder.png is a folder" in err) == (1, True)


def test_a_name_as_long_as_names_can_be_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("x" * 255), "whole")
    assert (tmp_path / ("x" * 255)).read_text() == "whole"


def test_a_full_disk_is_named_with_the_file(tmp_path: Path) -> None:
    def fill() -> None:
        with whole(tmp_path / "piece.mid"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        fill()
    assert caught.value.filename == str(tmp_path / "piece.mid")
    assert "MB are free" in disk_of(tmp_path / "piece.mid")
    assert list(tmp_path.iterdir()) == []


def emogen(*arguments: str, shell: str = "{}", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A new process, by way of a shell command with the words of the command in place of ``{}``."""
    words = " ".join(map(shlex.quote, (sys.executable, "-m", "emogen", *arguments)))
    here = {"PYTHONPATH": str(Path(emogen_package.__file__).parents[1]), **environment}
    kept = {name: value for name, value in os.environ.items() if name not in ("HOME", "LC_ALL", "LANG")}
    return subprocess.run(["bash", "-c", shell.format(words)], env=kept | here, capture_output=True)


@pytest.mark.slow
def test_closed_streams_cost_no_work(nobody: None) -> None:
    for number, shell in enumerate(("{} >&-", "{} 2>&-", "{} <&- >&- 2>&-")):
        done = emogen("generate", "-e", "sad", "-s", "5", "--out", f"{number}.mid", "--json", shell=shell, HOME="/")
        assert (done.returncode, Path(f"{number}.mid").exists()) == (0, True), shell
    assert len({Path(f"{number}.mid").read_bytes()[:4] for number in range(3)}) == 1


def test_without_a_home_and_a_name_all_works_that_needs_none(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.save(Path("runs"))
    dataset(Path("music"))
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user without HOME and entry in passwd
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for command in (
        ["config", "show"], ["config", "init"], ["doctor"], ["ckpt", "list"], ["prepare", "music", "--home", "home"],
        ["generate", "-e", "sad", "-s", "5", "--out", "x.mid"], ["show", "x.mid"],
    ):  # fmt: skip
        assert run(*command)[0] == 0, command
    code, _, err = run("prepare", "music")
    assert (code, err.startswith("error: this user has no home folder")) == (2, True)
    code, _, err = run("ckpt", "list", "--runs", "~/runs")
    assert (code, "home folder" in err) == (2, True)
    assert not Path("~").exists()


def test_the_run_folder_that_vanished_is_made_again_or_another_takes_its_place(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path / "runs", "main")
    run.say("first")
    shutil.rmtree(tmp_path / "runs")
    run.say("second \udcff")
    assert (tmp_path / "runs" / "main" / "log.txt").read_text().endswith("second \\udcff\n")
    shutil.rmtree(tmp_path / "runs")
    (tmp_path / "runs").write_text("in its place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emogen.training.run.gettempdir", lambda: str(tmp_path / "elsewhere"))
        run.record({"epoch": 1})
    assert run.folder == tmp_path / "elsewhere" / "emogen-run-main"
    assert run.checkpoints.is_dir()


@pytest.mark.parametrize("cut", ['{"epoch": 3, "tra', "\0\0\0", "[1]", '{"epoch": 3}'])
def test_a_log_that_was_cut_is_mended_when_the_run_goes_on(cut: str, tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, "main")
    run.record({"epoch": 1})
    run.record({"epoch": 2})
    with (run.folder / "log.jsonl").open("a") as log:
        log.write(cut)
    run.begin(Settings())
    run.record({"epoch": 4})
    epochs = [facts["epoch"] for facts in read_log((run.folder / "log.jsonl").read_text())]
    assert epochs == ([1, 2, 3, 4] if cut.endswith("}") else [1, 2, 4])


def test_libraries_words_for_a_lack_of_memory_are_known() -> None:
    for error in (MemoryError(), RuntimeError("std::bad_alloc"), RuntimeError("could not create a primitive")):
        assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


def test_a_signal_ends_a_command_in_order(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, pathlib; from emogen.system.files import whole; from emogen.system.signals import "
        "end_in_order\nend_in_order()\nwith whole(pathlib.Path(sys.argv[1]) / 'x.mid') as draft:\n"
        "    draft.write_text('half'); os.kill(os.getpid(), signal.SIGHUP); signal.pause()"
    )
    root = str(Path(emogen_package.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=os.environ | {"PYTHONPATH": root})
    assert done.returncode == 128 + signal.SIGHUP
    assert list(tmp_path.iterdir()) == []


def test_a_byte_that_is_no_text_in_the_log_is_mended_too(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, "run")
    run.checkpoints.mkdir(parents=True)
    log = run.folder / "log.jsonl"
    log.write_bytes(b'{"epoch": 1, "train": 9.0, "valid": 9.0}\n{"epoch": 2, "tr\x80in": 9.0, "valid": 9.0}\n')
    run.mend()
    assert log.read_text(encoding="utf-8").splitlines()[0] == '{"epoch": 1, "train": 9.0, "valid": 9.0}'
