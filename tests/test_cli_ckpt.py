from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from safetensors.torch import save_file

import emogen
from emogen.cli.ckpt import _age, sparkline
from emogen.model.checkpoint import META, WEIGHTS, Meta, load_weights, read_meta
from emogen.training.run import Run as RunFolder
from emogen.training.shelf import all_in, found
from tests import tiny
from tests.conftest import Run
from tests.training import Notebook, new_trainer

RUN = Path("runs/tiny")
CHECKPOINTS = RUN / "checkpoints"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: ``old``, which is the same as ``tiny``, the one trained last."""
    runs = tmp_path_factory.mktemp("runs")
    trainer = new_trainer(runs, epochs=3, checkpoint_every=1, keep_best=2)
    trainer.learn(Notebook())
    shutil.copytree(runs / "tiny", runs / "old")
    for path in all_in(runs / "old" / "checkpoints"):
        os.utime(path, (1e9, 1e9))
    return runs


@pytest.fixture
def ckpt(run: Run, trained: Path) -> Run:
    """``emogen ckpt`` where there are runs: exit code, standard output, standard error."""
    shutil.copytree(trained, "runs")
    return lambda *arguments: run("ckpt", *arguments)


def names(folder: Path = CHECKPOINTS) -> list[str]:
    return sorted(path.name for path in all_in(folder))


# ---- list


def test_list_prints_every_checkpoint_and_marks_the_best_of_each_run(ckpt: Run) -> None:
    code, out, err = ckpt("list")
    assert (code, err) == (0, "")
    title, *lines = out.splitlines()
    assert title.split() == ["run", "checkpoint", "epoch", "train", "valid", "size", "age"]
    assert [line.split()[0] for line in lines] == ["tiny"] * 5 + ["old"] * 5
    assert sorted(line.split()[1] for line in lines[:5]) == names()
    marked = [line.split()[1] for line in lines if "* best" in line]
    assert marked == [found(CHECKPOINTS, "best")[0].name] * 2
    meta = read_meta(CHECKPOINTS / "epoch_002")
    (row,) = (line for line in lines if line.startswith("tiny") and "epoch_002 " in line and "best" not in line)
    size = sum(file.stat().st_size for file in (CHECKPOINTS / "epoch_002").iterdir())
    loss = meta.history[1]
    assert row.split()[2:7] == ["2", f"{loss.train:.4f}", f"{loss.valid:.4f}", f"{size / 1e6:.1f}", "MB"]
    assert lines[-1].rstrip().endswith(" d")


def test_list_as_json_is_all_that_is_on_standard_output(ckpt: Run) -> None:
    code, out, err = ckpt("list", "--json")
    rows = json.loads(out)
    assert (code, err, len(rows)) == (0, "", 10)
    (row,) = (row for row in rows if row["best"] and row["run"] == "tiny")
    path = Path(row["path"])
    meta = read_meta(path)
    assert path == found(CHECKPOINTS, "best")[0]
    assert (row["name"], row["epoch"], row["step"]) == (path.name, meta.epoch, meta.step)
    assert (row["train"], row["valid"]) == (meta.history[-1].train, meta.valid_loss)
    assert row["bytes"] == sum(file.stat().st_size for file in path.iterdir())
    assert 0 <= row["age_s"] < 3600


def test_list_without_checkpoints_says_what_makes_some(run: Run) -> None:
    assert run("ckpt", "list") == (0, "", "no checkpoints in runs; emogen train makes some\n")
    assert run("ckpt", "list", "--json") == (0, "[]\n", "")
    assert run("ckpt", "list", "--runs", "there")[2].startswith("no checkpoints in there;")


def test_list_leaves_out_what_is_damaged_and_says_so(ckpt: Run) -> None:
    os.truncate(CHECKPOINTS / "epoch_002" / WEIGHTS, 1000)
    code, out, err = ckpt("list", "--json")
    assert code == 0
    assert len(json.loads(out)) == 9
    assert re.fullmatch(r"left out: runs/tiny/checkpoints/epoch_002 is not an emogen checkpoint, or is damaged\n", err)


def test_list_lets_pass_what_training_removes_meanwhile(ckpt: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read = read_meta

    def read_too_late(path: Path) -> Meta:
        if path.name == "epoch_002":
            shutil.rmtree(path, ignore_errors=True)
        return read(path)

    monkeypatch.setattr("emogen.model.checkpoint.read_meta", read_too_late)
    code, out, err = ckpt("list", "--json")
    assert (code, err, len(json.loads(out))) == (0, "", 8)


def test_names_that_look_like_markup_are_printed_as_they_are(ckpt: Run) -> None:
    RUN.rename("runs/[bold]x")
    assert "[bold]x " in ckpt("list")[1]
    assert "runs/[bold]x/checkpoints/last_" in ckpt("show", "[bold]x/last")[1]


# ---- show


def test_show_tells_everything_with_curves(ckpt: Run) -> None:
    code, out, err = ckpt("show", "tiny/best")
    assert (code, err) == (0, "")
    path = found(CHECKPOINTS, "best")[0]
    meta = read_meta(path)
    shown = {line[:18].strip(): line[18:].strip() for line in out.splitlines() if line[:17].strip()}
    assert shown["checkpoint"] == str(path)
    assert shown["run"] == "tiny"
    assert shown["made"] == f"{meta.created} by emogen {meta.emogen}, torch {meta.torch}"
    assert shown["trained"] == f"{meta.epoch} epochs, {meta.step:,} steps"
    assert shown["model"].startswith("tiny: 0.1 M parameters, d_model 32, 2 layers, 2 heads, context 32 notes")
    assert shown["emotions"] == "happy, excited, angry, tense, sad, calm"
    assert (shown["vocabulary"], shown["data fingerprint"]) == (meta.vocabulary, meta.dataset.fingerprint)
    assert shown["data"] == "music 0 (12 train, 4 valid, 4 test clips)"
    flat = " ".join(out.split())
    assert all(f"{name} {value}" in flat for name, value in meta.train.items())
    loss = meta.history[-1]
    assert re.fullmatch(rf"{loss.train:.4f} nats per note  [▁-█]{{{meta.epoch}}}", shown["train loss"])
    assert re.fullmatch(rf"{loss.valid:.4f} nats per note  [▁-█]{{{meta.epoch}}}", shown["valid loss"])
    assert f"shift {loss.valid_by_family['shift']:.3f}, pitch" in shown["valid by family"]
    assert f"{loss.valid / 4:.4f}" in out


def test_show_takes_the_best_by_itself_and_any_name_or_path(ckpt: Run) -> None:
    best = str(found(CHECKPOINTS, "best")[0])
    assert ckpt("show")[1].split()[1] == best
    for which in ("epoch_002", "tiny/epoch_002", "runs/tiny/checkpoints/epoch_002"):
        assert ckpt("show", which)[1].split()[1] == "runs/tiny/checkpoints/epoch_002"
    code, out, err = ckpt("show", "epoch_02")
    assert (code, out) == (1, "")
    assert "did you mean 'epoch_002'?" in err


def test_show_of_a_run_in_its_first_epoch_has_no_losses(run: Run) -> None:
    new_trainer(Path("runs")).save_last()
    code, out, _ = run("ckpt", "show", "last")
    assert code == 0
    assert "0 epochs, 0 steps" in out
    assert "loss" not in out.replace("best_epoch", "")


def test_show_as_json_is_the_metadata_itself(ckpt: Run) -> None:
    code, out, err = ckpt("show", "last", "--json")
    path = found(CHECKPOINTS, "last")[0]
    assert (code, err) == (0, "")
    assert json.loads(out) == {"path": str(path), **json.loads((path / META).read_text())}


@pytest.mark.parametrize(
    ("values", "curve"),
    [([1, 2, 3], "▁▅█"), ([5], "▁"), ([4, 4], "▁▁"), ([3, 2, 1], "█▅▁"), ([0, 7, 1, 6], "▁█▂▇")],
)
def test_a_curve_goes_from_the_lowest_to_the_highest_value(values: list[float], curve: str) -> None:
    assert sparkline(values) == curve


def test_a_long_curve_is_forty_wide_and_keeps_its_ends() -> None:
    curve = sparkline([100.0, *range(98), -100.0])
    assert len(curve) == 40
    assert (curve[0], curve[-1]) == ("█", "▁")
    assert len(sparkline(list(range(40)))) == 40


@pytest.mark.parametrize(("seconds", "age"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (200_000, "2 d")])
def test_ages_are_told_for_people(seconds: float, age: str) -> None:
    assert _age(seconds) == age


def test_the_bundled_voice_is_shown_like_any_other(run: Run) -> None:
    code, out, err = run("ckpt", "show", "default")
    assert (code, err) == (0, "")
    meta = json.loads(run("ckpt", "show", "default", "--json")[1])
    assert f"{meta['parameters']:,}" in out or f"{meta['parameters'] / 1e6:.1f}" in out
    assert [facts["name"] for facts in (*meta["ancestors"], meta["dataset"])] == ["pop909", "supra", "EMOPIA_1.0"]


def test_the_open_voice_is_shown_with_the_data_it_comes_from(run: Run) -> None:
    code, out, err = run("ckpt", "show", "open")
    assert (code, err) == (0, "")
    assert "pop909 (1,888 train" in out
    assert "EMOPIA" not in out


# ---- export


def test_an_exported_file_is_a_checkpoint_by_itself(ckpt: Run) -> None:
    code, out, err = ckpt("export", "best", "out/my model")
    assert (code, out) == (0, "")
    assert re.fullmatch(r"out/my model\.safetensors: 0\.\d MB; next: emogen generate --checkpoint 'out/.*'\n", err)
    file, best = Path("out/my model.safetensors"), found(CHECKPOINTS, "best")[0]
    assert file.read_bytes() == (best / WEIGHTS).read_bytes()
    shutil.rmtree("runs")
    assert ckpt("show", str(file))[1].startswith("checkpoint        out/my model.safetensors")
    assert load_weights(file).keys()
    assert ckpt("export", str(file), "again.safetensors")[0] == 0


def test_export_replaces_a_file_only_when_it_is_told_to(ckpt: Run) -> None:
    file = Path("mine.safetensors")
    file.write_text("mine")
    code, out, err = ckpt("export", "last", "mine")
    assert (code, out, err) == (1, "", "error: mine.safetensors exists already\nhint: --force replaces it\n")
    assert file.read_text() == "mine"
    assert ckpt("export", "last", "mine", "--force")[0] == 0
    assert read_meta(file).epoch == 3


def test_an_export_in_half_precision_is_half_the_size_and_nearly_the_same(ckpt: Run) -> None:
    for arguments in (("best", "whole"), ("best", "half", "--half")):
        assert ckpt("export", *arguments)[0] == 0
    whole, half = Path("whole.safetensors"), Path("half.safetensors")
    header = whole.stat().st_size - 4 * read_meta(whole).parameters
    assert half.stat().st_size - header < 0.51 * (whole.stat().st_size - header)
    others: dict[str, dict[str, str]] = {"checksums": {}}
    assert read_meta(half).model_copy(update=others) == read_meta(whole).model_copy(update=others)
    weights = load_weights(half)
    for name, weight in load_weights(whole).items():
        assert weights[name].dtype == weight.dtype
        assert (weights[name] - weight).abs().max() <= 1e-3 * weight.abs().max()
    assert any((weights[name] != weight).any() for name, weight in load_weights(whole).items())


def test_weights_beyond_half_precision_are_not_exported_in_it(ckpt: Run) -> None:
    path = found(CHECKPOINTS, "best")[0]
    weights = load_weights(path)
    next(iter(weights.values()))[0] = 1e6
    text = read_meta(path).model_copy(update={"checksums": {}}).model_dump_json()
    save_file(weights, path / WEIGHTS, metadata={"emogen": text})
    code, _, err = ckpt("export", "best", "half", "--half")
    assert (code, "beyond half precision" in err, Path("half.safetensors").exists()) == (1, True, False)


def test_nothing_damaged_is_exported(ckpt: Run) -> None:
    os.truncate(CHECKPOINTS / "epoch_002" / WEIGHTS, 100_000)
    code, _, err = ckpt("export", "epoch_002", "mine")
    assert code == 1
    assert "is cut short" in err
    assert not Path("mine.safetensors").exists()


# ---- prune


def answer(monkeypatch: pytest.MonkeyPatch, yes: bool) -> None:
    monkeypatch.setattr(typer, "confirm", lambda *_, **__: yes)


def test_prune_asks_and_keeps_the_last_and_the_best(ckpt: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = names()
    answer(monkeypatch, False)
    code, out, err = ckpt("prune")
    assert (code, out) == (0, "")
    assert err.endswith("nothing was removed\n")
    assert names() == before
    answer(monkeypatch, True)
    doomed = [found(CHECKPOINTS, "best")[1].name, "epoch_003", "epoch_002"]
    size = sum(file.stat().st_size for name in doomed for file in (CHECKPOINTS / name).iterdir()) / 1e6
    code, out, err = ckpt("prune")
    assert (code, out) == (0, "")
    assert err.splitlines() == [*(f"remove {name}" for name in doomed), f"{size:.1f} MB freed"]
    assert names() == sorted(set(before) - set(doomed))
    assert names(Path("runs/old/checkpoints")) == before
    assert sorted(path.name for path in CHECKPOINTS.iterdir()) == names()
    assert ckpt("prune", "--yes")[2] == "run 'tiny' has nothing to remove\n"


def test_prune_without_an_answer_removes_nothing(ckpt: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = names()
    with (tmp_path / "silence").open("w+") as silence:
        monkeypatch.setattr(sys, "stdin", silence)
        code, _, err = ckpt("prune")
    assert code == 130
    assert "3 checkpoints, " in err
    assert names() == before


def test_prune_keeps_as_many_as_it_is_told_of_the_run_it_is_told(ckpt: Run) -> None:
    old = Path("runs/old/checkpoints")
    before = names()
    assert ckpt("prune", "--run", "old", "--keep-best", "0", "--keep-periodic", "1", "--yes")[0] == 0
    assert [path.name for path in all_in(old)] == ["epoch_003", found(CHECKPOINTS, "last")[0].name]
    assert names() == before
    assert ckpt("list", "--json")[1].count('"run": "old"') == 2
    assert json.loads(ckpt("list", "--json")[1])[0]["run"] == "tiny", "pruning is no training"


def test_prune_leaves_a_run_alone_while_it_is_trained(ckpt: Run) -> None:
    before = names()
    with RunFolder(Path("runs"), "tiny"):
        code, _, err = ckpt("prune", "--yes")
    assert code == 1
    assert "in use by another process" in err
    assert names() == before


def test_none_of_it_needs_torch(ckpt: Run) -> None:
    code = (
        "import sys, emogen.cli\n"
        "for words in ('list', 'show best', 'show last --json', 'export best mine', 'prune --yes', 'list --json'):\n"
        "    try: emogen.cli.main(['ckpt', *words.split()])\n"
        "    except SystemExit as done: assert not done.code, words\n"
        "assert 'torch' not in sys.modules\n"
    )
    root = str(Path(emogen.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert Path("mine.safetensors").exists()


def test_a_loss_that_is_no_number_is_null_in_json(run: Run, tmp_path: Path) -> None:
    meta = tiny.at(1, loss=float("nan"))
    path = tiny.put(tmp_path / "runs" / "main" / "checkpoints", "best", meta)
    shown = json.loads(run("ckpt", "show", str(path), "--json")[1], parse_constant=pytest.fail)
    assert shown["history"][0]["valid"] is None
