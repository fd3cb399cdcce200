from __future__ import annotations

import errno
import json
import math
import os
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

import emogen
from emogen import __version__
from emogen.cli.console import console
from emogen.composing import parallel, provenance, voice
from emogen.composing.drafts import Drawn
from emogen.composing.wish import Wish
from emogen.emotion import EMOTIONS
from emogen.model import checkpoint
from emogen.music.measures import TONICS, measure
from emogen.music.midi import midi_bytes, read_piece, read_text
from emogen.music.notes import Piece
from emogen.music.tokens import encode
from emogen.settings import SampleSettings
from emogen.training import shelf
from tests import tiny
from tests.conftest import Run
from tests.midi_files import tune

FIVE_S = ("generate", "--emotion", "happy", "--seconds", "5", "--seed", "1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with one checkpoint; nobody changes it."""
    runs = tmp_path_factory.mktemp("trained") / "runs"
    tiny.save(runs)
    return runs


@pytest.fixture(autouse=True)
def few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """More only wait for each other in a network this small."""
    monkeypatch.setattr(voice, "default_threads", lambda: 1)


@pytest.fixture
def runs(trained: Path, run: Run) -> Path:
    """A copy of it, as ``runs`` of the working directory."""
    return Path(shutil.copytree(trained, "runs"))


def weights_of(runs: Path) -> Path:
    return shelf.resolve("best", runs) / checkpoint.WEIGHTS


def here() -> list[str]:
    """All files of the working directory, hidden ones too, but for the runs."""
    files = [path.relative_to(Path.cwd()) for path in Path.cwd().rglob("*") if path.is_file()]
    return sorted(path.as_posix() for path in files if path.parts[0] != "runs")


def wishes_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Wish], dict[str, Any]]]:
    """What the command asks of ``generate`` from now on, call by call: wishes and sample settings."""
    asked: list[tuple[list[Wish], dict[str, Any]]] = []

    def listen(network: Any, plans: Any, wishes: list[Wish], sample: Any, *rest: Any) -> list[Drawn]:
        _, tell, _ = rest
        asked.append((wishes, sample.model_dump()))
        tell(sum(wish.seconds for wish in wishes))
        return [Drawn.of([0], [60], [64], [wish.seconds * 1000]) for wish in wishes]

    monkeypatch.setattr(voice, "generate", listen)
    return asked


def test_a_length_is_written_in_minutes_too(runs: Path, run: Run) -> None:
    assert run("generate", "-e", "happy", "-s", "0:07.5", "--seed", "1")[0] == 0
    assert read_piece(Path("happy_7.5s_seed1.mid")).end_ms == 7500
    for wrong in ("1:75", "soon", ":30", "1:"):
        code, _, err = run("generate", "-e", "happy", "-s", wrong)
        assert (code, f"'{wrong}' is not a time, such as 90 seconds or 1:30" in err) == (2, True)
    assert run("listening-test", "--checkpoint", "best", "-o", "x.html", "--seconds", "1:30")[0] == 2
    assert here() == ["happy_7.5s_seed1.mid"]


@pytest.mark.parametrize("seconds", ["5", "7.3"])
def test_a_piece_is_written_as_long_as_asked_and_told_of(seconds: str, runs: Path, run: Run) -> None:
    code, out, err = run("generate", "-e", "happy", "-s", seconds, "--seed", "1")
    assert (code, out) == (0, "")
    assert here() == [f"happy_{seconds}s_seed1.mid"]
    midi = pretty_midi.PrettyMIDI(here()[0])
    assert midi.get_end_time() == pytest.approx(float(seconds), abs=1e-3)
    told = err.splitlines()
    assert told[0] == "composing with tiny/best_epoch_000_loss_17.4740, seed 1"
    assert told[1].split() == ["file", "emotion", "length", "notes", "notes/s", "key"]
    notes = len(midi.instruments[0].notes)
    assert told[2].split()[:6] == [here()[0], "happy", seconds if "." in seconds else f"{seconds}.0", "s", str(notes),
                                   f"{notes / float(seconds):.1f}"]  # fmt: skip
    assert told[3:] == [f"next: emogen play {here()[0]}"]


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(runs: Path, run: Run) -> None:
    for folder, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        assert run(*FIVE_S, "--seed", seed, "--out", folder)[0] == 0
    a, b, c = (next(Path(folder).iterdir()).read_bytes() for folder in "abc")
    assert a == b
    assert a != c


def test_all_makes_pieces_of_every_emotion_and_names_tell_them_apart(runs: Path, run: Run) -> None:
    code, out, _ = run("generate", "-e", "all", "-s", "5", "--count", "2", "--seed", "40", "--json", "--out", "six")
    assert code == 0
    names = [f"six/{name}_5s_seed{seed}.mid" for name in EMOTIONS for seed in (40, 41)]
    assert here() == sorted(names)
    report = json.loads(out)
    assert [row["file"] for row in report] == names
    assert [row["emotion"] for row in report] == [{name: 1.0} for name in EMOTIONS for _ in range(2)]
    assert [row["seed"] for row in report] == [40, 41] * 6
    assert len({Path(name).read_bytes() for name in names}) == 12


def test_json_is_all_that_goes_to_standard_output(runs: Path, run: Run) -> None:
    code, out, err = run(*FIVE_S, "--json", "--mode", "minor", "--density", "4")
    (row,) = json.loads(out)
    piece = read_piece(Path(row["file"]))
    assert code == 0
    assert row == {
        "file": "happy_5s_seed1.mid",
        "emotion": {"happy": 1.0},
        "seconds": 5.0,
        "seed": 1,
        "plan": {"mode": -0.2, "density": math.log(4)},
        "length_s": 5.0,
        "notes": len(piece),
        "notes_per_s": round(len(piece) / 5, 2),
        "key": row["key"],
        "unmet": ["4 notes per second asked for, 5.4 obtained", f"minor asked for, {row['key']} heard"],
    }
    assert row["key"].endswith(" major")
    assert err.splitlines() == ["composing with tiny/best_epoch_000_loss_17.4740, seed 1"]


def test_what_made_a_file_is_written_into_it_and_shown(runs: Path, run: Run) -> None:
    mixture = {"happy": 0.75, "calm": 0.25}
    assert run("generate", "-e", "joy:3,calm:1", "-s", "5", "--seed", "9", "--top-p", "0.8", "-o", "x.mid")[0] == 0
    manifest = {
        "emogen": __version__,
        "emotion": mixture,
        "seconds": 5.0,
        "seed": 9,
        "plan": {},
        "checkpoint": "tiny/best_epoch_000_loss_17.4740",
        "temperature": 0.8,
        "top_p": 0.8,
        "top_k": 0,
        "min_p": 0.0,
        "guidance": 1.5,
        "precision": "float32",
    }
    assert json.loads(read_text(Path("x.mid"))) == manifest
    assert json.loads(run("show", "x.mid", "--json")[1])["made_by"] == manifest


@pytest.mark.parametrize(
    ("emotion", "name", "shown"),
    [
        ("Joy", "happy", "happy"),
        (" q1 ", "happy-0.5_excited-0.5", "50% happy + 50% excited"),
        ("happy: 0.7, calm:0.3", "happy-0.7_calm-0.3", "70% happy + 30% calm"),
        ("sad:1,calm:2", "sad-0.33_calm-0.67", "33% sad + 67% calm"),
        (",".join(["happy:1,sad:1"] * 30), "happy-0.5_sad-0.5", "50% happy + 50% sad"),
    ],
)
def test_files_are_named_by_what_is_meant_not_by_what_is_typed(
    emotion: str, name: str, shown: str, runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes_of(monkeypatch)
    code, _, err = run("generate", "-e", emotion, "--seed", "1")
    assert code == 0
    assert here() == [f"{name}_30s_seed1.mid"]
    assert f"  {shown}  " in err


def test_passages_name_the_file_and_words_are_read_aloud(runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wishes_of(monkeypatch)
    code, _, err = run("generate", "-e", "nostalgic, happy 15", "--seed", "1", "--cut")
    assert code == 0
    assert here() == ["sad-0.47_calm-0.53_to_happy_30s_seed1.mid"]
    assert err.startswith("nostalgic is read as 47% sad + 53% calm\n")
    code, _, err = run("generate", "--valence", ".3", "--arousal", "-.5", "--seed", "2")
    assert err.startswith("this place on the plane is read as 14% sad + 86% calm\n")


def test_what_was_asked_for_and_not_obtained_is_said() -> None:
    keys = np.array([0, 2, 4, 5, 7, 9, 11, 12, 0, 4, 7, 12, 0, 4, 7, 0, 4, 7, 0, 0]) + 55
    piece = Piece.of(np.arange(0, 10_000, 500), keys + 5, np.full(20, 64), np.full(20, 400))
    measured = measure(piece)
    assert round(measured.pitch) == 65
    wish = Wish.of("sad", 10, density=25, loudness=65, register=75, mode="minor", tempo=100)
    told = provenance.unmet(provenance.made_by(wish, "voice", SampleSettings()), measured, 96.0)
    assert told == [
        "25 notes per second asked for, 2.0 obtained",
        "register 75 asked for, 65 obtained",
        "minor asked for, C major heard",
        "tempo 100 asked for, 96.0 taken so that whole bars fill the seconds",
    ]
    wish = Wish.of("sad", 10, density=2, loudness=65, register=66, mode="major", tempo=97)
    assert provenance.unmet(provenance.made_by(wish, "voice", SampleSettings()), measured, 96.0) == []


def test_a_seed_that_is_not_given_is_a_new_one_and_told(runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wishes_of(monkeypatch)
    errs = [run("generate", "-e", "sad")[2] for _ in range(2)]
    seeds = {err.splitlines()[0].rpartition(" ")[2] for err in errs}
    assert len(seeds) == 2
    assert here() == sorted(f"sad_30s_seed{seed}.mid" for seed in seeds)


def test_flags_and_settings_reach_the_wishes_and_the_drawing(
    runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = wishes_of(monkeypatch)
    monkeypatch.setenv("EMOGEN_SAMPLE__TOP_K", "9")
    flags = (
        "--mode major --density 3 --loudness 70 --register 61 --temperature 0.9 --top-p 0.7 --guidance 2 --threads 1"
        " --precision int8"
    )
    assert run("generate", "-e", "calm", "-s", "60", "-n", "2", "--seed", "5", *flags.split())[0] == 0
    pins = {"mode": 0.2, "density": math.log(3), "velocity": 70.0, "pitch": 61.0}
    ((wishes, sample),) = asked
    assert wishes == [Wish({"calm": 1.0}, 60.0, seed, pins) for seed in (5, 6)]
    drawing = {"temperature": 0.9, "top_p": 0.7, "top_k": 9, "guidance": 2.0, "min_p": 0.0} | {"precision": "int8"}
    assert sample == drawing | {"device": "cpu", "threads": 1}
    manifest = json.loads(read_text(Path("calm_60s_seed5.mid")))
    assert {name: manifest[name] for name in drawing} == drawing


@pytest.mark.parametrize(
    ("key", "tonic", "mode"),
    [
        ("A minor", 9, -0.2),
        ("Am", 9, -0.2),
        ("eb", 3, 0.2),
        ("F# major", 6, 0.2),
        ("Cb maj", 11, 0.2),
        ("B#m", 0, -0.2),
    ],
)
def test_a_key_is_a_tonic_and_a_mode(
    key: str, tonic: int, mode: float, runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = wishes_of(monkeypatch)
    code, out, _ = run(*FIVE_S, "--json", "--key", key)
    ((wishes, _),) = asked
    assert code == 0
    assert json.loads(out)[0]["tonic"] == TONICS[tonic]
    assert [(wish.tonic, wish.pins) for wish in wishes] == [(tonic, {"mode": mode})]


def test_more_threads_than_cores_are_brought_down_and_told_of(
    runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes_of(monkeypatch)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert "this computer has 2 cores, fewer than --threads 9" in run(*FIVE_S, "--threads", "9")[2]
    assert "cores" not in run(*FIVE_S, "--force", "--threads", "2")[2]


def test_many_pieces_are_composed_some_at_a_time_and_written_as_they_come(
    runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = wishes_of(monkeypatch)
    monkeypatch.setattr(parallel, "AT_ONCE", 2)
    written_before: list[int] = []
    listen = vars(voice)["generate"]

    def watched(*arguments: Any) -> list[Drawn]:
        written_before.append(len(here()))
        return listen(*arguments)

    monkeypatch.setattr(voice, "generate", watched)
    assert run("generate", "-e", "happy", "-n", "5", "--seed", "0")[0] == 0
    assert [[wish.seed for wish in wishes] for wishes, _ in asked] == [[0, 1], [2, 3], [4]]
    assert written_before == [0, 2, 4]
    assert here() == [f"happy_30s_seed{seed}.mid" for seed in range(5)]


def test_a_file_that_exists_is_kept_unless_forced(runs: Path, run: Run) -> None:
    Path("x.mid").write_bytes(b"mine")
    code, out, err = run(*FIVE_S, "--out", "x.mid")
    assert (code, out) == (1, "")
    assert err.startswith("error: x.mid exists already\nhint: --force replaces it")
    assert Path("x.mid").read_bytes() == b"mine"
    assert run(*FIVE_S, "--out", "x.mid", "--force")[0] == 0
    assert read_piece(Path("x.mid")).end_ms == 5000
    assert here() == ["x.mid"]


def test_one_of_many_files_that_exists_stops_them_all(runs: Path, run: Run) -> None:
    for seed in (2, 3):
        Path(f"happy_5s_seed{seed}.mid").write_bytes(b"mine")
    code, _, err = run(*FIVE_S, "--count", "4")
    assert code == 1
    assert err.startswith("error: happy_5s_seed2.mid and 1 more exist already\n")
    assert here() == ["happy_5s_seed2.mid", "happy_5s_seed3.mid"]


@pytest.mark.parametrize("more", [[], ["--wav"], ["--png"]])
def test_a_name_in_wav_is_that_sound_with_its_midi_file_beside_it(more: list[str], runs: Path, run: Run) -> None:
    code, out, _ = run("generate", "-e", "sad", "-s", "5", "--seed", "1", "-o", "new/cue.wav", "--json", *more)
    assert code == 0
    assert here() == ["new/cue.mid", *["new/cue.png"] * ("--png" in more), "new/cue.wav"]
    assert soundfile.info("new/cue.wav").frames == 5 * 44_100
    assert json.loads(out)[0]["rendered"][-1] == "new/cue.wav"


def test_folders_are_made_and_a_name_in_mid_is_a_file(runs: Path, run: Run) -> None:
    assert run(*FIVE_S, "--out", "new/folder/tune.MID")[0] == 0
    assert run(*FIVE_S, "--out", "other/folder")[0] == 0
    Path("strange.mid").mkdir()
    assert run(*FIVE_S, "--out", "strange.mid")[0] == 0
    name = "happy_5s_seed1.mid"
    assert here() == ["new/folder/tune.MID", f"other/folder/{name}", f"strange.mid/{name}"]


USAGE_ERRORS = {
    ("-e", "hapy"): ("unknown emotion 'hapy'", "did you mean 'happy'?"),
    ("-e", "zzz"): ("unknown emotion 'zzz'", ", ".join(EMOTIONS)),
    ("-e", "happy:x"): ("'x' is not a weight", "happy:0.7,calm:0.3"),
    ("-e", "all,sad"): ("unknown emotion 'all'", ", ".join(EMOTIONS)),
    ("-e", ""): ("no emotion was given", ", ".join(EMOTIONS)),
    (): ("no emotion was given", ", ".join(EMOTIONS)),
    ("--valence", "1"): ("--valence and --arousal go together", "give both"),
    ("--arousal", "1"): ("--valence and --arousal go together", "give both"),
    ("-e", "sad", "--valence", "1", "--arousal", "1"): ("--emotion and --valence say the same", "one of them"),
    ("--valence", "1", "--arousal", "-1.1"): ("arousal -1.1 is out of range", "-1 to 1"),
    ("-e", "nostalgik"): ("unknown emotion 'nostalgik'", "did you mean 'nostalgic'?"),
    ("-e", "sad 0:00, calm 0:31"): ("less than 4 s before the end", "longer"),
    ("-e", "sad 0:00, calm -3"): ("'-3' is not a time", "0:42.5"),
    ("-e", "sad 0:00, calm 0:10", "--form", "AB"): ("passages are sections", "one of them"),
    ("-e", "sad > calm", "--cut"): ("an even path is not cut", "cut"),
    ("-e", "sad", "--marker", "0:x"): ("'0:x' is not a time", "emogen generate --help"),
    ("-e", "sad", "--marker", "0:29.5"): ("the marker at 29.5 s", "move a marker"),
    ("-e", "sad", "--marker", "7", "--marker", "7.5"): ("the times 7 s and 7.5 s", "move a marker"),
    ("-e", "sad", "-s", "4.9"): ("seconds 4.9 is out of range", "5 to 600"),
    ("-e", "sad", "-s", "601"): ("seconds 601 is out of range", "5 to 600"),
    ("-e", "sad", "-s", "nan"): ("seconds nan is out of range", "5 to 600"),
    ("-e", "sad", "-s", "inf"): ("seconds inf is out of range", "5 to 600"),
    ("-e", "sad", "-s", "long"): ("'--seconds'", "emogen generate --help"),
    ("-e", "sad", "-n", "0"): ("--count 0 is out of range", "1 to 10000"),
    ("-e", "sad", "-n", "10001"): ("--count 10001 is out of range", "1 to 10000"),
    ("-e", "sad", "--seed", "-1"): ("--seed -1 is out of range", "0 to 4294967295"),
    ("-e", "sad", "--seed", "4294967295", "-n", "2"): ("--seed 4294967295 is out of range", "0 to 4294967294"),
    ("-e", "sad", "--mode", "dorian"): ("'dorian' is not one of 'major', 'minor'", "emogen generate --help"),
    ("-e", "sad", "--key", "H minor"): ("key 'H minor' is not a key", "A minor"),
    ("-e", "sad", "--key", "Am", "--mode", "major"): ("key 'Am' is minor, but mode is major", "leave one of them out"),
    ("-e", "sad", "--density", "0"): ("density 0 is out of range", "0.5 to 30"),
    ("-e", "sad", "--density", "nan"): ("density nan is out of range", "0.5 to 30"),
    ("-e", "sad", "--loudness", "128"): ("loudness 128 is out of range", "1 to 127"),
    ("-e", "sad", "--register", "20"): ("register 20 is out of range", "21 to 108"),
    ("-e", "sad", "--temperature", "0"): ("flag --temperature: sample.temperature = 0", "Boldness"),
    ("-e", "sad", "--top-p", "1.1"): ("flag --top-p: sample.top_p = 1.1", "probability"),
    ("-e", "sad", "--guidance", "much"): ("flag --guidance: sample.guidance = much", "strongly"),
    ("-e", "sad", "--tempo", "5"): ("tempo 5 is out of range", "30 to 240"),
    ("-e", "sad", "--tempo", "900"): ("tempo 900 is out of range", "30 to 240"),
    ("-e", "sad", "--meter", "5/4"): ("meter '5/4' is not a meter", "4/4 and 3/4"),
    ("-e", "sad", "--chords", "Am H"): ("'H' is not a chord", "Am F C G"),
    ("-e", "sad", "--chords", ""): ("there are no chords", "Am F C G"),
    ("-e", "sad", "--chords", "i VI"): ("the chord 'i' is of a key", '--key "A minor"'),
    ("-e", "sad", "--form", "AXB"): ("form 'AXB' is not a form", "AABA"),
    ("-e", "sad", "--return", "2"): ("returns 2 is out of range", "0 to 1"),
    ("-e", "sad", "-n", "2", "-o", "x.mid"): ("--out x.mid is one file, and there are 2 pieces", "a folder"),
    ("-e", "sad", "-n", "2", "-o", "x.wav"): ("--out x.wav is one file, and there are 2 pieces", "a folder"),
    ("-e", "all", "-o", "x.midi"): ("--out x.midi is one file, and there are 6 pieces", "a folder"),
}
"""By arguments: the complaint and the hint."""


@pytest.mark.parametrize("arguments", USAGE_ERRORS, ids=" ".join)
def test_what_cannot_be_meant_is_refused_with_what_can(arguments: tuple[str, ...], run: Run) -> None:
    code, out, err = run("generate", *arguments)
    complaint, hint = err.splitlines()
    assert (code, out) == (2, "")
    assert complaint.startswith("error: ")
    assert hint.startswith("hint: ")
    assert USAGE_ERRORS[arguments][0] in complaint
    assert USAGE_ERRORS[arguments][1] in hint
    assert here() == []


@pytest.mark.parametrize("handle", ["--tempo=72", "--meter=3/4", "--chords=Am F", "--form=AB", "--return=1"])
def test_a_voice_that_follows_no_charts_says_so(handle: str, runs: Path, run: Run) -> None:
    code, _, err = run(*FIVE_S, handle)
    assert code == 2
    assert "tiny/best_epoch_000_loss_17.4740 follows no beats and chords" in err
    assert "or take the voice default" in err
    assert here() == []


def test_more_sections_than_bars_are_refused(run: Run) -> None:
    code, _, err = run(*FIVE_S, "--form", "ABABABABABAB", "--tempo", "60", "--checkpoint", "default")
    assert code == 2
    assert "has 12 sections, and 5 s" in err
    assert here() == []


def test_what_was_asked_of_the_bars_is_in_the_file_and_another_piece_can_follow_it(run: Run) -> None:
    bars = ("--tempo", "96", "--meter", "3/4", "--chords", "Am | F C | G", "--form", "AB", "--return", "1")
    voice = ("--checkpoint", "default")
    assert run(*FIVE_S, *bars, "-s", "15", *voice, "-o", "x.mid")[0] == 0
    shown = json.loads(run("show", "x.mid", "--json")[1])["made_by"]
    told = {"tempo": 96.0, "meter": "3/4", "chords": "Am | F C | G", "form": "AB", "returns": 1.0}
    assert {name: shown[name] for name in told} == told
    assert run("generate", "-e", "sad", "-s", "15", "--seed", "2", *voice, "--chart-from", "x.mid")[0] == 0
    code, _, err = run("generate", "-e", "sad", "--chart-from", "y.mid")
    assert (code, "there is no file y.mid" in err) == (1, True)


def test_what_is_refused_before_composing_never_waits_for_torch(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "foreign.safetensors").write_bytes(b"foreign")
    (tmp_path / "broken.mid").write_bytes(b"broken")
    cases = [
        *((arguments, 2) for arguments in USAGE_ERRORS),
        (("-e", "sad", "--checkpoint", "best"), 1),
        (("-e", "sad", "--checkpoint", "foreign.safetensors"), 1),
        (("-e", "sad", "--prime", "broken.mid", "--runs", str(trained)), 1),
        (("-e", "sad", "--out", "broken.mid"), 1),
    ]
    script = (
        "import sys; from emogen.cli import main\n"
        f"for arguments, expected in {cases!r}:\n"
        "    try: main(['generate', *arguments])\n"
        "    except SystemExit as end: assert end.code == expected, (arguments, end.code)\n"
        "    assert 'torch' not in sys.modules, arguments\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(emogen.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("error: ")) == (0, len(cases)), done.stderr


def test_without_a_checkpoint_the_command_that_makes_one_is_told(run: Run) -> None:
    code, out, err = run(*FIVE_S, "--checkpoint", "best")
    assert (code, out) == (1, "")
    assert "no trained run in runs" in err
    assert "emogen train" in err
    assert here() == []


@pytest.mark.parametrize("out", ["taken", "taken/deeper", "taken/x.mid"])
def test_a_place_below_a_file_is_refused_before_anything_is_composed(
    out: str, runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = wishes_of(monkeypatch)
    Path("taken").write_bytes(b"mine")
    code, _, err = run(*FIVE_S, "--out", out)
    assert (code, err) == (1, "error: taken is not a folder\nhint: choose another name or folder\n")
    assert not asked
    assert Path("taken").read_bytes() == b"mine"


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_composed(
    runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = wishes_of(monkeypatch)
    Path("locked").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != Path("locked") and access(path, mode))
    code, _, err = run(*FIVE_S, "--out", "locked/deeper")
    assert (code, err) == (1, "error: locked cannot be written to\nhint: choose another name or folder\n")
    assert not asked
    assert run(*FIVE_S, "--out", "open/deeper")[0] == 0


def test_a_full_disk_leaves_no_half_file_and_keeps_what_was_there(
    runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("happy_5s_seed1.mid").write_bytes(b"mine")
    write_bytes = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        write_bytes(self, data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    code, out, err = run(*FIVE_S, "--force")
    assert (code, out) == (1, "")
    assert "No space left on device" in err
    assert "hint: make room" in err
    assert here() == ["happy_5s_seed1.mid"]
    assert Path("happy_5s_seed1.mid").read_bytes() == b"mine"


class Bomb:
    """Unpickling it makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def with_meta(file: Path, **changes: Any) -> None:
    """Change the metadata in the header of weights."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    meta = json.loads(header["__metadata__"]["emogen"]) | changes
    header["__metadata__"]["emogen"] = json.dumps(meta)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def damage(kind: str, runs: Path) -> str:
    """Damage the checkpoint in ``runs``, or make another file; returns what ``--checkpoint`` shall name."""
    file = weights_of(runs)
    name = str(file.parent)
    if kind == "newer format":
        with_meta(file, format=checkpoint.FORMAT + 1)
    elif kind == "another vocabulary":
        with_meta(file, vocabulary="f" * 16)
    elif kind == "truncated":
        file.write_bytes(file.read_bytes()[:-1000])
    elif kind == "truncated header":
        file.write_bytes(file.read_bytes()[:200])
    elif kind == "hostile pickle in its place":
        file.write_bytes(pickle.dumps(Bomb()))
    elif kind == "hostile .pt":
        name = "evil.pt"
        torch.save({"model": Bomb()}, name)
    elif kind == "foreign .safetensors":
        name = "foreign.safetensors"
        save_file({"w": torch.zeros(3)}, name)
    elif kind == "text":
        name = "notes.txt"
        Path(name).write_text("hello")
    elif kind == "empty":
        name = "empty.safetensors"
        Path(name).touch()
    elif kind == "weights of another network":
        weights = load_file(file)
        weights.pop("enter.bias")
        save_file(weights, file, metadata={"emogen": tiny.meta(tiny.composer()).model_dump_json()})
    elif kind == "weights of another shape":
        with_meta(file, model=tiny.SETTINGS.model_copy(update={"d_model": 64}).model_dump())
    elif kind == "weights that are no numbers":
        weights = load_file(file)
        weights["enter.bias"][0] = math.nan
        save_file(weights, file, metadata={"emogen": tiny.meta(tiny.composer()).model_dump_json()})
    return name


DAMAGE = {
    "newer format": f"of format {checkpoint.FORMAT + 1}",
    "another vocabulary": "was made with different tokens",
    "truncated": "is cut short",
    "truncated header": "is not an emogen checkpoint",
    "hostile pickle in its place": "is not an emogen checkpoint",
    "hostile .pt": "is not an emogen checkpoint",
    "foreign .safetensors": "is not an emogen checkpoint",
    "text": "is not an emogen checkpoint",
    "empty": "is not an emogen checkpoint",
    "weights of another network": "do not fit this emogen's network",
    "weights of another shape": "do not fit this emogen's network",
    "weights that are no numbers": "contain NaN or infinity",
}
"""By kind of damage: what is said."""


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_or_hostile_checkpoint_is_refused_by_name_and_never_executed(kind: str, runs: Path, run: Run) -> None:
    name = damage(kind, runs)
    before = here()
    code, out, err = run(*FIVE_S, "--checkpoint", name)
    assert (code, out) == (1, "")
    complaint, hint = err.splitlines()[-2:]
    assert complaint.startswith("error: ")
    assert Path(name).name in err
    assert DAMAGE[kind] in complaint
    assert hint.startswith("hint: ")
    assert here() == before
    assert not Path("exploded").exists()


def test_the_bomb_of_the_test_above_would_explode(run: Run) -> None:
    pickle.loads(pickle.dumps(Bomb()))
    assert Path("exploded").exists()


def test_an_exported_file_makes_the_same_piece_without_its_run(runs: Path, run: Run) -> None:
    assert run(*FIVE_S, "--out", "a.mid")[0] == 0
    assert run("ckpt", "export", "best", "voice.safetensors")[0] == 0
    shutil.rmtree("runs")
    code, _, err = run(*FIVE_S, "--out", "b.mid", "--checkpoint", "voice.safetensors")
    assert code == 0
    assert "composing with voice.safetensors, seed 1" in err
    assert json.loads(read_text(Path("b.mid")))["checkpoint"] == "voice.safetensors"
    a, b = read_piece(Path("a.mid")), read_piece(Path("b.mid"))
    assert a.onset_ms.tolist() == b.onset_ms.tolist()
    assert a.pitch.tolist() == b.pitch.tolist()


@pytest.mark.parametrize(
    "name", ["best", "tiny/best", "best_epoch_000_loss_17.4740", "runs/tiny/checkpoints/best_epoch_000_loss_17.4740"]
)
def test_a_checkpoint_goes_by_every_name_it_has(
    name: str, runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes_of(monkeypatch)
    code, _, err = run(*FIVE_S, "--checkpoint", name)
    assert code == 0
    assert "composing with tiny/best_epoch_000_loss_17.4740" in err


def test_running_out_of_memory_is_said_in_words(runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(*_: Any) -> list[Drawn]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(voice, "generate", hungry)
    code, _, err = run(*FIVE_S)
    assert code == 1
    assert "error: out of memory on cpu\n" in err
    assert here() == []


def test_a_device_that_is_not_there_is_said_in_words(runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, _, err = run(*FIVE_S, "--device", "cuda")
    assert code == 1
    assert "no device 'cuda'" in err
    assert here() == []


def test_a_piece_goes_on_from_a_prime(runs: Path, run: Run) -> None:
    Path("prime.mid").write_bytes(tune(notes=9))
    prime = encode(read_piece(Path("prime.mid")))
    assert run("generate", "-e", "sad", "-s", "12", "--seed", "3", "--prime", "prime.mid", "-o", "x.mid")[0] == 0
    piece = read_piece(Path("x.mid"))
    assert piece.end_ms == 12_000
    assert (piece.pitch[: len(prime)] - 21).tolist() == prime[:, 1].tolist()
    assert len(piece) > len(prime)
    assert json.loads(read_text(Path("x.mid")))["prime"] == "prime.mid"


def test_a_prime_that_leaves_no_room_is_refused(runs: Path, run: Run) -> None:
    Path("prime.mid").write_bytes(midi_bytes(Piece.of([0, 4000], [60, 62], [64, 64], [500, 500])))
    code, _, err = run(*FIVE_S, "--prime", "prime.mid")
    assert code == 2
    assert err.startswith(
        "error: the prime (prime.mid) lasts 4.5 s of the 5 s asked for\nhint: ask for more seconds, or "
    )
    assert run(*FIVE_S, "--seconds", "6", "--prime", "prime.mid")[0] == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"words", "prime.mid: not a MIDI file"),
        (b"", "prime.mid: empty file"),
        (midi_bytes(Piece.of([], [], [], [])), "prime.mid: no notes"),
        (None, "there is no file prime.mid"),
    ],
)
def test_a_prime_that_cannot_be_read_is_named_with_the_reason(
    content: bytes | None, reason: str, runs: Path, run: Run
) -> None:
    if content is not None:
        Path("prime.mid").write_bytes(content)
    before = here()
    code, _, err = run(*FIVE_S, "--prime", "prime.mid")
    assert code == 1
    assert err.startswith(f"error: {reason}")
    assert here() == before


# ---- the bundled voice


def test_without_a_run_the_bundled_voice_composes_and_says_so(run: Run) -> None:
    code, _, err = run("generate", "-e", "sad", "-s", "5", "--seed", "1", "--out", "x.mid")
    assert (code, "composing with the bundled voice, seed 1" in err) == (0, True), err
    assert json.loads(read_text(Path("x.mid")))["checkpoint"] == "the bundled voice"


def test_a_best_run_is_preferred_and_default_means_the_voice_even_then(runs: Path, run: Run) -> None:
    assert "composing with tiny/best" in run(*FIVE_S)[2]
    assert "composing with the bundled voice" in run(*FIVE_S, "--checkpoint", "default", "--force")[2]


def test_a_run_without_a_best_checkpoint_leaves_it_to_the_voice(runs: Path, run: Run) -> None:
    for path in shelf.found(runs / "tiny" / "checkpoints", "best"):
        path.rename(path.with_name("last_epoch_000_step_00000001"))
    assert "composing with the bundled voice" in run(*FIVE_S)[2]


def test_sound_and_picture_are_written_beside_the_piece(runs: Path, run: Run) -> None:
    code, out, err = run(*FIVE_S, "--count", "2", "--wav", "--png", "--json")
    assert code == 0
    names = [f"happy_5s_seed{seed}" for seed in (1, 2)]
    assert here() == sorted(f"{name}.{kind}" for name in names for kind in ("mid", "png", "wav"))
    assert [row["rendered"] for row in json.loads(out)] == [[f"{name}.wav", f"{name}.png"] for name in names]
    assert err.count("wrote ") == 4


def test_a_sound_that_fails_costs_no_piece(runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from emogen.sound import render

    def fail(*_: Any, **how: bool) -> None:
        assert len([name for name in here() if name.endswith(".mid")]) == 2  # all pieces are written by now
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(render, "audio", fail)
    code, _, err = run(*FIVE_S, "--count", "2", "--wav", "--png")
    assert code == 1
    assert here() == sorted(f"happy_5s_seed{seed}.{kind}" for seed in (1, 2) for kind in ("mid", "png"))
    assert "error: happy_5s_seed1.wav was not written: No space left on device" in err


@pytest.mark.parametrize("more", [["--png"], ["--wav", "--soundfont", "nowhere.sf2"]], ids=["there", "no soundfont"])
def test_nothing_is_composed_whose_sound_or_picture_could_not_be_written(
    more: list[str], runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = wishes_of(monkeypatch)
    Path("happy_5s_seed1.png").write_bytes(b"before")
    assert run(*FIVE_S, *more)[0] == 1
    assert (asked, here()) == ([], ["happy_5s_seed1.png"])


def test_a_single_piece_is_shown_on_a_terminal_only(runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "▀" not in run(*FIVE_S)[2]
    monkeypatch.setattr(console, "_force_terminal", True)
    for more, shown in (([], True), (["--json"], False), (["--count", "2"], False)):
        err = run(*FIVE_S, "--force", *more)[2]
        assert ("▀" in err or "▄" in err) == shown


def test_the_best_of_some_takes_is_the_piece_of_its_own_seed(run: Run, runs: Path) -> None:
    assert runs
    code, out, err = run(*FIVE_S, "--best-of", "3", "--count", "2", "--json")
    assert not code, err
    rows = json.loads(out)
    assert [row["file"] for row in rows] == [f"happy_5s_seed{seed}_best3.mid" for seed in (1, 2)]
    from emogen.evaluation.choosing import takes

    for row, seed in zip(rows, (1, 2), strict=True):
        assert row["seed"] in {take.seed for take in takes(Wish({"happy": 1.0}, 5.0, seed, {}), 3)}
        code, _, err = run(*FIVE_S[:-1], str(row["seed"]), "--out", "again.mid", "--force")
        assert not code, err
        assert Path("again.mid").read_bytes() == Path(row["file"]).read_bytes()
    assert not list(Path().glob("*_seed?.mid"))


@pytest.mark.parametrize("number", ["0", "17"])
def test_takes_are_few(number: str, run: Run) -> None:
    code, _, err = run(*FIVE_S, "--best-of", number)
    assert code == 2
    assert "--best-of" in err
    assert not list(Path().glob("*.mid"))
