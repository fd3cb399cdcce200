from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import emogen
from emogen import __version__
from emogen.cli import doctor
from tests import tiny
from tests.conftest import Run

PARTS = ["versions", "computer", "sound", "folders", "prepared data", "runs"]


def test_doctor_tells_versions_devices_folders_and_runs(run: Run) -> None:
    tiny.save(Path("runs"))
    code, out, err = run("doctor", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert list(report) == PARTS
    assert not [part for part, facts in report.items() if "trouble" in facts]
    assert report["versions"]["emogen"] == __version__
    assert report["versions"]["torch"] == torch.__version__
    assert report["versions"]["Python"].startswith(platform.python_version())
    assert report["computer"]["devices"].startswith("cpu")
    assert report["computer"]["cores"] == os.cpu_count()
    assert report["sound"]["plays"] == "TimGM6mb"
    assert report["sound"].keys() == {"soundfile", "SoundFont", "installed", "plays", "advice"}
    assert report["sound"]["SoundFont"].endswith("TimGM6mb.sf2")
    assert report["sound"]["installed"] == "none"
    assert report["folders"]["runs"].startswith("runs (")
    assert report["runs"]["tiny"].startswith("1 checkpoints, such as best_epoch_000_loss_17.4740 of 0.1 M parameters")


def test_for_people_each_part_has_its_heading(run: Run) -> None:
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line for line in lines if not line.startswith("  ")] == PARTS
    assert lines[lines.index("runs") + 1] == "  none"


def test_a_part_that_fails_is_told_and_the_others_stand(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    code, out, _ = run("doctor", "--json")
    report = json.loads(out)
    assert code == 0
    assert "torch" in report["computer"]["trouble"]
    assert report["sound"]["soundfile"].startswith("no (")
    assert "trouble" not in report["folders"]


def test_a_soundfont_that_cannot_be_played_is_told(run: Run) -> None:
    Path("emogen.toml").write_text('[paths]\nsoundfont = "nowhere.sf2"\n')
    sound = json.loads(run("doctor", "--json")[1])["sound"]
    assert sound["SoundFont"] == "nowhere.sf2"
    assert sound["plays"].startswith("nothing: the SoundFont nowhere.sf2 cannot be played")


def test_prepared_data_that_is_damaged_is_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOGEN_HOME", str(tmp_path))
    (tmp_path / "data" / "x-1").mkdir(parents=True)
    (tmp_path / "data" / "x-1" / "manifest.json").write_text("{}")
    report = json.loads(run("doctor", "--json")[1])
    assert "is damaged" in report["prepared data"]["x-1"]


def test_nobodys_home_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert doctor._place(Path("/home/ada/music")) == f"~{os.sep}music"
    assert doctor._place("/home/adam/music") == "/home/adam/music"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("gen", {"generate"}), ("ckpt ", {"list", "show", "export", "prune"}), ("generate --see", {"--seed"}),
     ("train --device c", {"cpu", "cuda"})],
)  # fmt: skip
def test_the_shell_completes_commands_flags_and_choices(typed: str, offered: set[str], tmp_path: Path) -> None:
    words = f"emogen {typed}"
    done = subprocess.run(
        [sys.executable, "-m", "emogen"],
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(Path(emogen.__file__).parents[1]), "_EMOGEN_COMPLETE": "complete_bash",
           "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert set(done.stdout.split()) == offered, done.stderr


def test_the_completion_script_is_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))  # there may be no shell above
    code, out, _ = run("--show-completion")
    assert code == 0
    assert "_EMOGEN_COMPLETE=complete_bash" in out
