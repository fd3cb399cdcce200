from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from string import Formatter

import numpy as np
import pytest

from emogen.cli.show import SHOWN
from emogen.music.chart import Chart
from emogen.music.measures import Measures, measure
from emogen.music.midi import midi_bytes
from emogen.music.notes import Piece
from tests.conftest import Run
from tests.midi_files import midi, note, program, text, track
from tests.music import random_piece

PIECE = Piece.of([0, 500, 1000, 4000], [60, 64, 67, 72], [40, 60, 80, 100], [500, 500, 1000, 1000])
MANIFEST = {"emogen": "0.1.0", "emotion": {"happy": 0.7, "calm": 0.3}, "seed": 7, "checkpoint": "my-run/best[1]"}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    path = tmp_path / "made.mid"
    path.write_bytes(midi_bytes(PIECE, json.dumps(MANIFEST)))
    return path


def rows(out: str) -> dict[str, str]:
    """The table of two columns that stands below the piano roll; a row without a name belongs to the one above."""
    found: dict[str, str] = {}
    for line in out[out.index("\nfile ") + 1 :].splitlines():
        name, value = line[:15].strip(), line[15:].strip()
        found[name or list(found)[-1]] = value if name else f"{found[list(found)[-1]]}; {value}"
    return found


def test_show_tells_what_a_file_holds_and_what_made_it(run: Run, made: Path) -> None:
    code, out, err = run("show", str(made))
    assert (code, err) == (0, "")
    assert rows(out) == {
        "file": str(made),
        "length": "5.0 s",
        "notes": "4, 0.8 per second",
        "key": "C major, 100% of the notes in one scale",
        "velocity": "70 on average",
        "pitch": "66 on average, over 12 semitones",
        "pitch classes": "3, 1.5 bits",
        "onsets": "times between them vary by 88%",
        "repetition": "0% of its figures occurred before",
        "polyphony": "1.0 notes at once",
        "longest silence": "2.0 s",
        "tempo": "60 beats per minute, 4/4",
        "pulse": "82%, clear",
        "sections": "AA",
        "chords": "| C Gsus | N C |",
        "heard as": "Q3 (sad) with a chance of 77%; arousal 6%, valence 23%",
        "emogen": "0.1.0",
        "emotion": '{"happy": 0.7, "calm": 0.3}',
        "seed": "7",
        "checkpoint": "my-run/best[1]",
    }


def test_show_leaves_no_measure_out() -> None:
    shown = [field for words in SHOWN.values() for _, field, _, _ in Formatter().parse(words) if field]
    assert sorted(shown) == sorted(Measures.__dataclass_fields__)


def test_show_says_where_the_pulse_is_unclear(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "random.mid"
    path.write_bytes(midi_bytes(random_piece(1, 150)))
    assert rows(run("show", str(path))[1])["pulse"].endswith("unclear: tempo and bars are a guess")


def test_show_json_is_json_alone(run: Run, made: Path) -> None:
    code, out, err = run("show", str(made), "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    heard, chart = report.pop("heard"), report.pop("chart")
    assert chart["chords"] == Chart.of(PIECE).names()
    assert chart["beats_s"] == (Chart.of(PIECE).beats_ms / 1000).tolist()
    assert chart["sections"] == Chart.of(PIECE).letters
    assert len(chart["bars"]) == len(Chart.of(PIECE).lines(1))
    assert report == {"file": str(made), "measures": asdict(measure(PIECE)), "made_by": MANIFEST}
    assert sum(heard["chance"].values()) == pytest.approx(1, abs=2e-3)
    assert heard["arousal"] == pytest.approx(heard["chance"]["Q1"] + heard["chance"]["Q2"], abs=2e-3)
    assert heard["valence"] == pytest.approx(heard["chance"]["Q1"] + heard["chance"]["Q4"], abs=2e-3)


def test_the_opinion_is_that_of_emogen_judge(run: Run, made: Path) -> None:
    heard = json.loads(run("show", str(made), "--json")[1])["heard"]
    (judged,) = json.loads(run("judge", str(made), "--json")[1])
    assert heard == {name: judged[name] for name in heard}


def test_only_the_first_ten_minutes_are_judged(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "long.mid"
    first, rest = np.arange(0, 600_000, 400), np.arange(600_000, 700_000, 50)
    for number, onset in enumerate((first, np.concatenate([first, rest]))):
        piece = Piece.of(onset, np.resize([60, 64, 67], len(onset)), np.full(len(onset), 50), np.full(len(onset), 40))
        path.with_stem(f"long{number}").write_bytes(midi_bytes(piece))
    heard = [json.loads(run("show", str(path.with_stem(f"long{n}")), "--json")[1])["heard"] for n in (0, 1)]
    assert heard[0] == heard[1]


def test_show_draws_the_piece_above_its_facts(run: Run, made: Path) -> None:
    out = run("show", str(made))[1]
    picture = out[: out.index("\nfile ")].splitlines()
    assert any("▀" in line or "▄" in line for line in picture)
    assert "C4" in "".join(picture)
    assert picture[-1].split()[0] == "0"
    assert max(map(len, picture)) <= 120


@pytest.mark.parametrize(
    "words", [b"", b"Intermezzo, A major", b"[1, 2]", b'{"title": "x"}', b'"emogen"', b"[" * 100_000],
    ids=["none", "a title", "a list", "another's JSON", "a word", "too deep"],
)  # fmt: skip
def test_a_foreign_file_has_measures_and_says_nothing_of_emogen(words: bytes, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "foreign.mid"
    path.write_bytes(midi(track(text(0, words), note(0, 1000, 60), note(1000, 2000, 67))))
    code, out, err = run("show", str(path))
    assert (code, err) == (0, "it does not say that emogen made it\n")
    assert rows(out).keys() == {"file", *SHOWN, "tempo", "pulse", "sections", "chords", "heard as"}
    assert json.loads(run("show", str(path), "--json")[1])["made_by"] is None


def test_a_file_of_another_instrument_is_shown_too(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "strings.mid"
    path.write_bytes(midi(track(program(48), note(0, 1000, 60))))
    assert rows(run("show", str(path))[1])["length"] == "1.0 s"


def test_what_a_file_says_cannot_steer_the_terminal(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "hostile.mid"
    path.write_bytes(midi_bytes(PIECE, json.dumps({"emogen": "\x1b[2J", "\x1b]0;": "[bold]x"})))
    code, out, _ = run("show", str(path))
    assert code == 0
    assert "\x1b" not in out
    assert rows(out)["emogen"] == r'"\u001b[2J"'
    assert rows(out)[r'"\u001b]0;"'] == "[bold]x"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"not music at all", "not a MIDI file\nhint: MIDI files end in .mid, .midi, .kar, .smf or .rmi"),
        (midi_bytes(PIECE)[:12], "the file ends within its header"),
        (midi(track()), "no notes"),
    ],
    ids=["empty", "text", "truncated", "silent"],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    content: bytes, reason: str, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "broken.mid"
    path.write_bytes(content)
    for arguments in ((str(path),), (str(path), "--json")):
        assert run("show", *arguments) == (1, "", f"error: {path}: {reason}\n")


def test_a_file_that_is_not_there_is_named(run: Run, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.mid", tmp_path):
        code, out, err = run("show", str(path))
        assert (code, out) == (1, "")
        assert err == f"error: there is no file {path}\nhint: looked for {path}\n"
