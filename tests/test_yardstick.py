from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import emogen
from emogen.data.sources import EMOPIA_NAME
from emogen.ear.craft import disturbed
from emogen.ear.fitted import Ear
from emogen.evaluation import report as reports
from emogen.evaluation.apart import told_apart
from emogen.evaluation.rows import ROWS, facts_of, features
from emogen.evaluation.systems import CHANCE, TEST, System, baselines, clips, of_pieces
from emogen.evaluation.yardstick import bootstrapped, compare
from emogen.music.midi import read_piece, write_piece
from emogen.music.notes import Piece
from emogen.music.tokens import encode, on_grid
from tests.midi_files import EMOPIA, needs_emopia
from tests.music import corpus_of, random_piece

CORPUS = corpus_of([encode(random_piece(seed, 30)) for seed in range(24)], np.arange(24) % 6, np.arange(24) // 8)
SECONDS = 10.0
LABELS = ("happy", "angry", "sad", "calm") * 2


def system(name: str, first_seed: int, stretch: float = 1.0) -> System:
    labels = LABELS
    pieces = [random_piece(first_seed + seed, 25).stretch(stretch) for seed in range(len(labels))]
    return of_pieces(name, list(zip(labels, pieces, strict=True)), SECONDS)


@pytest.fixture(autouse=True, scope="module")
def one_turn() -> Iterator[None]:
    """Telling apart takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emogen.evaluation.apart.TURNS", 1)
        yield


@pytest.fixture(scope="module")
def systems() -> list[System]:
    one, slow = system("one", 100), system("slow & late", 200, 3.0)
    twice = replace(one, name="twice")
    real = clips(TEST, CORPUS, "test", SECONDS)
    return [one, twice, slow, baselines(real, CORPUS, SECONDS)[0]]


@pytest.fixture(scope="module")
def report(systems: list[System]) -> dict[str, Any]:
    return compare(systems, CORPUS, Ear.load(), SECONDS)


def difference(report: dict[str, Any], one: str, other: str) -> dict[str, Any]:
    return next(each for each in report["differences"] if (each["one"], each["other"]) == (one, other))


# ---- means and intervals


def test_each_quadrant_counts_the_same_and_what_is_unsaid_does_not_count() -> None:
    values = np.array([[1.0, 1.0], [1.0, np.nan], [1.0, 1.0], [5.0, 3.0]])
    weight = np.array([1 / 3, 1 / 3, 1 / 3, 1.0])
    mean, drawn = bootstrapped(values, weight, ["a", "b", "c", "d"], seed=0)
    assert mean == pytest.approx([3.0, (2 / 3 + 3) / (2 / 3 + 1)])
    assert drawn.shape == (2000, 2)
    assert np.nanmin(drawn[:, 0]) == 1
    assert np.nanmax(drawn[:, 0]) == 5


def test_pieces_of_one_song_are_drawn_together() -> None:
    values = np.random.default_rng(0).normal(size=(20, 1)).repeat(10, axis=0)
    each, few = (
        bootstrapped(values, np.ones(200), list(map(str, songs)), 0)[1].std()
        for songs in (range(200), np.repeat(np.arange(20), 10))
    )
    assert few > 2 * each


def test_the_report_is_plain_json_and_the_same_each_time(report: dict[str, Any], systems: list[System]) -> None:
    assert json.loads(json.dumps(report)) == report
    again = compare(systems[:1], CORPUS, Ear.load(), SECONDS)
    for part in ("rows", "told_apart", "values", "variety"):
        assert again["systems"]["one"][part] == report["systems"]["one"][part]
    assert report["systems"]["one"]["rows"].keys() == {row.name for row in ROWS}
    assert report["data"]["fingerprint"] == CORPUS.manifest.fingerprint


def test_a_system_measured_twice_differs_by_exactly_nothing(report: dict[str, Any]) -> None:
    found = difference(report, "one", "twice")
    assert found["paired"]
    for row in found["rows"].values():
        assert row is None or set(row.values()) == {0.0}


def test_what_is_slower_is_seen_to_be_slower_and_intervals_hold_the_mean(report: dict[str, Any]) -> None:
    found = difference(report, "one", "slow & late")
    assert not found["paired"]
    assert found["rows"]["notes_per_s"]["low"] > 1
    for row in found["rows"].values():
        assert row is None or row["low"] <= row["mean"] <= row["high"]
    rows = [report["systems"][name]["rows"]["notes_per_s"]["mean"] for name in ("one", "slow & late")]
    assert found["rows"]["notes_per_s"]["mean"] == pytest.approx(rows[0] - rows[1])


def test_shuffled_labels_change_obedience_alone(report: dict[str, Any]) -> None:
    found = difference(report, TEST, CHANCE)
    assert found["paired"]
    real, chance = (report["systems"][name] for name in (TEST, CHANCE))
    assert real["values"]["quadrant"] != chance["values"]["quadrant"]
    assert chance["told_apart"]["share"] == 0.5
    assert real["values"]["pulse"] == chance["values"]["pulse"]


def test_every_row_of_craft_says_what_a_disturbance_does(report: dict[str, Any]) -> None:
    expected = {"pulse": "times", "returns": "bars", "chords_per_bar": "detuned", "steps": "shuffled"}
    expected |= {"quadrant": "labels", "coherence": "shuffled", "told_apart": "shuffled"}
    assert {row: report["disturbed"][row]["by"] for row in expected} == expected
    chance = report["systems"][CHANCE]["rows"]["arousal"]["mean"]
    assert report["disturbed"]["arousal"]["mean"] == pytest.approx(chance, abs=0.2)
    assert "velocity" not in report["disturbed"]


def test_pieces_without_notes_and_a_corpus_without_validation_clips_are_no_reason_to_fail() -> None:
    corpus = replace(CORPUS, split=np.where(CORPUS.split == 1, 0, CORPUS.split))
    pieces = [("happy", Piece.of([], [], [], [])), ("sad", random_piece(0, 12)), ("calm", random_piece(1, 12))]
    found = compare([of_pieces("one", pieces, SECONDS)], corpus, Ear.load(), SECONDS)
    assert found["systems"]["one"]["values"]["pulse"][0] is None
    assert found["systems"][TEST]["told_apart"] is None
    assert found["systems"]["one"]["told_apart"]


# ---- told apart


def test_one_distribution_is_told_apart_by_chance_and_two_at_sight() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 150, 40))
    songs = [str(at // 3) for at in range(150)]
    others = [f"other {song}" for song in songs]
    same = told_apart(one, other, songs, others)
    assert same["share"] == pytest.approx(0.5, abs=0.06)
    assert same["low"] < 0.5 < same["high"]
    assert told_apart(one, other + 1.5, songs, others)["share"] > 0.95
    assert told_apart(one, one, songs, songs) == {"share": 0.5, "low": 0.5, "high": 0.5}


def test_songs_known_to_the_classifier_do_not_give_a_piece_away() -> None:
    """Pieces of a song are nearly alike: heard in training, they would be recognised."""
    rng = np.random.default_rng(1)
    points = rng.normal(size=(40, 60)).repeat(5, axis=0) + 0.01 * rng.normal(size=(200, 60))
    songs = [str(at // 5) for at in range(200)]
    assert told_apart(points[:100], points[100:], songs[:100], songs[100:])["share"] < 0.62
    each = [str(at) for at in range(200)]
    assert told_apart(points[:100], points[100:], each[:100], each[100:])["share"] > 0.8


# ---- reports


class Opened(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.asked: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        self.asked += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_asks_for_nothing_and_holds_all_numbers(
    tmp_path: Path, report: dict[str, Any], systems: list[System], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emogen.evaluation.report.audio", lambda piece, soundfont: piece)
    monkeypatch.setattr("emogen.evaluation.report.small_mp3", lambda piece: b"mp3")
    reports.write(tmp_path / "r.html", report, systems[:1])
    text = (tmp_path / "r.html").read_text()
    parser = Opened()
    parser.feed(text)
    assert not parser.open
    assert all(one.startswith("data:") for one in parser.asked)
    inside = re.search(r'<script type="application/json" id="report">(.*?)</script>', text, re.DOTALL)
    assert inside
    assert json.loads(inside[1]) == report
    assert text.count("<audio") == 4
    assert text.count("<svg") == len(reports.PICTURES)
    assert "slow &amp; late" in text


def test_the_table_for_a_paper_has_a_line_per_row(tmp_path: Path, report: dict[str, Any]) -> None:
    reports.write(tmp_path / "r.tex", report, [])
    lines = (tmp_path / "r.tex").read_text().splitlines()
    cells = [line for line in lines if line.endswith("\\\\")]
    assert len(cells) == 1 + len(ROWS) + 1
    assert {line.replace("\\&", "").count("&") for line in cells} == {len(report["systems"])}
    assert "slow \\& late" in cells[0]
    reports.write(tmp_path / "r.json", report, [])
    assert json.loads((tmp_path / "r.json").read_text()) == report


# ---- from Python


def test_python_gives_the_same_as_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: dict[str, Any], nobody: None
) -> None:
    monkeypatch.setattr("emogen.evaluation.beside.reference", lambda home, name: CORPUS)
    for seed, label in enumerate(LABELS):
        (tmp_path / "one" / label).mkdir(parents=True, exist_ok=True)
        write_piece(random_piece(100 + seed, 25), tmp_path / "one" / label / f"{seed:02}.mid")
    found = emogen.evaluate({"one": tmp_path / "one"}, seconds=SECONDS)
    rows = found["systems"]["one"]["rows"]
    assert rows["pulse"]["mean"] == pytest.approx(report["systems"]["one"]["rows"]["pulse"]["mean"])
    with pytest.raises(emogen.EmogenError, match="no systems"):
        emogen.evaluate({})


# ---- real music


@needs_emopia
def test_real_clips_are_not_told_from_other_real_clips() -> None:
    files = sorted((EMOPIA / "midis").glob("Q*_0.mid"))[::4]
    names = [EMOPIA_NAME.fullmatch(file.name) for file in files]
    labelled = [(f"Q{name[1]}", on_grid(read_piece(file))) for name, file in zip(names, files, strict=True) if name]
    halves = [of_pieces("half", labelled[start::2], 30) for start in (0, 1)]
    shuffled = [disturbed(piece, "shuffled") for piece in halves[1].heard.pieces]
    facts = facts_of([*(half.heard.pieces for half in halves), shuffled], lambda share: None)
    one, other, broken = map(features, facts)
    first, second = ([f"{start} {at}" for at in range(len(halves[start]))] for start in (0, 1))
    assert told_apart(one, other, first, second)["low"] < 0.5
    assert told_apart(one, other, first, second)["share"] < 0.6
    assert told_apart(one, broken, first, second)["share"] > 0.75
