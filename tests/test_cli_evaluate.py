from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emogen.data.corpus import open_corpus
from emogen.data.prepare import prepare
from emogen.ear.fitted import BUNDLED, Ear
from emogen.model import checkpoint
from emogen.music.midi import write_piece
from emogen.music.tokens import decode, encode
from emogen.settings import DataSettings
from tests import tiny
from tests.conftest import Run
from tests.midi_files import dataset
from tests.music import random_piece


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared corpus of labelled clips, and one without labels."""
    folder = tmp_path_factory.mktemp("home")
    made = dataset(folder / "made", 24)
    prepare(made, folder / "data", DataSettings(workers=1), name="none", unlabelled=True)
    prepare(made, folder / "data", DataSettings(workers=1), name="made")
    return folder


@pytest.fixture
def evaluated(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``emogen evaluate`` of a tiny network, with few and short pieces."""
    monkeypatch.setenv("EMOGEN_HOME", str(home))
    monkeypatch.setattr("emogen.evaluation.evaluate.LENGTHS_S", (10.0,))
    monkeypatch.setattr("emogen.evaluation.apart.TURNS", 1)
    tiny.save(Path("runs"))
    return lambda *arguments: run("evaluate", "--count", "2", "--seconds", "10", *arguments)


def test_the_page_has_every_section(evaluated: Run) -> None:
    code, out, err = evaluated()
    assert code == 0, err
    for word in ("likelihood", "obedience", "Q1", "steering", "density", "10 s", "music", "breakage", "memory"):
        assert word in out, word
    for word in ("coherence", "variety", "second judge", "pulse", "returns", "triads", "steps", "told apart from real"):
        assert word in out, word
    assert max(map(len, out.splitlines())) <= 120
    assert "evaluating tiny/best_epoch_000_loss_17.4740 beside made, seed 0" in err
    assert "careful" in err  # the ear was fitted on EMOPIA, the network on nothing of this


def test_a_checkpoint_is_evaluated_on_the_corpus_it_was_trained_on(evaluated: Run, home: Path) -> None:
    """One prepared later does not take its place; this one has no labels, which shows that it was opened."""
    trained_on = open_corpus(home / "data", "none").manifest.fingerprint
    made = tiny.meta(tiny.composer())
    facts = made.dataset.model_copy(update={"fingerprint": trained_on})
    meta = made.model_copy(update={"dataset": facts})
    checkpoint.save(Path("runs/tiny/checkpoints/best_epoch_001_loss_1.0000"), meta, tiny.composer().state_dict())
    code, _, err = evaluated()
    assert (code, "none has no labelled test clips" in err) == (1, True)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_report_as_json_alone(evaluated: Run) -> None:
    first, second = evaluated("--json", "--seed", "3"), evaluated("--json", "--seed", "3")
    assert first[:2] == second[:2]
    report = json.loads(first[1])
    assert (report["checkpoint"], report["count"], report["seed"]) == ("tiny/best_epoch_000_loss_17.4740", 2, 3)
    assert report["obedience"]["generated"]["quadrant"]["count"] == 12
    assert report["sample"]["guidance"] == 1.5
    assert json.loads(evaluated("--json", "--seed", "4")[1])["steering"] != report["steering"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--count", "1"), 2, "--count takes 2 to 1000"),
        (("--seconds", "9"), 2, "--seconds takes 10 to 180"),
        (("--data", "none"), 1, "none has no labelled test clips"),
        (("--data", "moon"), 1, "no prepared corpus 'moon'"),
        (("--checkpoint", "moon/best"), 1, "no run 'moon'"),
    ],
)
def test_what_cannot_be_evaluated_is_told(arguments: tuple[str, ...], code: int, told: str, evaluated: Run) -> None:
    found, out, err = evaluated(*arguments)
    assert (found, out) == (code, "")
    assert told in err


# ---- folders


@pytest.fixture
def folders(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``emogen evaluate`` beside the prepared clips, and folders of pieces: one, other, bare without labels, flat."""
    monkeypatch.setenv("EMOGEN_HOME", str(home))
    monkeypatch.setattr("emogen.evaluation.apart.TURNS", 1)
    for seed, name in enumerate(
        ("one/Q1/a", "one/Q2/b", "one/sad/c", "other/Q1/a", "other/Q4/b", "bare/a", "flat/Q1/a")
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        write_piece(random_piece(seed, 20), Path(f"{name}.mid"))
    return lambda *arguments: run("evaluate", "--seconds", "10", *arguments)


def test_folders_are_measured_side_by_side_and_what_they_lack_is_told(folders: Run) -> None:
    Path("one/Q1/broken.mid").write_bytes(b"no music")
    code, out, err = folders("--pieces", "mine=one", "--pieces", "yours=other", "--out", "r.json", "--out", "r.tex")
    assert code == 0, err
    for words in (
        "mine: 3 pieces (1 of Q1, 1 of Q2, 1 of Q3) in one",
        "mine: 1 file left out",
        "Q1/broken.mid: not a MIDI",
        "warning: mine: fewer than 20 pieces",
        "no pieces of Q4",
        "wrote r.json",
    ):
        assert words in err, words
    for words in (
        "real test clips",
        "disturbed",
        "mine",
        "yours",
        "mine less yours",
        "told apart",
        "likelihood of real songs",
    ):
        assert words in out, words
    assert max(map(len, out.splitlines())) <= 120
    report = json.loads(Path("r.json").read_text())
    assert report["systems"]["mine"]["left_out"] == [["Q1/broken.mid", "not a MIDI file"]]
    assert "tabular" in Path("r.tex").read_text()
    again = folders("--pieces", "mine=one", "--json")
    assert json.loads(again[1])["systems"]["mine"] == report["systems"]["mine"]
    code, _, err = folders("--pieces", "mine=one", "--out", "r.json")
    assert (code, "r.json exists already" in err) == (1, True)


@pytest.mark.slow
def test_baselines_and_the_voice_come_along(folders: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from emogen.composing.voice import Voice

    small = Voice.open(str(tiny.save(Path("runs"))), Path("runs"))
    monkeypatch.setattr("emogen.composing.voice.Voice.open", lambda *where: small)
    code, out, err = folders("--pieces", "mine=one", "--baselines", "--count", "2", "--json")
    assert code == 0, err
    names = ["real test clips", "mine", "labels shuffled", "training clips", "notes without order", "bundled voice"]
    assert list(json.loads(out)["systems"]) == names


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--pieces", "one"), 2, "--pieces one is not NAME=FOLDER"),
        (("--pieces", "a,b=one"), 2, "'a,b' cannot be the name"),
        (("--pieces", "a=one", "--pieces", "a=other"), 2, "two systems are called 'a'"),
        (("--pieces", "a=one", "--checkpoint", "best"), 2, "exclude each other"),
        (("--out", "r.html"), 2, "need --pieces"),
        (("--pieces", "a=one", "--out", "r.doc"), 2, "no such report"),
        (("--pieces", "a=moon"), 1, "there is no folder moon"),
        (("--pieces", "a=bare"), 1, "has an emotion"),
        (("--pieces", "a=flat"), 1, "all 1 pieces in flat are of Q1"),
        (("--pieces", "a=one", "--data", "none"), 1, "none has no labelled test clips"),
    ],
)
def test_folders_that_cannot_be_measured_are_told(
    arguments: tuple[str, ...], code: int, told: str, folders: Run
) -> None:
    found, out, err = folders(*arguments)
    assert (found, out) == (code, "")
    assert told in err
    assert "hint: " in err
    assert "Traceback" not in err


# ---- judge


@pytest.fixture
def files(nobody: None) -> list[str]:
    for seed in range(2):
        write_piece(decode(encode(random_piece(seed, 30))), Path(f"{seed}.mid"))
    return ["0.mid", "1.mid"]


def test_the_judge_gives_its_opinion_of_any_files(run: Run, files: list[str]) -> None:
    code, out, err = run("judge", *files)
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines()] == ["file", *files]
    rows = json.loads(run("judge", *files, "--json")[1])
    ear = Ear.load()
    pieces = [decode(encode(random_piece(seed, 30))) for seed in range(2)]
    for row, chance in zip(rows, ear.judge.probabilities(pieces), strict=True):
        assert list(row["chance"].values()) == pytest.approx(chance, abs=0.02)
        assert row["quadrant"] == f"Q{chance.argmax() + 1}"
        assert row["arousal"] == pytest.approx(chance[:2].sum(), abs=0.02)


def test_a_file_that_cannot_be_judged_costs_the_others_nothing(run: Run, files: list[str]) -> None:
    Path("bad.mid").write_bytes(b"no music")
    alone = json.loads(run("judge", *files, "--json")[1])
    code, out, err = run("judge", files[0], "bad.mid", "missing.mid", *files[1:], "--json")
    assert code == 1
    assert json.loads(out) == alone
    assert "error: bad.mid: not a MIDI file" in err
    assert "error: there is no file missing.mid" in err
    code, out, _ = run("judge", "bad.mid", "--json")
    assert (code, json.loads(out)) == (1, [])


def test_the_judge_takes_folders_and_says_what_was_mended(run: Run, files: list[str]) -> None:
    Path("folder/more").mkdir(parents=True)
    whole = Path(files[0]).read_bytes()
    Path("folder/more/cut.kar").write_bytes(whole[:-1])
    Path("folder/a.mid").write_bytes(whole)
    Path("folder/notes.txt").write_text("no music")
    code, out, err = run("judge", "folder", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["file"] for row in rows] == ["folder/a.mid", "folder/more/cut.kar"]
    assert rows[0]["chance"] == rows[1]["chance"]
    assert err.splitlines() == ["warning: folder/more/cut.kar: cut off within 1 track"]
    Path("empty").mkdir()
    code, out, err = run("judge", "empty", "--json", files[0])
    assert code == 1
    assert "no MIDI files" in err
    assert len(json.loads(out)) == 1


def test_what_was_mended_is_told_where_a_file_is_shown_or_rendered(run: Run, files: list[str]) -> None:
    Path("cut.mid").write_bytes(Path(files[0]).read_bytes()[:-1])
    for words in (["show", "cut.mid"], ["render", "cut.mid", "--png"]):
        code, _, err = run(*words)
        assert code == 0
        assert "warning: cut.mid: cut off within 1 track" in err.splitlines()
        code, _, err = run(*words[:1], files[0], *words[2:])
        assert "warning" not in err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "name MIDI files or --fit"),
        (("0.mid", "--fit", "x"), 2, "name MIDI files or --fit"),
        (("none.mid",), 1, "none.mid"),
        (("broken.mid",), 1, "broken.mid"),
        (("0.mid", "--ear", "broken.mid"), 1, "the ear broken.mid cannot be used"),
        (("--fit", "0.mid"), 1, "0.mid exists already"),
    ],
)
def test_what_cannot_be_judged_is_told(
    arguments: tuple[str, ...], code: int, told: str, run: Run, files: list[str]
) -> None:
    Path("broken.mid").write_bytes(b"no music")
    found, out, err = run("judge", *arguments)
    assert (found, out) == (code, "")
    assert told in err
    assert "Traceback" not in err


def test_a_corpus_too_small_for_an_ear_is_refused(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOGEN_HOME", str(home))
    code, _, err = run("judge", "--fit", "mine.safetensors")
    assert (code, "training songs, an ear needs 10" in err) == (1, True)
    assert not Path("mine.safetensors").exists()


@pytest.mark.slow
def test_an_ear_is_fitted_kept_and_used(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    prepare(dataset(tmp_path / "large", 80), tmp_path / "home/data", DataSettings(workers=1))
    monkeypatch.setenv("EMOGEN_HOME", str(tmp_path / "home"))
    code, _, err = run("judge", "--fit", "mine.safetensors")
    assert code == 0, err
    assert "cross-validated by song: quadrant" in err
    assert "mine.safetensors: 0.0" in err
    own, bundled = Ear.load(Path("mine.safetensors")), Ear.load(BUNDLED)
    piece = [decode(encode(random_piece(0, 30)))]
    assert not np.allclose(own.judge.probabilities(piece), bundled.judge.probabilities(piece))
    again: Any = Ear.load(Path("mine.safetensors"))
    assert np.array_equal(own.coherence.score(piece), again.coherence.score(piece))
    assert own.scores == again.scores
    write_piece(piece[0], Path("x.mid"))
    row = json.loads(run("judge", "x.mid", "--ear", "mine.safetensors", "--json")[1])[0]
    assert list(row["chance"].values()) == pytest.approx(own.judge.probabilities(piece)[0], abs=0.02)
