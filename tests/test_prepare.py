from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from emogen.data.corpus import SPLITS, Corpus, open_corpus
from emogen.data.prepare import Report, prepare
from emogen.data.sources import EMOPIA_NAME, find, opened
from emogen.data.split import SAME_MUSIC
from emogen.emotion import EMOTIONS
from emogen.errors import EmogenError, UsageError
from emogen.music import tokens
from emogen.music.chart import Chart
from emogen.music.midi import read_piece
from emogen.music.midi_events import MAX_BYTES
from emogen.settings import DataSettings
from tests.midi_files import EMOPIA, dataset, midi, needs_emopia, note, program, track, tune, zip_of


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home" / "data"


def prepared(source: Path, home: Path, unlabelled: bool = False, **settings: object) -> tuple[Report, Corpus]:
    data = DataSettings.model_validate({"workers": 1} | settings)
    report = prepare(source, home, data, unlabelled=unlabelled)
    return report, open_corpus(home)


def put(folder: Path, name: str, data: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def left_out(report: Report) -> dict[str, str]:
    return dict(report.manifest.left_out)


def everything(folder: Path) -> list[str]:
    """What is in the cache, but for the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock") if folder.exists() else []


# ---- what is prepared


def test_a_prepared_corpus_holds_every_clip_encoded_and_nothing_else(tmp_path: Path, home: Path) -> None:
    source = dataset(tmp_path / "made")
    report, music = prepared(source, home)
    paths = sorted((source / "midis").iterdir())
    assert music.clip_names == [f"midis/{path.name}" for path in paths]
    for clip, path in enumerate(paths):
        assert np.array_equal(music.notes(clip), tokens.encode(read_piece(path)))
        assert music.manifest.songs[music.song[clip]] == path.stem[3:14]
        quadrant = {"happy": 1, "excited": 1, "angry": 2, "tense": 2, "sad": 3, "calm": 4}
        assert quadrant[EMOTIONS[music.emotion[clip]]] == int(path.stem[1])
    assert music.start[-1] == len(music.tokens) == 24 * 24
    assert not music.tokens.flags.writeable
    assert report.directory == music.directory
    assert sorted(np.concatenate([music.clips(split) for split in SPLITS])) == list(range(24))
    assert (music.manifest.left_out, music.manifest.remarks) == ([], [])


def test_every_clip_has_the_chart_of_its_notes(tmp_path: Path, home: Path) -> None:
    _, music = prepared(dataset(tmp_path / "made"), home)
    assert music.charts.start[-1] > 0
    for clip in range(len(music.clip_names)):
        chart, heard = music.chart(clip), Chart.of(tokens.decode(music.notes(clip)))
        np.testing.assert_array_equal(chart.rows(), heard.rows())
        assert (chart.beats_per_bar, chart.clarity) == (heard.beats_per_bar, heard.clarity)


def test_counts_add_up(tmp_path: Path, home: Path) -> None:
    report, music = prepared(dataset(tmp_path / "made"), home)
    rows = {(row["emotion"], row["split"]): row for row in report.manifest.counts}
    for measure in ("clips", "notes", "hours"):
        total = rows["all", "all"][measure]
        for known in (EMOTIONS, SPLITS):
            parts = [rows.get((one, "all") if known is EMOTIONS else ("all", one), {}).get(measure, 0) for one in known]
            assert sum(parts) == pytest.approx(total, abs=0.005)
    assert (rows["all", "all"]["clips"], rows["all", "all"]["songs"]) == (24, 12)
    seconds = sum(tokens.releases_ms(music.notes(clip)).max() for clip in range(24)) / 1000
    assert rows["all", "all"]["hours"] == pytest.approx(seconds / 3600, abs=0.001)


def test_the_same_again_is_not_read_again(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = dataset(tmp_path / "made")
    first, _ = prepared(source, home)
    read: list[int] = []
    monkeypatch.setattr("emogen.data.prepare._encode", lambda *given: read.append(1))
    again, _ = prepared(source, home)
    assert (first.already_there, again.already_there) == (False, True)
    assert again.manifest == first.manifest
    assert not read


def test_force_reads_again_and_replaces(tmp_path: Path, home: Path) -> None:
    source = dataset(tmp_path / "made")
    first, opened = prepared(source, home)
    again = prepare(source, home, DataSettings(workers=1), force=True)
    assert not again.already_there
    assert again.directory == first.directory
    assert len(opened.notes(0))  # what was open stays readable
    assert everything(home) == sorted([first.directory.name, "current"])


def test_what_changes_is_read_again(tmp_path: Path, home: Path) -> None:
    source = dataset(tmp_path / "made")
    first, _ = prepared(source, home)
    other_seed, _ = prepared(source, home, split_seed=1)
    (source / "midis" / "Q1_song_0______0.mid").write_bytes(tune(999))
    changed, _ = prepared(source, home)
    reports = [first, other_seed, changed]
    assert len({report.directory for report in reports}) == 3
    assert not any(report.already_there for report in reports)
    assert len({report.manifest.fingerprint for report in reports}) == 3


def test_the_split_alone_changes_the_fingerprint(tmp_path: Path, home: Path) -> None:
    for number in range(20):
        put(tmp_path / "mine", f"sad/{number}.mid", tune(number))
    (one, music), (other, _) = (prepared(tmp_path / "mine", home, split_seed=seed) for seed in (0, 1))
    assert set(music.emotion.tolist()) == {EMOTIONS.index("sad")}
    assert one.manifest.fingerprint != other.manifest.fingerprint


@pytest.mark.slow
def test_the_number_of_workers_and_the_packing_change_nothing(tmp_path: Path, home: Path) -> None:
    source = dataset(tmp_path / "made", songs=40)  # more than two chunks, so that workers start
    put(source / "midis", "Q1_AAAAAAAAAAA_0.mid", b"")
    seen: list[tuple[int, int]] = []
    alone, _ = prepared(source, home)
    four = prepare(source, home, DataSettings(workers=4), force=True, progress=lambda *step: seen.append(step))
    assert prepare(source, home, DataSettings(workers=2)).already_there
    archive = zip_of(source, tmp_path / "made.zip", leading="some/folder/")
    packed = prepare(archive, home, DataSettings(workers=3))
    assert seen == [(number, 81) for number in range(1, 82)]
    assert alone.manifest.fingerprint == four.manifest.fingerprint == packed.manifest.fingerprint
    assert alone.manifest.counts == packed.manifest.counts
    assert alone.manifest.left_out == four.manifest.left_out == [("midis/Q1_AAAAAAAAAAA_0.mid", "empty file")]
    assert left_out(packed) == {"some/folder/midis/Q1_AAAAAAAAAAA_0.mid": "empty file"}


@pytest.mark.slow
def test_workers_also_start_where_forking_is_not_possible(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = dataset(tmp_path / "made", songs=40)
    monkeypatch.setattr("emogen.system.processes.CONTEXT", multiprocessing.get_context("spawn"))
    report = prepare(source, home, DataSettings(workers=2))
    assert report.manifest.counts[-1]["clips"] == 80


# ---- songs and splits


def test_the_same_notes_twice_are_left_out_and_tie_their_songs(tmp_path: Path, home: Path) -> None:
    source = dataset(tmp_path / "made", songs=40)
    for song in range(1, 40):  # every song has a clip that song 0 has too, so all are one
        put(source / "midis", f"Q1_{'song_' + str(song):_<11}_9.mid", tune(0))
    report, music = prepared(source, home)
    assert len(report.manifest.left_out) == 39
    assert left_out(report)["midis/Q1_song_7______9.mid"] == "same notes as midis/Q1_song_0______0.mid"
    assert set(music.split.tolist()) == {0}


@pytest.mark.slow
def test_recordings_of_emopia_that_share_music_are_on_one_side(tmp_path: Path, home: Path) -> None:
    names = sorted({song for pair in SAME_MUSIC for song in pair})
    source = dataset(tmp_path / "made", songs=30)
    for index, song in enumerate(names):
        put(source / "midis", f"Q{index % 4 + 1}_{song}_0.mid", tune(1000 + index))
    for seed in range(5):
        _, music = prepared(source, home, split_seed=seed)
        side = {music.manifest.songs[song]: split for song, split in zip(music.song, music.split, strict=True)}
        assert all(side[one] == side[other] for one, other in SAME_MUSIC)


def test_the_official_split_is_the_datasets_own(tmp_path: Path, home: Path) -> None:
    source = dataset(tmp_path / "made", songs=4)
    clips = sorted(path.name for path in (source / "midis").iterdir())
    (source / "split").mkdir()
    for part, rows in (("train", clips[:4]), ("val", clips[4:6]), ("test", clips[6:7])):
        lines = [",clip_name", *(f"{number},{clip}" for number, clip in enumerate(rows))]
        (source / "split" / f"{part}_clip.csv").write_text("\n".join(lines))
    report, music = prepared(source, home, split="official")
    assert music.split.tolist() == [0, 0, 0, 0, 1, 1, 2]
    assert left_out(report) == {f"midis/{clips[7]}": "in no part of the official split"}


def test_an_official_split_that_is_not_there_is_refused(tmp_path: Path, home: Path) -> None:
    with pytest.raises(EmogenError, match="no official split") as caught:
        prepared(dataset(tmp_path / "made"), home, split="official")
    assert "--split song" in caught.value.hint
    assert everything(home) == []


# ---- apart from another corpus


def sung(seed: int, key: int = 60, gap_ms: int = 500, velocity: int = 60) -> bytes:
    """A file with a melody of its own for every seed, in any key, tempo and loudness."""
    pitch = np.random.default_rng(seed).integers(0, 24, 30) + key
    return midi(track(*(note(gap_ms * at, gap_ms * at + 200, one, velocity) for at, one in enumerate(pitch.tolist()))))


def covers_and_others(tmp_path: Path, home: Path) -> tuple[Corpus, Path]:
    """A prepared corpus "mine" of ten songs, and a folder with another performance of each beside twenty others."""
    for number in range(10):
        put(tmp_path / "mine", f"sad/{number}.mid", sung(number))
        put(tmp_path / "more", f"cover {number}.mid", sung(number, key=65, gap_ms=620, velocity=90))
    for number in range(20):
        put(tmp_path / "more", f"other {number}.mid", sung(100 + number))
    return prepared(tmp_path / "mine", home)[1], tmp_path / "more"


def side(music: Corpus) -> dict[str, str]:
    """The split that each song is in."""
    return {music.manifest.songs[song]: SPLITS[split] for song, split in zip(music.song, music.split, strict=True)}


def test_songs_that_share_a_melody_with_anothers_held_out_songs_go_to_test_and_nothing_else_moves(
    tmp_path: Path, home: Path
) -> None:
    mine, source = covers_and_others(tmp_path, home)
    _, before = prepared(source, home, unlabelled=True)
    report, music = prepared(source, home, unlabelled=True, apart_from="mine")
    twins = {f"cover {song[4:]}": song for song, split in side(mine).items() if split != "train"}
    assert {side(mine)[song] for song in twins.values()} == {"valid", "test"}
    assert "train" in {side(before)[cover] for cover in twins}
    assert side(music) == side(before) | dict.fromkeys(twins, "test")
    assert report.manifest.remarks == [
        (cover, f"shares a melody with {song} of mine: kept out of training") for cover, song in sorted(twins.items())
    ]
    assert report.manifest.settings["apart_from"] == "mine"
    assert np.array_equal(music.tokens, before.tokens)
    tested = {row["songs"] for row in report.manifest.counts if (row["emotion"], row["split"]) == ("all", "test")}
    assert tested == {list(side(music).values()).count("test")}


def test_all_of_a_song_and_the_songs_tied_to_it_are_kept_apart_together(tmp_path: Path, home: Path) -> None:
    mine, _ = covers_and_others(tmp_path, home)
    held_out = next(int(song[4:]) for song, split in side(mine).items() if split != "train")
    for number in range(20):
        put(tmp_path / "pop", f"{number:03}/{number:03}.mid", sung(200 + number))
        put(tmp_path / "pop", f"{number:03}/versions/b.mid", sung(300 + number))
    for tied in range(6):  # six songs with one version in common, and a melody of mine in another version of the last
        put(tmp_path / "pop", f"{tied:03}/versions/c.mid", sung(400))
    put(tmp_path / "pop", "005/versions/d.mid", sung(held_out, key=50))
    _, before = prepared(tmp_path / "pop", home, unlabelled=True)
    report, music = prepared(tmp_path / "pop", home, unlabelled=True, apart_from="mine")
    tied_songs = [f"{tied:03}" for tied in range(6)]
    assert {side(before)[song] for song in tied_songs} == {"train"}
    assert side(music) == side(before) | dict.fromkeys(tied_songs, "test")
    for song in range(len(music.manifest.songs)):
        assert len(set(music.split[music.song == song].tolist())) == 1
    assert [song for song, _ in report.manifest.remarks] == ["005"]


def test_the_official_split_gives_way_to_being_apart(tmp_path: Path, home: Path) -> None:
    mine, _ = covers_and_others(tmp_path, home)
    held_out = next(int(song[4:]) for song, split in side(mine).items() if split != "train")
    for number in range(4):
        put(tmp_path / "set", f"midis/Q1_song_{number}______0.mid", sung(held_out if number == 2 else 100 + number))
    for part, rows in (("train", (0, 1, 2)), ("val", (3,))):
        lines = [",clip_name", *(f"{number},Q1_song_{number}______0.mid" for number in rows)]
        put(tmp_path / "set", f"split/{part}_clip.csv", "\n".join(lines).encode())
    _, music = prepared(tmp_path / "set", home, split="official", apart_from="mine")
    assert [SPLITS[split] for split in music.split] == ["train", "train", "test", "valid"]


@pytest.mark.slow
def test_what_one_is_to_be_apart_from_is_read_again_when_it_changes(tmp_path: Path, home: Path) -> None:
    mine, source = covers_and_others(tmp_path, home)
    alone, _ = prepared(source, home, unlabelled=True)
    first, _ = prepared(source, home, unlabelled=True, apart_from="mine")
    again, _ = prepared(source, home, unlabelled=True, apart_from=mine.directory.name)
    assert (first.already_there, again.already_there) == (False, True)  # by another name it is the same
    assert prepared(source, home, unlabelled=True)[0].already_there
    other, _ = prepared(tmp_path / "mine", home, split_seed=1)
    assert other.manifest.fingerprint != mine.manifest.fingerprint
    changed, _ = prepared(source, home, unlabelled=True, apart_from="mine")
    assert not changed.already_there
    assert len({report.manifest.key for report in (alone, first, changed)}) == 3
    assert dict(changed.manifest.remarks).keys() != dict(first.manifest.remarks).keys()


def test_a_corpus_without_held_out_songs_keeps_nothing_apart(tmp_path: Path, home: Path) -> None:
    put(tmp_path / "one", "sad/0.mid", sung(0))
    assert set(side(prepared(tmp_path / "one", home)[1]).values()) == {"train"}
    _, source = covers_and_others(tmp_path, home)
    _, before = prepared(source, home, unlabelled=True)
    report, music = prepared(source, home, unlabelled=True, apart_from="one")
    assert side(music) == side(before)
    assert report.manifest.remarks == []


def test_the_number_of_workers_does_not_change_what_is_kept_apart(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, source = covers_and_others(tmp_path, home)
    alone, _ = prepared(source, home, unlabelled=True, apart_from="mine")
    monkeypatch.setattr("emogen.data.prepare.CHUNK_FILES", 8)
    data = DataSettings(workers=2, apart_from="mine")
    pair = prepare(source, home, data, unlabelled=True, force=True)
    assert pair.manifest.remarks == alone.manifest.remarks != []
    assert pair.manifest.fingerprint == alone.manifest.fingerprint


def test_a_corpus_that_is_not_there_cannot_be_kept_apart_from(tmp_path: Path, home: Path) -> None:
    source = dataset(tmp_path / "made")
    with pytest.raises(EmogenError, match="no prepared corpus 'EMOPIA'") as caught:
        prepared(source, home, apart_from="EMOPIA")
    assert caught.value.hint == "prepare one first: emogen prepare ./EMOPIA_1.0"
    assert everything(home) == []


# ---- where labels come from


def test_emopias_names_are_read_by_pattern_as_ids_hold_underscores() -> None:
    for name, parts in {
        "Q1_0vLPYiPN7qY_0.mid": ("1", "0vLPYiPN7qY", "0"),
        "Q3_3ahg_eQZhx__12.mid": ("3", "3ahg_eQZhx_", "12"),
        "Q2_-_3456789_1_5.MIDI": ("2", "-_3456789_1", "5"),
    }.items():
        match = EMOPIA_NAME.fullmatch(name)
        assert match
        assert match.groups() == parts
    assert not EMOPIA_NAME.fullmatch("Q5_0vLPYiPN7qY_0.mid")
    assert not EMOPIA_NAME.fullmatch("Q1_tooshort_0.mid")


def test_a_folder_for_each_emotion_labels_its_files(tmp_path: Path, home: Path) -> None:
    for number, folder in enumerate(("Happy", "joyful", "anger", "calm/sad/old", "Q4")):
        put(tmp_path / "mine", f"{folder}/song {number}.mid", tune(number))
    put(tmp_path / "mine", "misc/other.mid", tune(99))
    report, music = prepared(tmp_path / "mine", home)
    emotions = {Path(name).stem: EMOTIONS[index] for name, index in zip(music.clip_names, music.emotion, strict=True)}
    assert emotions == {"song 0": "happy", "song 1": "happy", "song 2": "angry", "song 3": "sad", "song 4": "calm"}
    folders = ("Happy", "Q4", "anger", "calm/sad/old", "joyful")
    assert music.manifest.songs == [
        f"{folder}/song {number}" for folder, number in zip(folders, (0, 4, 2, 3, 1), strict=True)
    ]
    assert left_out(report) == {"misc/other.mid": "no emotion in its name or its folders"}


def test_a_list_labels_its_files(tmp_path: Path, home: Path) -> None:
    for number in range(6):
        put(tmp_path, f"music/{number}.mid", tune(number))
    put(tmp_path, "music/2.mid", b"")
    lines = [
        "Path, Emotion ,song",
        "music/0.mid,happy,A",
        f"{tmp_path}/music/1.mid,Q3,A",
        "music/2.mid,sad,B",
        "",
        "music/3.mid,hapy,B",
        "music/missing.mid,sad,B",
        "music/4.mid,fear,",
        "music/0.mid,sad,C",
        "music/5.mid",
    ]
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    report, music = prepared(tmp_path / "list.csv", home)
    assert dict(zip(music.clip_names, (EMOTIONS[index] for index in music.emotion), strict=True)) == {
        f"{tmp_path}/music/1.mid": "sad",
        "music/0.mid": "happy",
        "music/4.mid": "tense",
    }
    assert music.manifest.songs == ["A", "music/4"]
    assert left_out(report) == {
        "music/2.mid": "empty file",
        "music/3.mid": "unknown emotion 'hapy' did you mean 'happy'?",
        "music/missing.mid": "cannot be read (No such file or directory)",
        "music/0.mid": "listed before",
        "music/5.mid": "unknown emotion ''",
    }
    assert report.manifest.remarks == [("music/0.mid", "listed as happy, which counts, and as sad")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column 'path'"),
        (b"name,emotion\na.mid,happy\n", "no column 'path'"),
        (b"path,mood\na.mid,happy\n", "no column 'emotion'"),
        (b"path,emotion\n", "lists no usable file"),
        (b"path,emotion\nnone.mid,happy\n", "lists no usable file"),
        (b"path,emotion\n\0.mid,happy\n", "lists no usable file"),
        (b"path,emotion\n\x81\x8d.mid,happy\n", "not a CSV file"),
        (b"\xff\xfe\x00\xd8\x00\xd8", "not a CSV file"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused(tmp_path: Path, home: Path, content: bytes, message: str) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(EmogenError, match=message) as caught:
        prepared(tmp_path / "list.csv", home)
    assert caught.value.hint


def test_unlabelled_music_is_grouped_by_folders_that_hold_a_file_of_their_name(tmp_path: Path, home: Path) -> None:
    names = ["POP/001/001.mid", "POP/001/versions/001-v1.mid", "POP/002/002.mid", "POP/loose/a.mid", "POP/loose/b.mid"]
    for number, name in enumerate(names):
        put(tmp_path / "pop", name, tune(number))
    report, music = prepared(zip_of(tmp_path / "pop", tmp_path / "pop.zip"), home, unlabelled=True)
    assert music.manifest.songs == ["POP/001", "POP/002", "POP/loose/a", "POP/loose/b"]
    assert music.song.tolist() == [0, 0, 1, 2, 3]
    assert music.emotion.tolist() == [-1] * 5
    assert {row["emotion"] for row in report.manifest.counts} == {"none", "all"}


def test_labels_and_files_that_do_not_match_are_reported_and_used(tmp_path: Path, home: Path) -> None:
    source = dataset(tmp_path / "made", songs=8)
    put(source / "midis", "Q2_unlistedXXX_0.mid", tune(500))
    text = (source / "label.csv").read_text().replace("Q1_song_0______1,1", "Q1_song_0______1,4")
    (source / "label.csv").write_text(text + "Q3_missingXXXX_0,3,A\n")
    report, music = prepared(source, home)
    assert dict(report.manifest.remarks) == {
        "Q3_missingXXXX_0": "listed in label.csv, but there is no such file",
        "midis/Q2_unlistedXXX_0.mid": "not listed in label.csv; labelled by its name",
        "midis/Q1_song_0______1.mid": "label.csv says 4; labelled by its name",
    }
    assert len(music.emotion) == 17


# ---- bad input


def test_every_kind_of_bad_file_is_left_out_with_its_reason(tmp_path: Path, home: Path) -> None:
    source = tmp_path / "mixed"
    for number in range(3):
        put(source, f"happy/good{number}.mid", tune(number))
    put(source, "happy/empty.mid", b"")
    put(source, "happy/text.mid", b"these are not notes")
    put(source, "happy/short.mid", tune()[:12])
    put(source, "happy/silent.mid", midi(track()))
    put(source, "happy/drums.mid", midi(track(note(0, 9, channel=9))))
    put(source, "happy/violin.mid", midi(track(program(40), note(0, 9))))
    put(source, "happy/large.mid", bytes(MAX_BYTES + 1))
    put(source, "happy/._good0.mid", b"a Mac's")
    put(source, "__MACOSX/happy/good0.mid", b"a Mac's")
    (source / "happy" / "folder.mid").mkdir()
    (source / "happy" / "link.mid").symlink_to(source / "nowhere")
    os.mkfifo(source / "happy" / "pipe.mid")
    report, music = prepared(source, home)
    assert left_out(report) == {
        "happy/drums.mid": "no notes but drums",
        "happy/empty.mid": "empty file",
        "happy/folder.mid": "not a file",
        "happy/large.mid": "larger than 4 MB",
        "happy/link.mid": "cannot be read (No such file or directory)",
        "happy/pipe.mid": "not a file",
        "happy/short.mid": "the file ends within its header",
        "happy/silent.mid": "no notes",
        "happy/text.mid": "not a MIDI file",
        "happy/violin.mid": "no piano (--any-instrument takes other instruments)",
    }
    assert music.clip_names == ["happy/good0.mid", "happy/good1.mid", "happy/good2.mid"]
    with_violin, _ = prepared(source, home, any_instrument=True)
    assert "happy/violin.mid" not in left_out(with_violin)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_left_out(tmp_path: Path, home: Path) -> None:
    source = dataset(tmp_path / "made")
    (source / "midis" / "Q1_song_0______0.mid").chmod(0)
    report, _ = prepared(source, home)
    assert left_out(report) == {"midis/Q1_song_0______0.mid": "cannot be read (Permission denied)"}


def test_names_that_are_not_text_do_no_harm(tmp_path: Path, home: Path) -> None:
    source = dataset(tmp_path / "made")
    (source / "midis" / os.fsdecode(b"Q1_\xff1234567890_0.mid")).write_bytes(tune(77))
    (source / "midis" / os.fsdecode(b"Q1_\xff\x1b123456789_1.mid")).write_bytes(b"")
    report, music = prepared(source, home)
    assert "midis/Q1_\\udcff1234567890_0.mid" in music.clip_names
    assert left_out(report) == {"midis/Q1_\\udcff\\x1b123456789_1.mid": "empty file"}


def test_when_nothing_remains_the_reasons_are_told_and_nothing_stays(tmp_path: Path, home: Path) -> None:
    put(tmp_path / "bad", "happy/a.mid", b"")
    put(tmp_path / "bad", "happy/b.mid", b"")
    put(tmp_path / "bad", "happy/c.mid", b"text")
    with pytest.raises(EmogenError, match="no usable music") as caught:
        prepared(tmp_path / "bad", home)
    assert caught.value.hint == "empty file (2x); not a MIDI file (1x)"
    assert everything(home) == []


def test_a_source_that_is_not_there_or_holds_nothing_is_refused(tmp_path: Path, home: Path) -> None:
    (tmp_path / "empty").mkdir()
    put(tmp_path / "plain", "a.mid", tune())
    put(tmp_path, "not.zip", b"PK\x03\x04 and so on")
    for source, message, hint in (
        ("missing", "no such file or folder", "--download"),
        ("empty", "no MIDI files", "Q1_<song>_<clip>.mid"),
        ("plain", "none of the 1 MIDI files", "--emotion none"),
        ("not.zip", "not a zip archive", ".zip archive"),
    ):
        with pytest.raises(EmogenError, match=message) as caught:
            prepared(tmp_path / source, home)
        assert hint in caught.value.hint
    assert everything(home) == []


def test_nothing_in_a_zip_archive_reaches_beyond_it(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "trap.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(3):
            archive.writestr(f"set/happy/{number}.mid", tune(number))
        for name in ("../happy/a.mid", "/happy/b.mid", "C:/happy/c.mid", "set\\..\\happy/d.mid"):
            archive.writestr(name, tune(50))
        archive.writestr("__MACOSX/set/happy/0.mid", b"a Mac's")
        archive.writestr("set/happy/._1.mid", b"a Mac's")
        archive.writestr("set/happy/huge.mid", bytes(MAX_BYTES + 1))
    before = sorted(tmp_path.rglob("*"))
    report, music = prepared(path, home)
    outside = "a name that points outside the archive"
    assert left_out(report) == {
        "../happy/a.mid": outside,
        "/happy/b.mid": outside,
        "C:/happy/c.mid": outside,
        "set\\..\\happy/d.mid": outside,
        "set/happy/huge.mid": "larger than 4 MB",
    }
    assert len(music.clip_names) == 3
    assert [one for one in sorted(tmp_path.rglob("*")) if home.parent not in (one, *one.parents)] == before


def test_no_more_of_a_file_is_read_than_its_reader_takes(tmp_path: Path) -> None:
    (tmp_path / "grown.mid").write_bytes(bytes(2 * MAX_BYTES))
    with opened(tmp_path, in_zip=False) as read:
        assert len(read("grown.mid")) == MAX_BYTES + 1


def test_a_damaged_or_lying_member_of_a_zip_archive_is_left_out(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "damaged.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"happy/{number}.mid", tune(number))
        archive.writestr("happy/bomb.mid", bytes(3 * MAX_BYTES))
        archive.writestr("happy/broken.mid", tune(9))
    data = bytearray(path.read_bytes())
    for name, at in ((b"happy/bomb.mid", 22), (b"happy/broken.mid", 20)):  # the sizes in the archive's directory
        entry = data.rindex(name) - 46 + at
        (size,) = struct.unpack_from("<I", data, entry)
        struct.pack_into("<I", data, entry, 100 if at == 22 else size - 20)
    path.write_bytes(data)
    report, music = prepared(path, home)
    assert len(music.clip_names) == 3
    assert left_out(report).keys() == {"happy/bomb.mid", "happy/broken.mid"}


def test_a_name_that_is_no_folders_is_refused(tmp_path: Path, home: Path) -> None:
    with pytest.raises(UsageError, match="cannot be a corpus name"):
        prepare(dataset(tmp_path / "made"), home, DataSettings(), name="../up")


# ---- the cache holds together


def test_only_one_prepare_writes_at_a_time(tmp_path: Path, home: Path) -> None:
    source = dataset(tmp_path / "made")
    home.mkdir(parents=True)
    with FileLock(home / ".lock"), pytest.raises(EmogenError, match="another emogen prepare"):
        prepared(source, home)
    assert prepared(source, home)[0].manifest.counts


def test_a_prepare_that_fails_leaves_what_was_there(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = dataset(tmp_path / "made")
    first, _ = prepared(source, home)

    def full(*given: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space"):
        prepare(source, home, DataSettings(workers=1), force=True)
    with pytest.raises(OSError, match="No space"):
        prepare(dataset(tmp_path / "other"), home, DataSettings(workers=1))
    assert everything(home) == sorted([first.directory.name, "current"])
    assert open_corpus(home).directory == first.directory


HANG_S = 120
"""Seconds after which a process is taken to hang, however busy the machine is."""


def _run_prepare(source: Path, home: Path, *before: str) -> subprocess.Popen[str]:
    """``prepare`` with two workers in a session of its own, which waits after its first file until it is heard out.

    ``before`` are the words before its command.
    """
    code = (
        "import sys; from pathlib import Path\n"
        "from emogen.data.prepare import prepare; from emogen.settings import DataSettings\n"
        "told = lambda done, total: (print(done, flush=True), sys.stdin.read())\n"
        "prepare(Path(sys.argv[1]), Path(sys.argv[2]), DataSettings(workers=2), progress=told)"
    )
    command = [*before, sys.executable, "-c", code, str(source), str(home)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_prepare_that_is_ended_takes_its_workers_with_it(tmp_path: Path, home: Path, ended_by: int) -> None:
    process = _run_prepare(dataset(tmp_path / "made", songs=200), home)
    assert process.stdout
    assert process.stdout.readline() == "1\n"
    workers = _children(process.pid)
    assert len(workers) == 2
    if ended_by == signal.SIGINT:
        os.killpg(process.pid, ended_by)  # as a terminal does
    else:
        os.kill(process.pid, ended_by)
    _, errors = process.communicate(timeout=HANG_S)
    assert process.returncode == -ended_by
    assert errors.count("Traceback") == (ended_by == signal.SIGINT)  # this script's own, not one a worker
    give_up = time.monotonic() + HANG_S
    while [worker for worker in workers if _running(worker)]:
        assert time.monotonic() < give_up, "the workers outlive it"
        time.sleep(0.02)
    assert not (home / "current").exists()
    prepare(dataset(tmp_path / "next", songs=2), home, DataSettings())  # sweeps up what a kill left
    assert not list(home.glob(".*.tmp"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_a_job_in_the_background_ignores_its_workers_ignore_too(tmp_path: Path, home: Path, number: int) -> None:
    process = _run_prepare(dataset(tmp_path / "made", songs=40), home, "sh", "-c", 'trap \'\' INT HUP; exec "$0" "$@"')
    assert process.stdout
    assert process.stdout.readline() == "1\n"
    assert len(_children(process.pid)) == 2
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=HANG_S)
    assert (process.returncode, errors) == (0, "")
    assert len(open_corpus(home).split) == 80


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_a_worker_that_is_killed_is_an_error_and_not_a_hang(tmp_path: Path, home: Path) -> None:
    process = _run_prepare(dataset(tmp_path / "made", songs=40), home)
    assert process.stdout
    process.stdout.readline()
    os.kill(_children(process.pid)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=HANG_S)
    assert "EmogenError: a worker process was killed" in errors
    assert everything(home) == []


# ---- the real EMOPIA


@pytest.fixture(scope="module")
def emopia(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Corpus]:
    home = tmp_path_factory.mktemp("emopia")
    return prepare(EMOPIA, home, DataSettings()), open_corpus(home)


@pytest.mark.slow
@needs_emopia
def test_emopia_is_1078_clips_of_387_songs_and_no_song_is_in_two_splits(emopia: tuple[Report, Corpus]) -> None:
    report, music = emopia
    assert report.manifest.left_out == []
    assert report.manifest.remarks == []
    assert (len(music.split), len(music.manifest.songs)) == (1078, 387)
    songs = {split: set(music.song[music.clips(split)].tolist()) for split in SPLITS}
    assert {split: len(some) for split, some in songs.items()} == {"train": 271, "valid": 58, "test": 58}
    assert not songs["train"] & songs["valid"] | songs["train"] & songs["test"] | songs["valid"] & songs["test"]
    assert len(music.tokens) == pytest.approx(285_638, rel=1e-4)


@pytest.mark.slow
@needs_emopia
def test_emopias_six_emotions_are_halves_of_its_quadrants(emopia: tuple[Report, Corpus]) -> None:
    _, music = emopia
    quadrant = np.array([int(Path(name).name[1]) for name in music.clip_names])
    count = {name: int((music.emotion == index).sum()) for index, name in enumerate(EMOTIONS)}
    assert count["happy"] + count["excited"] == (quadrant == 1).sum() == 250
    assert count["angry"] + count["tense"] == (quadrant == 2).sum()
    assert count["sad"] == (quadrant == 3).sum()
    assert count["calm"] == (quadrant == 4).sum()
    train = music.emotion[music.clips("train")]
    for low, high in (("happy", "excited"), ("tense", "angry")):
        assert abs((train == EMOTIONS.index(low)).sum() - (train == EMOTIONS.index(high)).sum()) <= 1


@pytest.mark.slow
@needs_emopia
def test_emopias_official_split_is_876_114_88() -> None:
    source = find(EMOPIA)
    parts = [source.official[Path(file.name).name] for file in source.files]
    assert [parts.count(split) for split in SPLITS] == [876, 114, 88]
    with (EMOPIA / "split" / "val_clip.csv").open(newline="") as file:
        listed = {row["clip_name"] for row in csv.DictReader(file)}
    assert {name for name, split in source.official.items() if split == "valid"} == listed
