from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emogen.emotion import EMOTIONS
from emogen.errors import EmogenError
from emogen.evaluation import listening
from emogen.evaluation.listening import Trial
from emogen.music.midi import write_piece
from emogen.music.notes import Piece
from tests.music import random_piece

TRIALS = [
    Trial(origin, wanted, f"seed {seed}", f"{origin}{wanted}{seed}".encode())
    for origin in ("A", "B")
    for wanted in EMOTIONS
    for seed in (1, 2)
]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The page and the key of a test."""
    page, key = tmp_path / "test.html", tmp_path / "test.key.json"
    listening.write_test(page, key, TRIALS, seed=3)
    return page, key


def answered(key: Path, listener: str, say: Any, only: str = "") -> Path:
    """A file of answers: ``say`` tells from what the key hides what the listener says."""
    told = json.loads(key.read_text())
    answers = [
        {"piece": name, "emotion": "sad", "valence": 3, "arousal": 3, "musicality": 3, "heard_s": 9, **say(one)}
        for name, one in told["pieces"].items()
        if not only or one["origin"] == only
    ]
    file = key.with_name(f"answers_{listener}.json")
    file.write_text(json.dumps({"test": told["test"], "listener": listener, "answers": answers}))
    return file


def by_origin(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["origin"]: row for row in rows}


def test_the_page_names_no_origin_and_the_key_knows_every_piece(files: tuple[Path, Path]) -> None:
    page, key = (file.read_text() for file in files)
    pieces = json.loads(key)["pieces"]
    assert sorted((one["origin"], one["wanted"], one["source"]) for one in pieces.values()) == sorted(
        trial[:3] for trial in TRIALS
    )
    assert re.findall(r'data-piece="(\w+)">', page) == list(pieces)
    assert "seed" not in page
    assert "origin" not in page
    assert json.loads(key)["test"] in page


def test_the_order_in_the_page_is_mixed_and_the_names_follow_no_order(files: tuple[Path, Path]) -> None:
    pieces = json.loads(files[1].read_text())["pieces"]
    origins = "".join(one["origin"] for one in pieces.values())
    assert len(re.findall("AB|BA", origins)) >= 4
    assert sorted(pieces) != list(pieces)


def test_the_same_pieces_write_the_same_test_and_others_another(tmp_path: Path, files: tuple[Path, Path]) -> None:
    page, key = tmp_path / "x.html", tmp_path / "x.json"
    listening.write_test(page, key, TRIALS, seed=3)
    assert page.read_bytes() == files[0].read_bytes()
    test = json.loads(key.read_text())["test"]
    listening.write_test(page, key, [*TRIALS[:-1], TRIALS[-1]._replace(sound=b"other")], seed=3)
    assert json.loads(key.read_text())["test"] != test


def test_a_listener_who_hears_everything_as_meant_scores_full_marks(files: tuple[Path, Path]) -> None:
    lively, pleasant = ("happy", "excited", "angry", "tense"), ("happy", "excited", "calm")

    def say(one: dict[str, str]) -> dict[str, Any]:
        wanted = one["wanted"]
        return {
            "emotion": wanted,
            "valence": 5 if wanted in pleasant else 1,
            "arousal": 4 if wanted in lively else 2,
            "musicality": 5 if one["origin"] == "A" else 2,
        }

    rows = by_origin(listening.score([answered(files[1], "x", say)], files[1]))
    for origin, musicality in (("A", 5), ("B", 2)):
        row = rows[origin]
        assert (row["pieces"], row["answers"], row["listeners"]) == (12, 12, 1)
        means = [row[name]["mean"] for name in listening.MEASURES]
        assert means == [1, 1, 4, 2, musicality]
        assert all(row[name]["low"] == row[name]["high"] == row[name]["mean"] for name in listening.MEASURES)


def test_the_quadrant_counts_where_the_emotion_is_missed(files: tuple[Path, Path]) -> None:
    row = listening.score([answered(files[1], "x", lambda one: {"emotion": "happy"})], files[1])[0]
    assert row["emotion"]["mean"] == pytest.approx(1 / 6, abs=1e-4)
    assert row["quadrant"]["mean"] == pytest.approx(2 / 6, abs=1e-4)
    assert row["emotion"]["low"] < 1 / 6 < row["emotion"]["high"]


def test_listeners_who_disagree_widen_the_interval_more_than_pieces_do(files: tuple[Path, Path]) -> None:
    """Twenty-four answers of two listeners who each always say the same are two opinions, not twenty-four."""
    key = files[1]
    two = [answered(key, name, lambda _, n=n: {"musicality": n}) for name, n in (("p", 1), ("q", 5))]
    apart = listening.score(two, key)[0]["musicality"]
    assert (apart["low"], apart["mean"], apart["high"]) == (1, 3, 5)
    rng = np.random.default_rng(0)
    mixed = [answered(key, name, lambda _: {"musicality": int(rng.choice([1, 5]))}) for name in ("r", "s")]
    near = listening.score(mixed, key)[0]["musicality"]
    assert near["high"] - near["low"] < 0.75 * (apart["high"] - apart["low"])


def test_the_interval_covers_the_truth_about_as_often_as_it_says(files: tuple[Path, Path]) -> None:
    """Ratings of 8 listeners with a taste of their own, 40 times: the true mean 3 is inside in nearly all."""
    key, inside = files[1], 0
    for trial in range(40):
        rng = np.random.default_rng(trial)
        tastes = rng.normal(0, 0.6, 8)
        given = [
            answered(
                key, f"n{i}", lambda _, t=t, r=rng: {"musicality": int(np.clip(round(r.normal(3 + t, 1)), 1, 5))}, "A"
            )
            for i, t in enumerate(tastes)
        ]
        one = by_origin(listening.score(given, key))["A"]["musicality"]
        inside += one["low"] <= 3 <= one["high"]
    assert 34 <= inside <= 40


def test_what_no_piece_can_tell_is_left_open(tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    trials = [
        Trial("real music", "Q1", "x.mid", b"x"),
        Trial("nobody", "", "y.mid", b"y"),
        Trial("unheard", "", "", b""),
    ]
    listening.write_test(tmp_path / "test.html", key, trials, seed=0)
    given = answered(key, "x", lambda one: {"emotion": "excited"})
    told = json.loads(given.read_text())
    hidden = json.loads(key.read_text())["pieces"]
    told["answers"] = [answer for answer in told["answers"] if hidden[answer["piece"]]["origin"] != "unheard"]
    given.write_text(json.dumps(told))
    rows = by_origin(listening.score([given], key))
    assert rows["real music"]["emotion"] is None
    assert rows["real music"]["quadrant"]["mean"] == 1
    assert rows["real music"]["valence"] is None
    assert rows["nobody"]["quadrant"] is None
    assert rows["nobody"]["musicality"]["mean"] == 3
    assert rows["unheard"]["answers"] == 0
    assert rows["unheard"]["musicality"] is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: "{", "is not answers of a listening test"),
        (lambda told: "[]", "is not answers of a listening test"),
        (lambda told: json.dumps(told | {"test": "0"}), "answers another test than that of"),
        (lambda told: json.dumps(told | {"answers": [told["answers"][0] | {"piece": "?"}]}), "answers another test"),
        (lambda told: json.dumps(told | {"answers": [told["answers"][0] | {"valence": 6}]}), "answers.0.valence"),
        (lambda told: json.dumps(told | {"answers": [told["answers"][0] | {"emotion": "x"}]}), "answers.0.emotion"),
        (lambda told: json.dumps(told | {"answers": []}), "nobody has answered anything"),
    ],
)
def test_a_file_that_is_no_answer_is_refused(change: Any, said: str, files: tuple[Path, Path]) -> None:
    file = answered(files[1], "x", lambda one: {})
    file.write_text(change(json.loads(file.read_text())))
    with pytest.raises(EmogenError, match=re.escape(said)):
        listening.score([file], files[1])


def test_nobody_is_counted_twice_and_a_missing_file_is_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    file = answered(files[1], "x", lambda one: {})
    again = tmp_path / "z.json"
    again.write_bytes(file.read_bytes())
    with pytest.raises(EmogenError, match=r"answers_x\.json and .*z\.json come from the same listener"):
        listening.score([file, again], files[1])
    with pytest.raises(EmogenError, match=r"there is no file .*none\.json"):
        listening.score([tmp_path / "none.json"], files[1])


def music(folder: Path, name: str, seconds: float, seed: int) -> None:
    piece = random_piece(seed, 200, (100, 300)).crop(0, round(seconds * 1000))
    last = Piece.of(
        [*piece.onset_ms, 0], [*piece.pitch, 60], [*piece.velocity, 9], [*piece.duration_ms, seconds * 1000]
    )
    write_piece(last, folder / name)


def test_real_clips_are_of_each_emotion_long_enough_and_of_different_songs(tmp_path: Path) -> None:
    for number in range(24):
        quadrant, song = number % 4 + 1, number // 8
        music(tmp_path, f"Q{quadrant}_{quadrant}song{song:06}_{number}.mid", 12 if number % 8 < 4 else 30, number)
    names = []
    for seed in range(6):
        chosen = listening.real_pieces(tmp_path, 1, 10, seed)
        assert sorted(label for label, _, _ in chosen) == ["Q1", "Q1", "Q2", "Q2", "Q3", "Q4"]
        assert len({name[3:14] for _, name, _ in chosen}) == 6
        assert all(piece.end_ms == 10_000 for _, _, piece in chosen)
        names.append([name for _, name, _ in chosen])
    assert names[0] != names[1]
    assert names[0] == [name for _, name, _ in listening.real_pieces(tmp_path, 1, 10, seed=0)]
    with pytest.raises(EmogenError, match=r"too few \w+ clips of 20 s"):
        listening.real_pieces(tmp_path, 4, 20, seed=1)


def test_real_music_without_labels_is_taken_as_it_is(tmp_path: Path) -> None:
    for number in range(7):
        music(tmp_path, f"{number}.mid", 3 if number == 6 else 10, number)
    for number in range(9):
        (tmp_path / f"broken{number}.mid").write_bytes(b"MThd")
    chosen = listening.real_pieces(tmp_path, 1, 10, seed=1)
    assert [label for label, _, _ in chosen] == [""] * 6
    assert sorted(name for _, name, _ in chosen) == [f"{number}.mid" for number in range(6)]
