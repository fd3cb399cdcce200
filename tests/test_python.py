"""What people do with ``import emogen``."""

from __future__ import annotations

import base64
import copy
import json
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pretty_midi
import pytest
import soundfile
import torch
from PIL import Image
from threadpoolctl import threadpool_info

import emogen
from emogen import EmogenError, Piece, Voice
from emogen.composing import voice as voices
from emogen.composing.drafts import Drawn
from emogen.composing.generate import generate
from emogen.music.midi import midi_bytes, read_text
from emogen.settings import SampleSettings
from emogen.sound import render
from tests import tiny
from tests.conftest import Run
from tests.midi_files import midi, note, track
from tests.music import random_piece

SAME: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    ((), {}),
    (
        ("--key", "A minor", "--density", "3", "--loudness", "70", "--register", "62", "--temperature", "1.2"),
        {"key": "Am", "density": 3, "loudness": 70, "register": 62, "temperature": 1.2},
    ),
]
"""Flags, and the arguments that mean the same."""

MADE_BY = {"emogen": "0.4.0", "emotion": {"sad": 1.0}, "seconds": 5.0, "seed": 7, "checkpoint": "the bundled voice"}
HOSTILE = """</script><b>"it's" & {{sound}}</b>"""


@pytest.fixture
def piece() -> Piece:
    return Piece(*random_piece(1, 12).columns, dict(MADE_BY))


# The module


def test_importing_emogen_imports_nothing_else() -> None:
    look = "import sys; before = set(sys.modules); import emogen; print(sorted(set(sys.modules) - before))"
    told = subprocess.run([sys.executable, "-S", "-c", look], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "['emogen']"


def test_composing_and_judging_need_no_torch() -> None:
    work = "import sys, emogen; emogen.load().compose('sad', 5).judge(); print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", work], capture_output=True, text=True, check=True)
    assert (told.stdout, told.stderr) == ("False\n", "")


def test_every_name_that_is_offered_is_there_and_listed() -> None:
    assert dir(emogen) == sorted(emogen.__all__)
    for name in emogen.__all__:
        assert getattr(emogen, name) is not None
    with pytest.raises(AttributeError, match="module 'emogen' has no attribute 'Pieces'"):
        emogen.Pieces  # type: ignore[attr-defined]  # noqa: B018


# A piece in memory


def test_the_notes_are_a_table_in_milliseconds(piece: Piece) -> None:
    table = piece.notes
    assert table.dtype.names == ("onset_ms", "pitch", "velocity", "duration_ms")
    assert {table.dtype[name] for name in table.dtype.names} == {np.dtype(np.int64)}
    assert len(table) == len(piece) > 12
    for name in table.dtype.names:
        assert np.array_equal(table[name], getattr(piece, name))
    table["pitch"] = 0
    assert piece.pitch.min() >= 21


def test_pieces_with_the_same_notes_are_equal_whatever_made_them(piece: Piece) -> None:
    same = Piece.of(*piece.columns)
    assert same.made_by is None
    assert same == piece == random_piece(1, 12)
    assert len({same, piece}) == 1
    assert piece != piece.transpose(1) != "notes"
    assert piece != Piece.of([], [], [], [])


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda piece: pickle.loads(pickle.dumps(piece))])
def test_a_copy_is_equal_and_knows_what_made_it(again: Callable[[Piece], Piece], piece: Piece) -> None:
    assert again(piece) == piece
    assert again(piece).made_by == MADE_BY
    assert type(again(piece)) is Piece


def test_a_piece_that_was_changed_can_be_saved_and_no_longer_says_what_made_it(piece: Piece, tmp_path: Path) -> None:
    for changed in (piece.transpose(-1), piece.stretch(1.5), piece.crop(0, 3000)):
        assert type(changed) is Piece
        assert changed.made_by is None
        changed.save(tmp_path / "changed.mid")
        assert Piece.read(tmp_path / "changed.mid") == changed


def test_its_length_is_that_of_its_last_release() -> None:
    assert Piece.of([0, 1000], [60, 62], [64, 64], [5000, 250]).seconds == 5.0
    assert Piece.of([], [], [], []).seconds == 0


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (([-1], [60], [64], [500]), "onset_ms -1 is not from 0 to"),
        (([0, 0], [60, 109], [64, 64], [500, 500]), "pitch 109 is not from 21 to 108"),
        (([0], [60], [0], [500]), "velocity 0 is not from 1 to 127"),
    ],
)
def test_notes_that_no_piano_plays_are_refused(columns: tuple[list[int], ...], told: str) -> None:
    with pytest.raises(EmogenError, match=told):
        Piece.of(*columns)


def test_nor_can_a_piece_be_moved_off_the_piano(piece: Piece) -> None:
    with pytest.raises(EmogenError, match=r"pitch 1\d\d is not from 21 to 108") as refused:
        piece.transpose(60)
    assert "ms" in refused.value.hint


@pytest.mark.parametrize(
    ("made_by", "words"),
    [
        (MADE_BY, "sad, {facts}, seed 7"),
        (MADE_BY | {"emotion": {"happy": 0.7, "calm": 0.3}}, "70% happy + 30% calm, {facts}, seed 7"),
        (None, "{facts}"),
        ({"emogen": 1, "emotion": 5, "seed": 7}, "{facts}"),
        ({"emogen": 1, "emotion": {"a\nb\x1b[2J": 1}, "seed": []}, "a?b?[2J, {facts}, seed []"),
    ],
    ids=["composed", "a mixture", "from elsewhere", "not ours", "hostile"],
)
def test_the_repr_is_one_line(made_by: dict[str, Any] | None, words: str) -> None:
    piece = Piece(*random_piece(1, 12).columns, made_by)
    found = piece.measures()
    facts = f"{found.length_s:.1f} s, {found.notes} notes, {found.key}"
    assert repr(piece) == f"<Piece {words.format(facts=facts)}>"


def test_the_repr_of_silence() -> None:
    assert repr(Piece.of([], [], [], [])) == "<Piece 0.0 s, 0 notes>"


def test_measures_and_judgement_are_those_of_the_commands(piece: Piece, run: Run) -> None:
    piece.save("piece.mid")
    shown = json.loads(run("show", "piece.mid", "--json")[1])
    measured, heard = piece.measures(), piece.judge()
    assert shown["measures"] == {name: getattr(measured, name) for name in measured.__dataclass_fields__}
    assert shown["made_by"] == piece.made_by
    (judged,) = json.loads(run("judge", "piece.mid", "--json")[1])
    assert judged["quadrant"] == heard.quadrant == max(heard.chance, key=heard.chance.__getitem__)
    assert judged["chance"] == pytest.approx(heard.chance, abs=6e-4)
    assert sum(heard.chance.values()) == pytest.approx(1)
    assert heard.arousal == pytest.approx(heard.chance["Q1"] + heard.chance["Q2"])
    assert heard.valence == pytest.approx(heard.chance["Q1"] + heard.chance["Q4"])
    assert judged["coherence"] == pytest.approx(heard.coherence, abs=6e-3)


# Files


def test_its_chart_is_heard_once_and_is_that_of_its_own_notes(piece: Piece) -> None:
    assert piece.chart is piece.chart
    np.testing.assert_array_equal(piece.chart.rows(), emogen.Chart.of(piece).rows())
    moved = piece.stretch(2)
    np.testing.assert_array_equal(moved.chart.rows(), emogen.Chart.of(moved).rows())


def test_a_midi_file_holds_the_piece_and_what_made_it(piece: Piece, tmp_path: Path) -> None:
    for name in ("piece.mid", "piece.MIDI", "new/folder/piece.mid"):
        piece.save(str(tmp_path / name))
        again = Piece.read(tmp_path / name)
        assert again == piece
        assert again.made_by == MADE_BY
    assert read_text(tmp_path / "piece.mid") == json.dumps(MADE_BY)


def test_music_from_elsewhere_is_saved_without_a_word(tmp_path: Path) -> None:
    Piece.of([0], [60], [64], [500]).save(tmp_path / "a.mid")
    assert read_text(tmp_path / "a.mid") == ""
    assert Piece.read(tmp_path / "a.mid").made_by is None


def test_pretty_midi_has_the_same_notes_and_writes_the_same_file(piece: Piece, tmp_path: Path) -> None:
    piece.save(tmp_path / "a.mid")
    theirs = piece.to_pretty_midi()
    assert isinstance(theirs, pretty_midi.PrettyMIDI)
    notes = sorted(theirs.instruments[0].notes, key=lambda one: (one.start, one.pitch))
    assert [one.pitch for one in notes] == piece.pitch.tolist()
    assert [one.start for one in notes] == pytest.approx(piece.onset_ms / 1000)
    assert [one.end for one in notes] == pytest.approx((piece.onset_ms + piece.duration_ms) / 1000)
    theirs.write(str(tmp_path / "b.mid"))
    assert (tmp_path / "b.mid").read_bytes() == (tmp_path / "a.mid").read_bytes()


def test_the_suffix_says_what_is_written(tmp_path: Path) -> None:
    piece = Piece.of([0, 500], [60, 64], [64, 90], [500, 500])
    for suffix in (".wav", ".ogg", ".MP3"):
        piece.save(tmp_path / f"a{suffix}")
        assert soundfile.info(tmp_path / f"a{suffix}").duration == pytest.approx(1.5, abs=0.6)
    piece.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (1600, 900)
    piece.save(tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert base64.b64encode(midi_bytes(piece)).decode() in page
    assert {file.name for file in tmp_path.iterdir()} == {"a.wav", "a.ogg", "a.MP3", "a.png", "a.html"}


def test_a_file_that_exists_is_replaced(piece: Piece, tmp_path: Path) -> None:
    file = tmp_path / "a.mid"
    file.write_text("mine")
    piece.save(file)
    assert Piece.read(file) == piece


@pytest.mark.parametrize("name", ["a", "a.midi.txt", "a.flac", ".mid"])
def test_another_suffix_is_refused_with_those_there_are(name: str, piece: Piece, tmp_path: Path) -> None:
    with pytest.raises(EmogenError, match="suffix") as refused:
        piece.save(tmp_path / name)
    assert refused.value.hint == "it may end with .mid, .musicxml, .wav, .ogg, .mp3, .png, .html"
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_refused_with_its_name(piece: Piece, tmp_path: Path) -> None:
    (tmp_path / "folder.mid").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("folder.mid", "file/a.mid"):
        with pytest.raises(EmogenError, match=f"{name} cannot be written: ") as refused:
            piece.save(tmp_path / name)
        assert refused.value.hint
    assert {file.name for file in tmp_path.iterdir()} == {"folder.mid", "file"}


def test_a_full_disk_leaves_the_file_before(piece: Piece, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.png"
    piece.save(file)
    before = file.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("emogen.system.files._to_disk", full)
    with pytest.raises(EmogenError, match="No space left"):
        piece.transpose(1).save(file)
    assert file.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["a.png"]


def test_silence_has_no_sound_and_no_picture(tmp_path: Path) -> None:
    silence = Piece.of([], [], [], [])
    for suffix in (".wav", ".png", ".html"):
        with pytest.raises(EmogenError, match="without notes"):
            silence.save(tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())


def test_a_soundfont_that_is_not_there_is_refused(piece: Piece, tmp_path: Path) -> None:
    with pytest.raises(EmogenError, match=r"nowhere\.sf2 cannot be played") as refused:
        piece.save(tmp_path / "a.wav", soundfont="nowhere.sf2")
    assert refused.value.hint
    piece.save(tmp_path / "a.mid", soundfont="nowhere.sf2")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "there is no file"),
        (b"hello", "a.mid: not a MIDI file"),
        (b"", "a.mid: empty file"),
        (midi(track()), "a.mid: no notes"),
        (midi(track(note(0, 500, channel=9))), "a.mid: no notes but drums"),
    ],
    ids=["missing", "text", "empty", "no notes", "drums"],
)
def test_a_file_that_holds_no_piano_music_is_refused(content: bytes | None, told: str, tmp_path: Path) -> None:
    file = tmp_path / "a.mid"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(EmogenError, match=told) as refused:
        Piece.read(str(file))
    assert type(refused.value) is EmogenError
    assert content is not None or refused.value.hint == f"looked for {file}"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(EmogenError, match="there is no file"):
        Piece.read(tmp_path)


# A notebook


class Elements(HTMLParser):
    """The elements of a piece of HTML with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += f"{data}\n"


TWO = Piece.of([0, 500], [60, 64], [64, 90], [500, 500])


def test_a_notebook_shows_the_roll_a_player_and_the_facts() -> None:
    piece = Piece(*TWO.columns, MADE_BY)
    shown = piece._repr_mimebundle_()
    assert shown["text/plain"] == repr(piece)
    html = Elements(shown["text/html"])
    sources = {tag: attributes["src"] for tag, attributes in html.found if "src" in attributes}
    assert sources["img"].startswith("data:image/png;base64,iVBOR")
    sound = base64.b64decode(sources["audio"].removeprefix("data:audio/mpeg;base64,"))
    assert sound == render.small_mp3(render.audio(piece))
    for fact in (
        f"Sad - {piece.measures().key} - 0:0{round(piece.seconds)}",
        f"{piece.seconds:.1f} s",
        piece.measures().key,
        "the bundled voice",
    ):
        assert fact in html.text.splitlines()


def test_it_asks_the_network_for_nothing_and_runs_nothing() -> None:
    html = Elements(TWO._repr_mimebundle_()["text/html"])
    assert {tag for tag, _ in html.found} <= {"div", "strong", "img", "audio", "table", "tr", "th", "td"}
    assert {name for _, attributes in html.found for name in attributes} <= {"style", "alt", "src", "controls"}
    assert all(attributes["src"].startswith("data:") for _, attributes in html.found if "src" in attributes)
    assert not [attributes for _, attributes in html.found if "url" in attributes.get("style", "")]


def test_what_a_file_says_cannot_break_out_of_it() -> None:
    made_by = {"emogen": HOSTILE, "emotion": {HOSTILE: 1}, "seconds": 5, "seed": HOSTILE, "checkpoint": HOSTILE}
    shown = Piece(*TWO.columns, made_by)._repr_mimebundle_()
    html = Elements(shown["text/html"])
    assert "b" not in {tag for tag, _ in html.found}
    assert html.text.splitlines().count(HOSTILE) == 4
    assert repr(Piece(*TWO.columns, {"emogen": 1, "emotion": [5], "seed": 1})).startswith("<Piece 5, ")
    Piece(*TWO.columns, {"emogen": 1, "emotion": [5], "seed": 1})._repr_mimebundle_()


def test_silence_is_shown_without_picture_and_sound_and_says_so() -> None:
    html = Elements(Piece.of([], [], [], [])._repr_mimebundle_()["text/html"])
    assert not {tag for tag, _ in html.found} & {"img", "audio"}
    assert "none: a piece without notes makes no sound" in html.text


def test_only_what_is_wanted_is_made(piece: Piece, monkeypatch: pytest.MonkeyPatch) -> None:
    def audio(*_: Any, **__: Any) -> None:
        raise AssertionError("nobody listens")

    monkeypatch.setattr(render, "audio", audio)
    assert piece._repr_mimebundle_(include={"text/plain"}).keys() == {"text/plain"}
    assert piece._repr_mimebundle_(exclude={"text/html"}).keys() == {"text/plain"}
    shell = SimpleNamespace(display_formatter=SimpleNamespace(active_types=["text/plain"]))  # IPython in a terminal
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert piece._repr_mimebundle_().keys() == {"text/plain"}
    shell.display_formatter.active_types.append("text/html")
    with pytest.raises(AssertionError, match="nobody listens"):
        piece._repr_mimebundle_()


def test_no_word_of_it_is_printed(piece: Piece, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for suffix in (".mid", ".wav", ".html"):
        piece.save(tmp_path / f"a{suffix}")
    Piece.read(tmp_path / "a.mid").judge()
    assert capfd.readouterr() == ("", "")


# A voice


@pytest.fixture(scope="module")
def voice() -> Voice:
    return emogen.load()


@pytest.fixture
def small(tmp_path: Path) -> Voice:
    """A voice of random weights, which composes in no time."""
    tiny.save(tmp_path / "runs")
    return emogen.load("tiny", runs=tmp_path / "runs")


def test_python_and_the_command_line_write_the_same_bytes(voice: Voice, run: Run) -> None:
    for number, (flags, terms) in enumerate(SAME):
        command = ("--emotion", "sad", "--seconds", "5", "--seed", "7", "--checkpoint", "default", *flags)
        code, _, err = run("generate", *command, "--out", f"command{number}.mid")
        assert not code, err
        voice.compose("sad", 5, seed=7, **terms).save(f"python{number}.mid")
        assert Path(f"python{number}.mid").read_bytes() == Path(f"command{number}.mid").read_bytes()
    assert len({path.read_bytes() for path in Path().glob("python*.mid")}) == len(SAME)


def test_a_seed_makes_the_same_piece_however_many_there_are(voice: Voice) -> None:
    alone = voice.compose("sad", 5, seed=8)
    several = voice.compose("sad", 5, seed=6, count=4)
    assert len(several) == 4
    assert several[2] == alone
    assert several[2].made_by == alone.made_by
    assert [piece.made_by["seed"] for piece in several if piece.made_by] == [6, 7, 8, 9]
    assert list(voice.stream("sad", 5, seed=6, count=4)) == several


def test_without_a_seed_one_is_drawn_and_told(small: Voice) -> None:
    pieces = [small.compose("sad", 5) for _ in range(2)]
    seeds = [piece.made_by["seed"] for piece in pieces if piece.made_by]
    assert len(set(seeds)) == 2
    assert [small.compose("sad", 5, seed=seed) for seed in seeds] == pieces


def test_one_piece_is_a_piece_and_a_count_makes_a_list(small: Voice) -> None:
    assert type(small.compose("sad", 5)) is Piece
    assert [type(piece) for piece in small.compose("sad", 5, count=1)] == [Piece]
    assert len(small.compose("sad", 5, count=3)) == 3


def test_each_piece_is_as_long_as_was_asked(small: Voice) -> None:
    lengths: tuple[Any, ...] = (5, 7.25, np.float32(6))
    for seconds in lengths:
        assert small.compose("sad", seconds).seconds == seconds


@pytest.mark.parametrize(
    ("emotion", "weights"),
    [
        ("joyful", {"happy": 1.0}),
        ("q2", {"angry": 0.5, "tense": 0.5}),
        ("happy:3,calm:1", {"happy": 0.75, "calm": 0.25}),
        ({"happy": np.float64(3), "calm": 1}, {"happy": 0.75, "calm": 0.25}),
    ],
)
def test_an_emotion_is_said_in_many_ways(
    emotion: str | dict[str, float], weights: dict[str, float], small: Voice
) -> None:
    made_by = small.compose(emotion, 5, seed=1).made_by
    assert made_by is not None
    assert made_by["emotion"] == weights


def test_what_made_a_piece_makes_it_again(small: Voice, tmp_path: Path) -> None:
    terms: dict[str, Any] = {"seed": np.int64(1), "key": "Am", "loudness": np.float32(60), "top_k": np.int64(9)}
    small.compose("sad", 5, temperature=0.5, **terms).save(tmp_path / "a.mid")
    made = Piece.read(tmp_path / "a.mid").made_by
    assert made == {
        "emogen": emogen.__version__,
        "emotion": {"sad": 1.0},
        "seconds": 5.0,
        "seed": 1,
        "plan": {"mode": -0.2, "velocity": 60.0},
        "tonic": "A",
        "checkpoint": small.label,
        **SampleSettings(temperature=0.5, top_k=9).model_dump(exclude={"device", "threads"}),
    }


def test_a_piece_goes_on_from_a_prime_in_memory_or_in_a_file(small: Voice, tmp_path: Path) -> None:
    prime = Piece.of([0, 500, 1000], [60, 64, 67], [64, 64, 64], [400, 400, 400])
    prime.save(tmp_path / "prime.mid")
    pieces = [
        small.compose("sad", 5, seed=1, prime=one)
        for one in (prime, tmp_path / "prime.mid", str(tmp_path / "prime.mid"))
    ]
    assert pieces[0] == pieces[1] == pieces[2]
    assert pieces[0].pitch[:3].tolist() == [60, 64, 67]
    assert [piece.made_by["prime"] for piece in pieces if piece.made_by] == ["3 notes", "prime.mid", "prime.mid"]


REFUSED = [
    ({"emotion": "hapy"}, "unknown emotion 'hapy'", "did you mean 'happy'?"),
    ({"emotion": ["sad"]}, "['sad'] is not an emotion", "emotions are written"),
    ({"emotion": None}, "None is not an emotion", "emotions are written"),
    ({"seconds": 3}, "seconds 3 is out of range", "seconds takes 5 to 600"),
    ({"seconds": "30"}, "seconds '30' is not a number", "seconds takes 5 to 600"),
    ({"count": 0}, "count 0 is out of range", "count takes 1 to"),
    ({"count": 2.5}, "count 2.5 is not a whole number", "count takes 1 to"),
    ({"seed": -1}, "seed -1 is out of range", "seed takes 0 to 4294967295"),
    ({"seed": 2**32 - 1, "count": 2}, "seed 4294967295 is out of range", "seed takes 0 to 4294967294"),
    ({"seed": "x"}, "seed 'x' is not a number", "seed takes 0 to"),
    ({"key": "H"}, "key 'H' is not a key", "keys are written"),
    ({"key": 5}, "key '5' is not a key", "keys are written"),
    ({"mode": "dorian"}, "mode 'dorian' is not a mode", "modes are major and minor"),
    ({"density": "high"}, "density 'high' is not a number", "density takes 0.5 to 30"),
    ({"temprature": 1}, "unknown argument 'temprature'", "did you mean 'temperature'?"),
    ({"keey": "Am"}, "unknown argument 'keey'", "did you mean 'key'?"),
    ({"xyz": 1}, "unknown argument 'xyz'", "there are temperature, "),
    ({"temperature": 0}, "temperature = 0 should be greater than 0", "Boldness in pitch"),
    ({"top_p": "high"}, "top_p = 'high' should be a valid number", "Sample pitches"),
    ({"device": "tpu"}, "device = 'tpu' should be 'auto', 'cpu', 'cuda' or 'mps'", "Where to compute"),
    ({"prime": "nowhere.mid"}, "there is no file nowhere.mid", "looked for "),
    (
        {"prime": Piece.of([0], [60], [64], [4500])},
        "the prime (1 notes) lasts 4.5 s of the 5 s",
        "ask for more seconds",
    ),
]


@pytest.mark.parametrize(("given", "told", "hint"), REFUSED, ids=[told for _, told, _ in REFUSED])
def test_what_cannot_be_composed_is_refused_at_once_with_a_hint(
    given: dict[str, Any], told: str, hint: str, small: Voice
) -> None:
    for ask in (small.compose, small.stream):  # a stream does not wait for its first piece
        with pytest.raises(EmogenError) as refused:
            ask(**{"emotion": "sad", "seconds": 5, "count": 1, **given})
        assert str(refused.value).startswith(told)
        assert hint in refused.value.hint


def test_a_voice_goes_by_its_name(tmp_path: Path, small: Voice) -> None:
    assert repr(emogen.load()) == "<Voice the bundled voice>"
    for name in ("best", "tiny", "tiny/best", tmp_path / "runs" / "tiny", small.path):
        assert emogen.load(name, runs=tmp_path / "runs").path == small.path


@pytest.mark.parametrize(
    ("name", "told", "hint"),
    [
        ("tiy", "no checkpoint 'tiy'", "did you mean 'tiny'?"),
        ("tiny/bst", "no checkpoint 'bst' in run 'tiny'", "did you mean 'best'?"),
        ("mine.safetensors", "there is no file mine.safetensors", "emogen ckpt export"),
    ],
)
def test_a_name_that_no_voice_has_is_refused_with_those_there_are(
    name: str, told: str, hint: str, tmp_path: Path, small: Voice
) -> None:
    with pytest.raises(EmogenError, match=told) as refused:
        emogen.load(name, runs=tmp_path / "runs")
    assert hint in refused.value.hint


def test_a_stream_that_is_left_early_composes_no_more(small: Voice) -> None:
    stream = small.stream("sad", 5, seed=4, count=100)
    assert next(stream) == small.compose("sad", 5, seed=4)
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)


def test_a_copied_voice_composes_the_same(small: Voice) -> None:
    piece = small.compose("sad", 5, seed=1)
    assert pickle.loads(pickle.dumps(small)).compose("sad", 5, seed=1) == piece


def test_several_threads_may_use_one_voice(small: Voice) -> None:
    wanted = [small.compose("sad", 5, seed=seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as threads:
        pieces = list(threads.map(lambda seed: small.compose("sad", 5, seed=seed), range(6)))
    assert pieces == wanted


def test_they_take_turns(small: Voice, monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[int] = []
    another = Event()

    def watched(*given: Any) -> list[Drawn]:
        inside.append(len(inside) + 1)
        another.wait(0.3) if len(inside) == 1 else another.set()
        try:
            return generate(*given)
        finally:
            inside.pop()

    monkeypatch.setattr(voices, "generate", watched)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda seed: small.compose("sad", 5, seed=seed), range(2)))
    assert not another.is_set()


def test_composing_leaves_the_process_as_it_was(small: Voice, capfd: pytest.CaptureFixture[str]) -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the state that others may rely on
    torch.manual_seed(1)
    before = state_of_the_process()
    small.compose("sad", 5, count=2, threads=2)
    small.compose("sad", 5).judge()
    assert state_of_the_process() == before
    assert capfd.readouterr() == ("", "")


def state_of_the_process() -> tuple[Any, ...]:
    """What a library must not change: random states, threads, environment, folder, processes."""
    pools = [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()]
    return (
        random.getstate(),
        str(np.random.get_state()),  # noqa: NPY002
        torch.get_rng_state().tolist(),
        torch.get_num_threads(),
        sorted(pools),
        dict(os.environ),
        Path.cwd(),
        signal.getsignal(signal.SIGINT),
        multiprocessing.active_children(),
    )
