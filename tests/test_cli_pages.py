"""The pages that ``generate --html`` and ``listening-test`` write, with sines in the place of a piano."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from emogen.emotion import EMOTIONS
from emogen.errors import EmogenError
from emogen.music.midi import write_piece
from emogen.music.notes import Piece
from emogen.sound import page, render
from emogen.sound.render import Floats, Sound
from tests import tiny
from tests.conftest import Run
from tests.midi_files import tune
from tests.music import random_piece
from tests.sounds import sine

pytest.importorskip("soundfile")

FIVE_S = ("generate", "--emotion", "happy", "--seconds", "5", "--seed", "1", "--html")


@pytest.fixture(autouse=True)
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Piece]:
    """Whatever is asked to sound does so as a sine, unless a SoundFont is named."""
    heard: list[Piece] = []

    def play(piece: Piece) -> Floats:
        heard.append(piece)
        return sine(0.5)

    named = render.engine_for
    monkeypatch.setattr(render, "engine_for", lambda font: named(font) if font else render.Engine(play, 1.0, "sine"))
    return heard


@pytest.fixture
def runs(run: Run) -> Path:
    tiny.save(Path("runs"))
    return Path("runs")


def here(folder: str = ".") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir() if path.name != "runs")


def test_html_writes_a_page_beside_the_midi_file_and_says_where(runs: Path, run: Run) -> None:
    code, out, _ = run(*FIVE_S, "--json")
    assert code == 0
    assert here() == ["happy_5s_seed1.html", "happy_5s_seed1.mid"]
    (row,) = json.loads(out)
    assert row["rendered"] == ["happy_5s_seed1.html"]
    text = Path("happy_5s_seed1.html").read_text()
    for fact in ('<p class="quiet">seed 1</p>', "<dd>5.0 s</dd>", "<dd>tiny/best_epoch_000_loss_17.4740</dd>"):
        assert fact in text


def test_all_with_html_writes_an_index_that_links_every_page(runs: Path, run: Run) -> None:
    code, out, err = run("generate", "-e", "all", "-s", "5", "-n", "2", "--seed", "1", "--html", "-o", "six", "--json")
    assert code == 0
    rows = json.loads(out)
    assert len(rows) == 12
    text = Path("six/index.html").read_text()
    names = [f"{name}_5s_seed{seed}" for name in EMOTIONS for seed in (1, 2)]
    assert re.findall(r'<a class="page" href="([^"]+)">', text) == [f"{name}.html" for name in names]
    assert re.findall(r'<a download href="([^"]+)">MID</a>', text) == [f"{name}.mid" for name in names]
    assert all(Path("six", f"{name}.html").is_file() for name in names)
    heard = json.loads(run("judge", *(f"six/{name}.mid" for name in names), "--json")[1])
    placed = [(float(x), float(y)) for x, y in re.findall(r'data-x="([^"]+)" data-y="([^"]+)"', text)]
    for (x, y), row in zip(placed, heard, strict=True):
        assert (x > 50) == (row["valence"] > 0.5)
        assert (y < 50) == (row["arousal"] > 0.5)
    assert "six/index.html" in err


def test_several_takes_of_one_emotion_have_an_index_too_and_their_sound_is_there(runs: Path, run: Run) -> None:
    code, _, err = run("generate", "-e", "sad", "-s", "5", "-n", "2", "--seed", "1", "--html", "--wav", "-o", "two")
    assert code == 0
    text = Path("two/index.html").read_text()
    assert [name for name in re.findall(r'download href="([^"]+)"', text) if name.endswith(".wav")] == [
        "sad_5s_seed1.wav",
        "sad_5s_seed2.wav",
    ]
    assert "1. Sad - " in text
    assert err.splitlines()[-1] == "next: open two/index.html in a browser"


@pytest.mark.parametrize(("count", "opened"), [("1", "happy_5s_seed1.html"), ("2", "index.html")])
def test_open_writes_the_page_and_opens_it(
    count: str, opened: str, runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []

    def opens(address: str) -> bool:
        pages.append(address)
        return True

    monkeypatch.setattr("webbrowser.open", opens)
    assert run(*FIVE_S[:-1], "--count", count, "--open")[0] == 0
    assert pages == [(Path.cwd() / opened).as_uri()]
    assert Path(opened).is_file()


def test_play_opens_a_page_of_any_file_and_writes_nothing_beside_it(
    runs: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "config"))
    monkeypatch.setattr("webbrowser.open", pages.append)
    Path("a b.mid").write_bytes(tune(1))
    Path("none.mid").write_bytes(b"")
    code, _, err = run("play", "a b.mid")
    assert (code, here()) == (0, ["a b.mid", "none.mid"])
    assert "no browser could be opened here: open " in err
    assert run("play", "a b.mid", "none.mid", "a b.mid")[0] == 1
    assert run("play", "none.mid")[0] == 1
    one, several = (Path(unquote(urlparse(address).path)) for address in pages)
    assert one.name == "001-a b.html"
    assert "<canvas" in one.read_text()
    assert several.name == "index.html"
    assert re.findall(r'class="page" href="([^"]+)"', several.read_text()) == ["001-a%20b.html", "003-a%20b.html"]
    assert {path.parent.parent for path in (one, several)} == {tmp_path / "config"}


def test_a_page_that_fails_is_said_and_costs_neither_the_midi_file_nor_the_other_pages(
    runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Piece] = []

    def audio(piece: Piece, soundfont: Path | None, **how: bool) -> Sound:
        begun.append(piece)
        assert len([name for name in here() if name.endswith(".mid")]) == 2  # all of them, before any page
        if len(begun) == 1:
            raise EmogenError("no engine for sound")
        return Sound(sine(0.5))

    monkeypatch.setattr(render, "audio", audio)
    code, out, err = run(*FIVE_S, "--count", "2", "--json")
    assert code == 1
    assert here() == ["happy_5s_seed1.mid", "happy_5s_seed2.html", "happy_5s_seed2.mid", "index.html"]
    assert [row["rendered"] for row in json.loads(out)] == [[], ["happy_5s_seed2.html"]]
    assert "error: happy_5s_seed1.html was not written: no engine for sound" in err


def test_there_is_no_index_of_nothing(runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def audio(piece: Piece, soundfont: Path | None, **how: bool) -> Sound:
        raise EmogenError("no engine for sound")

    monkeypatch.setattr(render, "audio", audio)
    code, _, err = run("generate", "-e", "all", "-s", "5", "--html")
    assert (code, len(here())) == (1, 6)
    assert {Path(name).suffix for name in here()} == {".mid"}
    assert err.count("error: ") == 6


def test_an_index_that_fails_is_said_and_costs_nothing_else(
    runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "write_index", fail)
    code, _, err = run("generate", "-e", "all", "-s", "5", "--html")
    assert (code, len(here())) == (1, 12)
    assert "error: index.html was not written: No space left on device" in err


def test_a_missing_library_of_sound_costs_the_page_alone(runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    code, _, err = run(*FIVE_S)
    assert code == 1
    assert here() == ["happy_5s_seed1.mid"]
    assert "error: happy_5s_seed1.html was not written" in err
    assert "soundfile" in err


@pytest.mark.parametrize("there", ["happy_5s_seed1.html", "happy_5s_seed1.mid"])
def test_neither_page_nor_midi_file_is_replaced_unasked(there: str, runs: Path, run: Run) -> None:
    Path(there).write_text("mine")
    code, _, err = run(*FIVE_S)
    assert (code, Path(there).read_text(), here()) == (1, "mine", [there])
    assert f"{there} exists already" in err
    assert run(*FIVE_S, "--force")[0] == 0
    assert Path(there).read_bytes() != b"mine"


def test_an_index_that_exists_is_not_replaced_unasked(runs: Path, run: Run) -> None:
    Path("index.html").write_text("my home page")
    code, _, err = run("generate", "-e", "all", "-s", "5", "--html")
    assert (code, here()) == (1, ["index.html"])
    assert "index.html exists already" in err


def listen(run: Run, *more: str) -> tuple[int, str, str]:
    return run("listening-test", "--checkpoint", "tiny/best", "--seconds", "5", *more)


def test_a_listening_test_is_written_and_scored(runs: Path, run: Run, recorded: list[Piece]) -> None:
    tiny.save(runs, run="other")
    code, out, err = listen(run, "--checkpoint", "other/best", "--count", "2")
    assert (code, out) == (0, ""), err
    assert here() == ["listening-test.html", "listening-test.key.json"]
    assert [piece.end_ms for piece in recorded] == [5000] * 24
    key = json.loads(Path("listening-test.key.json").read_text())
    origins = [one["origin"] for one in key["pieces"].values()]
    assert {name: origins.count(name) for name in origins} == {
        "tiny/best_epoch_000_loss_17.4740": 12,
        "other/best_epoch_000_loss_17.4740": 12,
    }
    text = Path("listening-test.html").read_text()
    assert not [name for name in ("tiny", "best", "17.47") if name in text]

    answers = [
        {
            "piece": name,
            "emotion": one["wanted"],
            "valence": 3,
            "arousal": 3,
            "musicality": 2 + one["origin"].count("tiny"),
        }
        for name, one in key["pieces"].items()
    ]
    Path("a.json").write_text(json.dumps({"test": key["test"], "listener": "a", "answers": answers}))
    code, out, err = run("listening-test", "--score", "a.json", "--json")
    assert (code, err) == (0, "")
    means = {row["origin"].partition("/")[0]: row["musicality"]["mean"] for row in json.loads(out)}
    assert means == {"tiny": 3, "other": 2}
    code, out, err = run("listening-test", "--score", "a.json")
    assert code == 0
    table = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines()]
    assert table[0] == ["other/best_epoch_000_loss_17.4740", "tiny/best_epoch_000_loss_17.4740"]
    assert table[1:4] == [["pieces", "12", "12"], ["listeners", "1", "1"], ["answers", "12", "12"]]
    assert table[4] == ["emotion heard", "100% (100%..100%)", "100% (100%..100%)"]
    assert table[-1] == ["musicality", "2.00 (2.00..2.00)", "3.00 (3.00..3.00)"]
    assert "95 % interval" in err


def test_systems_are_heard_in_pairs_by_emotion_and_by_the_names_of_their_files(
    runs: Path, run: Run, recorded: list[Piece]
) -> None:
    for system, first in (("one", 0), ("other", 100)):
        for number in range(12):
            file = Path(system, f"Q{number % 4 + 1}", f"{number}.mid")
            file.parent.mkdir(parents=True, exist_ok=True)
            write_piece(random_piece(first + number, 40), file)
    Path("other/Q1/0.mid").unlink()
    code, _, err = run("listening-test", "--pieces", "one=one", "--pieces", "other=other", "--seconds", "5")
    assert code == 0, err
    pieces = json.loads(Path("listening-test.key.json").read_text())["pieces"].values()
    heard = {name: {one["source"] for one in pieces if one["origin"] == name} for name in ("one", "other")}
    assert len(heard["one"]) == len(heard["other"]) == 6
    assert len(heard["one"] & heard["other"]) >= 5
    wanted = {name: sorted(one["wanted"] for one in pieces if one["origin"] == name) for name in heard}
    assert wanted["one"] == wanted["other"] == ["Q1", "Q1", "Q2", "Q2", "Q3", "Q4"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "nothing to listen to"),
        (("--checkpoint", "best", "--checkpoint", "best"), 2, "two of the checkpoints are the same"),
        (("--checkpoint", "best", "--seconds", "90"), 2, "--seconds 90 is out of range"),
        (("--score",), 2, "--score and files of answers must be given together"),
        (("a.json",), 2, "--score and files of answers must be given together"),
        (("--score", "a.json"), 1, "there is no file listening-test.key.json"),
        (("--real", "nowhere"), 1, "no such file or folder: nowhere"),
        (("--real", "nowhere", "--real", "elsewhere"), 2, "--real was given twice"),
        (("--pieces", "nowhere"), 2, "is not NAME=FOLDER"),
        (("--pieces", "a=nowhere"), 1, "there is no folder nowhere"),
        (("--pieces", "real music=nowhere"), 2, "two of the origins are called 'real music'"),
    ],
)
def test_what_cannot_be_meant_or_done_is_said(
    arguments: tuple[str, ...], code: int, said: str, runs: Path, run: Run
) -> None:
    found, out, err = run("listening-test", *arguments)
    assert (found, out) == (code, "")
    assert said in err
    assert here() == []


def test_a_soundfont_that_cannot_be_played_is_refused_before_anything_is_composed(runs: Path, run: Run) -> None:
    for words in (FIVE_S, ("listening-test", "--checkpoint", "tiny/best", "--seconds", "5")):
        code, _, err = run(*words, "--soundfont", "nowhere.sf2")
        assert (code, here()) == (1, [])
        assert err.startswith("error: the SoundFont nowhere.sf2 cannot be played")


def test_a_test_under_way_is_not_replaced_unasked(runs: Path, run: Run) -> None:
    Path("listening-test.key.json").write_text("{}")
    code, _, err = listen(run)
    assert (code, here()) == (1, ["listening-test.key.json"])
    assert "listening-test.key.json exists already" in err
