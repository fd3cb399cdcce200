from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from emogen.system.files import remove, whole, write_text


def content(folder: Path) -> list[str]:
    """Everything in a folder, hidden or not."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def write_file(path: Path, data: bytes, trouble: type[BaseException] | None = None) -> None:
    with whole(path) as draft:
        draft.write_bytes(data)
        if trouble:
            raise trouble


def write_folder(path: Path, text: str, trouble: type[BaseException] | None = None) -> None:
    with whole(path) as draft:
        draft.mkdir()
        (draft / "meta.json").write_text(text)
        if trouble:
            raise trouble


def test_a_file_takes_its_name_when_it_is_whole_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "song.mid"
    with whole(path) as draft:
        draft.write_bytes(b"MThd")
        assert not path.exists()
    assert path.read_bytes() == b"MThd"
    assert content(tmp_path) == ["song.mid"]


def test_a_file_replaces_the_one_before_it(tmp_path: Path) -> None:
    path = tmp_path / "song.mid"
    path.write_bytes(b"old")
    with whole(path) as draft:
        draft.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert content(tmp_path) == ["song.mid"]


def test_a_folder_takes_its_name_with_all_that_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "last"
    with whole(path) as draft:
        (draft / "deep").mkdir(parents=True)
        (draft / "meta.json").write_text("{}")
        (draft / "deep" / "weights").write_bytes(b"0")
        assert not path.exists()
    assert content(tmp_path) == ["last", "last/deep", "last/deep/weights", "last/meta.json"]


@pytest.mark.parametrize("trouble", [ValueError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_what_was_there_and_no_litter(tmp_path: Path, trouble: type[BaseException]) -> None:
    path = tmp_path / "song.mid"
    path.write_bytes(b"old")
    with pytest.raises(trouble):
        write_file(path, b"half", trouble)
    assert path.read_bytes() == b"old"
    assert content(tmp_path) == ["song.mid"]


def test_a_folder_that_is_half_written_is_removed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write_folder(tmp_path / "last", "half", ZeroDivisionError)
    assert content(tmp_path) == []


def test_a_folder_of_that_name_is_not_replaced(tmp_path: Path) -> None:
    write_folder(tmp_path / "last", "old")
    with pytest.raises(OSError, match="last"):
        write_folder(tmp_path / "last", "new")
    assert content(tmp_path) == ["last", "last/meta.json"]
    assert (tmp_path / "last" / "meta.json").read_text() == "old"


def test_a_block_that_writes_nothing_is_an_error_and_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "song.mid"
    path.write_bytes(b"old")
    with pytest.raises(FileNotFoundError), whole(path):
        pass
    assert path.read_bytes() == b"old"
    assert content(tmp_path) == ["song.mid"]


def test_a_draft_has_the_final_name_and_lies_on_the_same_disk(tmp_path: Path) -> None:
    with whole(tmp_path / "song.mid") as draft:
        assert draft.name == "song.mid"
        assert draft.is_relative_to(tmp_path)
        draft.touch()


def test_missing_parents_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "notes.txt", "x")
    assert content(tmp_path) == ["a", "a/b", "a/b/notes.txt"]


def test_a_name_without_a_folder_means_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_text(Path("notes.txt"), "x")
    assert content(tmp_path) == ["notes.txt"]


def test_text_is_written_as_utf_8(tmp_path: Path) -> None:
    write_text(tmp_path / "notes.txt", "für Élise ♪\n")
    assert (tmp_path / "notes.txt").read_bytes().decode("utf-8").splitlines() == ["für Élise ♪"]


@pytest.mark.skipif(os.name != "posix", reason="modes are a matter of POSIX")
def test_a_file_may_be_read_by_those_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "notes.txt", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "notes.txt").stat().st_mode) == 0o644


def test_all_that_was_written_is_on_the_disk_before_the_name_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    inodes: dict[int, str] = {}
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        told.append(inodes.get(os.fstat(descriptor).st_ino, "another") + (" named" if path.exists() else ""))
        fsync(descriptor)

    path = tmp_path / "last"
    inodes[tmp_path.stat().st_ino] = "parent"
    monkeypatch.setattr(os, "fsync", watched)
    with whole(path) as draft:
        draft.mkdir()
        (draft / "weights").write_bytes(b"0")
        inodes |= {draft.stat().st_ino: "folder", (draft / "weights").stat().st_ino: "weights"}
    assert sorted(told[:2]) == ["folder", "weights"]
    assert told[2:] == ["parent named"]


def test_remove_leaves_nothing_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "last" / "deep").mkdir(parents=True)
    (tmp_path / "last" / "deep" / "weights").write_bytes(b"0")
    (tmp_path / "other").touch()
    remove(tmp_path / "last")
    assert content(tmp_path) == ["other"]


def test_removing_what_is_not_there_is_an_error_and_leaves_no_litter(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        remove(tmp_path / "last")
    assert content(tmp_path) == []
