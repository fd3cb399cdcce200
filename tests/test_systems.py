from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emogen.emotion import EMOTIONS
from emogen.errors import EmogenError, UsageError
from emogen.evaluation import systems
from emogen.evaluation.systems import CHANCE, LOOSE, OBEDIENT, TEST, baselines, clips, named, of_pieces, read
from emogen.music.midi import instruments, write_piece
from emogen.music.tokens import decode
from tests.midi_files import midi, note, program, track
from tests.music import is_same, random_piece
from tests.test_sections import clips as corpus_of_clips


def put(folder: Path, *names: str) -> None:
    """A random piece under each name."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_piece(random_piece(seed, 12), folder / name)


# ---- names


def test_folders_are_named_as_they_are_given() -> None:
    assert named(["a=x/y", " b = c=d"]) == {"a": Path("x/y"), "b": Path(" c=d")}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["folder"], "is not NAME=FOLDER"),
        (["=folder"], "is not NAME=FOLDER"),
        (["a="], "is not NAME=FOLDER"),
        (["a,b=folder"], "cannot be the name"),
        (["a=x", "a=y"], "two systems are called 'a'"),
        ([f"{TEST}=x"], "comes along"),
    ],
)
def test_names_that_tables_could_not_carry_are_refused(options: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        named(options)
    assert caught.value.hint


# ---- folders


def test_labels_come_from_folders_and_file_names_and_quadrants_are_enough(tmp_path: Path) -> None:
    put(tmp_path, "happy/1.mid", "Q3/2.mid", "Q2_abcdefghijk_0.mid", "Q2_abcdefghijk_1.mid", "other/3.mid")
    found = read("mine", tmp_path, 10)
    assert found.files == ["Q2_abcdefghijk_0", "Q2_abcdefghijk_1", "Q3/2", "happy/1"]
    assert found.heard.emotion.tolist() == [-2, -2, -3, EMOTIONS.index("happy")]
    assert found.heard.quadrant.tolist() == [2, 2, 3, 1]
    assert found.heard.song[0] == found.heard.song[1]
    assert len(set(found.heard.song.tolist())) == 3
    assert found.left_out == (("other/3.mid", "no emotion in its name or its folders"),)
    assert max(piece.end_ms for piece in found.heard.pieces) <= 10_000
    assert found.quadrants == {"Q1": 1, "Q2": 2, "Q3": 1}


def test_labels_may_come_from_a_list_in_the_folder(tmp_path: Path) -> None:
    put(tmp_path, "a.mid", "b.mid", "c.mid")
    (tmp_path / "labels.csv").write_text("path,emotion\na.mid,happy\nb.mid,Q4\nc.mid,gloomy\n")
    found = read("mine", tmp_path, 10)
    assert found.heard.quadrant.tolist() == [1, 4]
    assert [name for name, _ in found.left_out] == ["c.mid"]
    assert "unknown emotion 'gloomy'" in found.left_out[0][1]


def test_files_that_cannot_be_read_are_listed_and_the_others_count(tmp_path: Path) -> None:
    put(tmp_path, "Q1/a.mid", "Q2/b.mid")
    (tmp_path / "Q1/broken.mid").write_bytes(b"no music")
    found = read("mine", tmp_path, 10)
    assert len(found) == 2
    assert found.left_out[0][0] == "Q1/broken.mid"
    assert "not a MIDI file" in found.left_out[0][1]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((), "no MIDI files"),
        (("a.mid", "other/b.mid"), "has an emotion"),
        (("Q1/a.mid", "happy/b.mid"), "all 2 pieces in .* are of Q1"),
    ],
)
def test_a_folder_that_cannot_be_judged_is_refused(names: tuple[str, ...], told: str, tmp_path: Path) -> None:
    put(tmp_path, *names)
    with pytest.raises(EmogenError, match=told) as caught:
        read("mine", tmp_path, 10)
    assert caught.value.hint
    assert "emogen prepare" not in caught.value.hint


def test_no_folder_and_no_file_that_can_be_read_are_said(tmp_path: Path) -> None:
    with pytest.raises(EmogenError, match="there is no folder"):
        read("mine", tmp_path / "none", 10)
    (tmp_path / "Q1").mkdir()
    (tmp_path / "Q1/a.mid").write_bytes(b"no music")
    with pytest.raises(EmogenError, match=r"no file in .* can be read"):
        read("mine", tmp_path, 10)


def test_instruments_lengths_and_numbers_that_matter_are_said(tmp_path: Path) -> None:
    put(tmp_path, "Q1/a.mid")
    band = midi(
        track(program(0), note(0, 480), note(480, 960, 64)),
        track(program(40, 1), note(0, 480, 67, channel=1)),
        track(note(0, 480, 36, channel=9)),
    )
    strings = midi(track(program(48), note(0, 480), note(480, 960, 64)))
    for name, data in (("Q2/band.mid", band), ("Q3/strings.mid", strings)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(data)
    assert instruments(band) == (True, True, True, 3)
    assert instruments(strings) == (False, True, False, 1)
    told = "\n".join(read("mine", tmp_path, 10).remarks)
    for words in (
        "1 file with drums", "1 file with other instruments", "1 file without a piano", "1 file with several tracks",
        "fewer than 20 pieces (1 of Q1, 1 of Q2, 1 of Q3)", "no pieces of Q4", "pieces shorter than 10 s",
    ):  # fmt: skip
        assert words in told


# ---- pieces and baselines


def test_pieces_come_with_labels() -> None:
    found = of_pieces("mine", [("sad", random_piece(0, 12)), ("Q1", random_piece(1, 12))], 5)
    assert found.heard.quadrant.tolist() == [3, 1]
    with pytest.raises(UsageError, match="unknown emotion 'gloomy'"):
        of_pieces("mine", [("gloomy", random_piece(0, 12))], 5)
    with pytest.raises(UsageError, match="two quadrants"):
        of_pieces("mine", [("sad", random_piece(0, 12))], 5)


def test_baselines_are_chance_obedience_and_notes_without_order() -> None:
    corpus = corpus_of_clips(48)
    real = clips(TEST, corpus, "test", 10)
    chance, obedient, loose = baselines(real, corpus, 10)
    assert [one.name for one in (chance, obedient, loose)] == [CHANCE, OBEDIENT, LOOSE]
    assert all(map(is_same, chance.heard.pieces, real.heard.pieces))
    assert sorted(chance.heard.emotion.tolist()) == sorted(real.heard.emotion.tolist())
    assert (chance.heard.quadrant != real.heard.quadrant).any()
    assert (obedient.heard.quadrant == real.heard.quadrant).all()
    training = {decode(corpus.notes(clip)).crop(0, 10_000) for clip in corpus.clips("train").tolist()}
    assert set(obedient.heard.pieces) <= training
    assert (loose.heard.quadrant == real.heard.quadrant).all()
    assert np.mean([piece.end_ms for piece in loose.heard.pieces]) > 9000
    again = baselines(real, corpus, 10)[2]
    assert all(map(is_same, loose.heard.pieces, again.heard.pieces))


def test_a_system_keeps_its_remarks_when_it_is_changed() -> None:
    some = replace(clips(TEST, corpus_of_clips(), "test", 10), remarks=("said",))
    assert (some.remarks, len(some)) == (("said",), 7)
    assert systems.VOICE
