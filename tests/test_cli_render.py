from __future__ import annotations

import base64
import errno
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from PIL import Image

from emogen.music.measures import measure
from emogen.music.midi import midi_bytes
from emogen.music.notes import Piece
from emogen.sound import render
from tests.conftest import Run
from tests.midi_files import midi, note, track
from tests.soundfonts import soundfont

PIECE = Piece.of([0, 300], [60, 64], [64, 90], [300, 300])
MANIFEST = {"emogen": "0.3.0", "emotion": {"calm": 0.5, "sad": 0.5}, "seconds": 5, "seed": 7}


NOTE = f"note: the piano is TimGM6mb, a plain one; {render.BETTER}"
"""What is said where no better piano is installed."""


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    render.engine_for.cache_clear()
    yield
    render.engine_for.cache_clear()


@pytest.fixture
def made(run: Run) -> Path:
    path = Path("made.mid")
    path.write_bytes(midi_bytes(PIECE, json.dumps(MANIFEST)))
    return path


def here() -> list[str]:
    return sorted(path.as_posix() for path in Path().rglob("*") if path.is_file())


def test_each_kind_is_written_beside_the_file(run: Run, made: Path) -> None:
    code, out, err = run("render", "made.mid", "--wav", "--ogg", "--mp3", "--png")
    assert (code, out) == (0, "")
    assert here() == ["made.mid", "made.mp3", "made.ogg", "made.png", "made.wav"]
    assert err.split("\n") == [NOTE, *(f"wrote made.{kind}" for kind in ("wav", "ogg", "mp3", "png")), ""]
    assert [soundfile.info(f"made.{kind}").frames for kind in ("wav", "ogg", "mp3")] == [0.6 * 44_100] * 3
    with Image.open("made.png") as image:
        assert image.size == (1600, 900)


def test_a_page_holds_the_facts_and_the_file_itself_and_sound_is_made_once(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Piece] = []
    audio = render.audio

    def listen(piece: Piece, font: Path | None, **how: bool) -> render.Sound:
        heard.append(piece)
        return audio(piece, font, **how)

    monkeypatch.setattr(render, "audio", listen)
    code, _, err = run("render", "made.mid", "--wav", "--html", "--out", "new")
    assert (code, err) == (0, f"{NOTE}\nwrote new/made.wav\nwrote new/made.html\n")
    text = Path("new/made.html").read_text()
    for fact in ("50% calm + 50% sad", "0.6 s", "2, 3.3 per second", "7", "0.3.0"):
        assert f"<dd>{fact}</dd>" in text
    assert base64.b64encode(made.read_bytes()).decode() in text
    assert len(heard) == 1


def test_a_page_of_other_peoples_music_tells_what_is_heard_alone(run: Run) -> None:
    Path("theirs.mid").write_bytes(midi_bytes(PIECE, json.dumps({"emogen": 1, "emotion": {"sad": "y", "calm": 1}})))
    assert run("render", "theirs.mid", "--html")[0] == 0
    text = Path("theirs.html").read_text()
    assert re.findall("<dt>(.*?)</dt>", text) == ["Length", "Notes", "Key", "Version of emogen"]


def test_a_folder_can_be_named_and_is_made(run: Run, made: Path) -> None:
    Path("other.mid").write_bytes(made.read_bytes())
    code, out, _ = run("render", "made.mid", "other.mid", "--png", "--out", "new/folder", "--json")
    assert code == 0
    assert json.loads(out) == [
        {"file": f"{name}.mid", "written": [f"new/folder/{name}.png"]} for name in ("made", "other")
    ]
    assert here() == ["made.mid", "new/folder/made.png", "new/folder/other.png", "other.mid"]


def test_emotion_and_seed_stand_above_the_picture(run: Run, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []

    def draw(file: Path, piece: Piece, *words: str) -> None:
        titles.append(" / ".join(filter(None, words)))

    monkeypatch.setattr(render, "write_picture", draw)
    Path("foreign [live].mid").write_bytes(midi_bytes(PIECE))
    hostile = [{"emogen": 1, "emotion": value} for value in ("x", {}, {"sad": "y", "calm": 1}, None)]
    for number, manifest in enumerate(hostile):
        Path(f"hostile{number}.mid").write_bytes(midi_bytes(PIECE, json.dumps(manifest)))
    names = [f"hostile{number}" for number in range(len(hostile))]
    files = [f"{name}.mid" for name in ("made", "foreign [live]", *names)]
    assert run("render", *files, "--png")[0] == 0
    end = f"{measure(PIECE).key} - 0:0{round(PIECE.end_ms / 1000)}"
    assert titles[0] == f"50% calm + 50% sad - {end} / seed 7 / calm"
    assert titles[1:] == [f"{name[0].upper()}{name[1:]} - {end}" for name in ("foreign [live]", *names)]


def test_nothing_asked_for_is_a_usage_error(run: Run, made: Path) -> None:
    code, _, err = run("render", "made.mid")
    assert code == 2
    assert "--wav, --ogg, --mp3, --png, --html" in err


def test_what_exists_is_replaced_only_with_force(run: Run, made: Path) -> None:
    Path("made.png").write_bytes(b"before")
    code, _, err = run("render", "made.mid", "--wav", "--png")
    assert code == 1
    assert err.startswith("error: made.png exists already\nhint: --force")
    assert here() == ["made.mid", "made.png"]
    assert run("render", "made.mid", "--png", "--force")[0] == 0
    assert Path("made.png").read_bytes()[:4] == b"\x89PNG"


def test_two_files_of_one_name_cannot_go_to_one_folder(run: Run, made: Path) -> None:
    Path("sub").mkdir()
    Path("sub/made.mid").write_bytes(made.read_bytes())
    code, _, err = run("render", "made.mid", "sub/made.mid", "--png", "--out", "new")
    assert code == 2
    assert "the same place" in err
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (midi(track()), "bad.mid: no notes"),
        (midi(track(note(0, 500, channel=9))), "bad.mid: no notes but drums"),
        (b"hello", "bad.mid: not a MIDI file"),
        (None, "there is no file bad.mid"),
    ],
    ids=["no notes", "drums", "text", "missing"],
)
def test_a_file_that_cannot_be_read_is_told_and_the_others_are_rendered(
    content: bytes | None, reason: str, run: Run, made: Path
) -> None:
    if content is not None:
        Path("bad.mid").write_bytes(content)
    code, out, err = run("render", "bad.mid", "made.mid", "--png", "--json")
    assert code == 1
    assert [line for line in err.splitlines() if not line.startswith("hint")] == [f"error: {reason}", "wrote made.png"]
    assert json.loads(out) == [{"file": "bad.mid", "written": []}, {"file": "made.mid", "written": ["made.png"]}]


def test_ten_hours_have_a_picture_and_no_sound(run: Run) -> None:
    Path("long.mid").write_bytes(midi_bytes(Piece.of([0, 35_999_000], [60, 64], [64, 64], [500, 1000])))
    code, _, err = run("render", "long.mid", "--wav", "--png")
    assert code == 1
    assert "error: long.wav was not written: a piece of 36,000 s is too long for sound" in err
    assert here() == ["long.mid", "long.png"]


@pytest.mark.parametrize(
    ("error", "told"),
    [(OSError(errno.EACCES, "Permission denied"), "Permission denied"), (MemoryError(), "out of memory")],
    ids=["permission", "memory"],
)
def test_one_kind_that_fails_costs_no_other(
    error: Exception, told: str, run: Run, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(render, "write_sound", fail)
    code, _, err = run("render", "made.mid", "--wav", "--png")
    assert code == 1
    assert err == f"{NOTE}\nerror: made.wav was not written: {told}\nwrote made.png\n"


def test_a_file_in_the_place_of_the_folder_is_told(run: Run, made: Path) -> None:
    Path("taken").write_bytes(b"")
    code, _, err = run("render", "made.mid", "--png", "--out", "taken")
    assert code == 1
    assert "taken" in err
    assert "Traceback" not in err


def test_the_soundfont_of_flag_and_settings_is_heard(run: Run, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Path | None] = []
    audio = render.audio

    def listen(piece: Piece, font: Path | None, **how: bool) -> render.Sound:
        heard.append(font)
        return audio(piece, font, **how)

    monkeypatch.setattr(render, "audio", listen)
    font = soundfont(Path("mine.sf2"))
    assert run("render", "made.mid", "--wav")[0] == 0
    assert run("render", "made.mid", "--wav", "--force", "--soundfont", "mine.sf2")[0] == 0
    Path("emogen.toml").write_text('[paths]\nsoundfont = "mine.sf2"\n')
    assert run("render", "made.mid", "--wav", "--force")[0] == 0
    assert heard == [None, font, font]


def test_a_named_soundfont_that_cannot_be_played_is_refused_at_once(run: Run, made: Path) -> None:
    code, _, err = run("render", "made.mid", "--png", "--wav", "--soundfont", "nowhere.sf2")
    assert code == 1
    assert err.startswith("error: the SoundFont nowhere.sf2 cannot be played: cannot be read (No such file")
    assert here() == ["made.mid"]
    assert run("render", "made.mid", "--png", "--soundfont", "nowhere.sf2")[0] == 0  # a picture needs none


def test_plain_sines_are_a_warning(run: Run, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "bundled_soundfont", lambda: None)
    code, _, err = run("render", "made.mid", "--wav")
    assert code == 0
    assert err == ("warning: the piano is made of plain sines: pretty_midi carries no SoundFont\nwrote made.wav\n")


def test_a_name_in_wav_is_that_file(run: Run, made: Path) -> None:
    assert run("render", "made.mid", "--out", "new/cue.wav")[0] == 0
    assert here() == ["made.mid", "new/cue.wav"]
    assert run("render", "made.mid", "--out", "new/cue.ogg", "--png")[0] == 0
    assert here() == ["made.mid", "new/cue.ogg", "new/cue.png", "new/cue.wav"]
    Path("folder.wav").mkdir()
    assert run("render", "made.mid", "--out", "folder.wav", "--wav")[0] == 0
    assert Path("folder.wav/made.wav").is_file()


def test_one_name_for_two_files_is_refused_and_so_is_a_midi_file(run: Run, made: Path) -> None:
    Path("other.mid").write_bytes(made.read_bytes())
    code, _, err = run("render", "made.mid", "other.mid", "--out", "cue.wav")
    assert (code, "--out cue.wav is one file, and there are 2 to render" in err) == (2, True)
    code, _, err = run("render", "made.mid", "--out", "cue.mid")
    assert (code, "render writes no MIDI files" in err) == (2, True)
    assert here() == ["made.mid", "other.mid"]


def test_a_sound_is_as_long_as_its_file_unless_it_may_ring(run: Run, made: Path) -> None:
    for name, more in (("usual", []), ("dry", ["--dry"]), ("rings", ["--tail"])):
        assert run("render", "made.mid", "--out", f"{name}.wav", *more)[0] == 0
    frames, channels = ([getattr(soundfile.info(f"{name}.wav"), what) for name in ("usual", "dry", "rings")]
                        for what in ("frames", "channels"))  # fmt: skip
    assert frames[0] == frames[1] == 0.6 * 44_100
    assert frames[2] > 44_100
    assert channels == [2, 1, 2]


def test_verbose_says_which_piano_plays(run: Run, made: Path) -> None:
    font = soundfont(Path("mine.sf2"))
    _, _, err = run("render", "made.mid", "--wav", "--verbose", "--soundfont", str(font))
    assert err == "the piano is mine (mine.sf2)\nwrote made.wav\n"
