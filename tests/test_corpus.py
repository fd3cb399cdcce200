from __future__ import annotations

import json
from pathlib import Path

import pytest

from emogen.data.corpus import open_corpus
from emogen.data.prepare import prepare
from emogen.errors import EmogenError
from emogen.settings import DataSettings
from tests.midi_files import dataset


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home" / "data"


def test_a_corpus_opens_by_name_folder_path_or_as_the_last_prepared(tmp_path: Path, home: Path) -> None:
    one = prepare(dataset(tmp_path / "one"), home, DataSettings(workers=1))
    two = prepare(dataset(tmp_path / "two"), home, DataSettings(workers=1), name="second-set")
    opened = {
        name: open_corpus(home, name).directory
        for name in ("", "one", "second-set", one.directory.name, str(two.directory))
    }
    assert opened == {
        "": two.directory,
        "one": one.directory,
        "second-set": two.directory,
        one.directory.name: one.directory,
        str(two.directory): two.directory,
    }
    with pytest.raises(EmogenError, match="no prepared corpus 'three'") as caught:
        open_corpus(home, "three")
    assert one.directory.name in caught.value.hint


def test_no_corpus_at_all_says_which_command_makes_one(home: Path) -> None:
    for name in ("", "EMOPIA"):
        with pytest.raises(EmogenError) as caught:
            open_corpus(home, name)
        assert "emogen prepare ./EMOPIA_1.0" in caught.value.hint


@pytest.mark.parametrize("part", ["manifest.json", "clips.npz", "notes.bin", "beats.bin"])
@pytest.mark.parametrize("damage", ["cut", "gone", "empty"])
def test_a_damaged_corpus_is_refused_and_prepared_anew(tmp_path: Path, home: Path, part: str, damage: str) -> None:
    source = dataset(tmp_path / "made")
    report = prepare(source, home, DataSettings(workers=1))
    path = report.directory / part
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: -100 if damage == "cut" else 0])
    with pytest.raises(EmogenError) as caught:
        open_corpus(home)
    assert "emogen prepare" in caught.value.hint
    again = prepare(source, home, DataSettings(workers=1))
    assert not again.already_there
    assert open_corpus(home).manifest.fingerprint == report.manifest.fingerprint


@pytest.mark.parametrize("key", ["format", "vocabulary"])
def test_a_corpus_of_another_version_is_refused_and_prepared_anew(tmp_path: Path, home: Path, key: str) -> None:
    source = dataset(tmp_path / "made")
    report = prepare(source, home, DataSettings(workers=1))
    path = report.directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: "other"}))
    with pytest.raises(EmogenError, match="another version") as caught:
        open_corpus(home)
    assert "prepare it again" in caught.value.hint
    assert not prepare(source, home, DataSettings(workers=1)).already_there
