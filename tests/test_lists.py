"""Lists of labels as spreadsheets save them, and sources that are odd."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from emogen.data.lists import SEPARATORS, meant, read_table
from emogen.data.prepare import prepare
from emogen.data.sources import find
from emogen.errors import EmogenError
from emogen.settings import TEST_DATA, DataSettings
from tests.midi_files import dataset, midi, note, track, tune

SHARED = Path(os.environ.get(TEST_DATA, Path(__file__).parents[2] / "shared"))
HOSTILE = SHARED / "cases" / "hostile"
WRITTEN = {
    "happy": ("happy", " Happy ", "JOY"),
    "tense": ("tense", "fear"),
    "Q1": ("1", "Q1", "q1"),
    "Q2": ("2", "Q2"),
    "Q3": ("3", "q3", "Q 3", "3.0"),
    "Q4": ("4", "Q4 "),
}


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """A folder with twelve files in it."""
    for number in range(12):
        (tmp_path / f"set {number % 2}").mkdir(exist_ok=True)
        (tmp_path / f"set {number % 2}" / f"{number}, take.mid").write_bytes(tune(number))
    return tmp_path


def labels(source: Path) -> dict[str, str]:
    return {file.name: file.label for file in find(source).files}


@pytest.mark.parametrize("seed", range(40))
def test_a_list_is_read_as_any_spreadsheet_saves_it(music: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    separator = str(rng.choice(list(SEPARATORS)))
    names = sorted(path.relative_to(music).as_posix() for path in music.rglob("*.mid"))
    wanted = {name: str(rng.choice(list(WRITTEN))) for name in names}
    columns = [
        str(rng.choice(["path", "File", "ID"])),
        str(rng.choice(["Emotion", "label", "4Q"])),
        "annotator",
        "song",
    ]
    order = rng.permutation(4)
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=separator, lineterminator=str(rng.choice(["\n", "\r\n"])))
    writer.writerow([columns[at] for at in order])
    for name, label in wanted.items():
        written = name.replace("/", "\\") if rng.random() < 0.3 else name
        if rng.random() < 0.3:
            written = written.removesuffix(".mid")
        row = [f"./{written}" if rng.random() < 0.3 else written, str(rng.choice(WRITTEN[label])), "A", "café"]
        writer.writerow([row[at] for at in order])
    text = buffer.getvalue()
    if rng.random() < 0.4:
        text = text.replace(f'{separator}"', f'{separator} "')
    if rng.random() < 0.4:
        text = f"\r\n{separator * 3}\n" + text if separator != "\t" else "\n" + text
    elif rng.random() < 0.5:
        text = f"sep={separator}\n" + text
    encoding = str(rng.choice(["utf-8", "utf-8-sig", "utf-16", "cp1252"]))
    (music / "list.csv").write_bytes(text.encode(encoding))
    assert labels(music / "list.csv") == wanted
    assert {file.song for file in find(music / "list.csv").files} == {"café"}


def test_a_list_that_is_not_understood_says_how_its_cells_are_parted_and_which_words_are_known(music: Path) -> None:
    (music / "list.csv").write_text("datei;gefühl\na.mid;froh\n", encoding="cp1252")
    with pytest.raises(EmogenError, match="no column 'path'") as caught:
        find(music / "list.csv")
    assert "path,emotion,song (here parted by" in caught.value.hint
    assert "happy, excited, angry, tense, sad, calm" in caught.value.hint
    (music / "list.csv").write_text("path;emotion\nset 0/0, take.mid;froh\n")
    with pytest.raises(EmogenError, match="no usable file") as caught:
        find(music / "list.csv")
    assert caught.value.hint.startswith("unknown emotion 'froh' (1x); emotions are happy")
    (music / "list.csv").write_text("x;path;y\n1;set 0/0, take.mid;3\n")
    with pytest.raises(EmogenError, match="no column 'emotion'") as caught:
        find(music / "list.csv")
    assert "parted by semicolons" in caught.value.hint


def test_emopias_own_list_finds_its_clips_and_their_songs(tmp_path: Path) -> None:
    source = dataset(tmp_path / "made", songs=4)
    listed = find(source / "label.csv")
    assert labels(source / "label.csv") == labels(source)
    assert [file.song for file in listed.files] == [file.song for file in find(source).files]
    assert listed.left_out == []


def test_of_several_columns_that_could_be_the_path_the_plainest_is() -> None:
    assert read_table(b"id,path,label,emotion\n", "x").columns == ["id", "path", "label", "emotion"]
    assert read_table(b"Path,ID,4Q\n", "x").columns == ["path", "id", "emotion"]


def test_the_name_of_a_folder_is_no_quadrant_by_its_number_alone() -> None:
    assert [meant(word) for word in ("1", "q1", "Q4", "joy", "5")] == ["", "Q1", "Q4", "happy", ""]
    assert [meant(word, in_list=True) for word in ("1", "0", "5", "Q2")] == ["Q1", "", "", "Q2"]


def test_a_file_listed_under_two_labels_is_reported(music: Path) -> None:
    rows = ['"set 0/0, take.mid",happy', '"./set 0/0, take.mid",sad', '"set 0\\0, take",happy', '"set 1/1, take",sad']
    (music / "list.csv").write_text("path,emotion\n" + "\n".join(rows))
    source = find(music / "list.csv")
    assert {file.name: file.label for file in source.files} == {
        "set 0/0, take.mid": "happy",
        "set 1/1, take.mid": "sad",
    }
    assert source.remarks == [("set 0/0, take.mid", "listed as happy, which counts, and as sad")]
    assert source.left_out == [("set 0/0, take.mid", "listed before")] * 2


def test_the_same_music_under_two_labels_is_reported(tmp_path: Path) -> None:
    for name in ("happy/a", "sad/b", "happy/c", "calm/d", "calm/e"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / f"{name}.mid").write_bytes(tune(0 if name[-1] in "bc" else ord(name[-1])))
    report = prepare(tmp_path / "set", tmp_path / "home", DataSettings(workers=1))
    assert report.manifest.left_out == [("sad/b.mid", "same notes as happy/c.mid, labelled happy there")]


def test_the_same_name_in_two_folders_is_two_songs(tmp_path: Path) -> None:
    for number, name in enumerate(("happy/1.mid", "sad/1.mid", "sad/old/1.mid")):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(tune(number))
    assert [file.song for file in find(tmp_path / "set").files] == ["happy/1", "sad/1", "sad/old/1"]
    (tmp_path / "set" / "list.csv").write_text("path,emotion\nhappy/1.mid,happy\nsad/1.mid,sad\n")
    assert [file.song for file in find(tmp_path / "set" / "list.csv").files] == ["happy/1", "sad/1"]


def test_every_suffix_of_midi_files_is_known(tmp_path: Path) -> None:
    names = ["a.mid", "b.MIDI", "c.kar", "d.Smf", "e.rmi"]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(tune(number))
    (tmp_path / "f.txt").write_bytes(tune(9))
    assert [file.name for file in find(tmp_path, unlabelled=True).files] == names


def test_what_was_mended_in_files_is_in_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.mid").write_bytes(midi(track(note(0, 100), note(200, 300, velocity=200)))[:-1])
    (tmp_path / "set" / "b.mid").write_bytes(tune())
    report = prepare(tmp_path / "set", tmp_path / "home", DataSettings(workers=1), unlabelled=True)
    assert report.manifest.remarks == [
        ("a.mid", "cut off within 1 track"),
        ("a.mid", "1 data byte above 127 read as 127"),
    ]


def test_a_source_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(EmogenError, match="neither a folder nor a file"):
        find(tmp_path / "pipe.zip")


@pytest.mark.parametrize("unlabelled", [False, True])
def test_a_source_of_unusable_files_alone_gives_their_reasons(tmp_path: Path, unlabelled: bool) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        for name in ("../happy/a.mid", "/happy/b.mid"):
            archive.writestr(name, tune())
    with pytest.raises(EmogenError, match="no usable music in") as caught:
        find(tmp_path / "bad.zip", unlabelled)
    assert caught.value.hint == "a name that points outside the archive (2x)"


def test_a_member_of_a_zip_without_a_name_is_left_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        archive.writestr("happy/a.mid", tune())
        nameless = zipfile.ZipInfo("x")
        nameless.filename = ""
        with archive.open(nameless, "w") as file:
            file.write(b"x")
    assert find(tmp_path / "odd.zip").left_out == [("(no name)", "a member of the archive without a name")]


def test_a_list_of_labels_cannot_command_a_terminal_or_stop_the_music(tmp_path: Path) -> None:
    source = dataset(tmp_path / "made", songs=4)
    (source / "label.csv").write_text("ID,4Q\nQ1_song_0______0,\x1b]0;PWNED\x07\x1b[2J\n\x1b,3\n")
    report = prepare(source, tmp_path / "home", DataSettings(workers=1))
    said = dict(report.manifest.remarks)
    assert said["midis/Q1_song_0______0.mid"] == "label.csv says \\x1b]0;PWNED\\x07\\x1b[2J; labelled by its name"
    assert "\\x1b" in said
    (source / "label.csv").write_bytes(b"\x81\x8d")
    assert find(source).remarks == [("label.csv", "left out: label.csv is not a CSV file ('charmap' codec can't decode "
        "byte 0x81 in position 0: character maps to <undefined>)")]  # fmt: skip


@pytest.mark.skipif(not HOSTILE.is_dir(), reason=f"the cases are not there: {HOSTILE}")
def test_the_hostile_archives_are_read_or_refused_in_words(tmp_path: Path) -> None:
    reports = {
        name: prepare(HOSTILE / f"{name}.zip", tmp_path, DataSettings(workers=1)).manifest
        for name in ("empty_member_name", "label_csv_escape", "long_delta")
    }
    assert {name: len(report.songs) for name, report in reports.items()} == {
        "empty_member_name": 6,
        "label_csv_escape": 4,
        "long_delta": 1,
    }
    assert reports["long_delta"].left_out == [("happy/a.mid", "damaged MIDI data (a number longer than four bytes)")]
    dense = prepare(HOSTILE / "dense_mid.zip", tmp_path, DataSettings(workers=1), unlabelled=True)
    assert dense.manifest.counts[-1]["notes"] > 20_000
    with pytest.raises(EmogenError, match="no usable music") as caught:
        find(HOSTILE / "only_unusable.zip")
    assert "points outside" in caught.value.hint
