from __future__ import annotations

import base64
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from emogen.music.midi import midi_bytes, read_piece, read_text
from emogen.music.notes import Piece
from emogen.sound import page
from emogen.sound.picture import EMOTION_COLOURS
from emogen.sound.render import Sound, small_mp3
from tests.music import random_piece

HOSTILE = """</script><b>"it's" & {{sound}}</b>"""
"""What would break out of a script, a tag, an attribute or a template."""


class Document(HTMLParser):
    """What a browser finds in a page: the text and attributes of its elements."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = [("", {})]
        self.texts: dict[str, str] = {}
        self.feed(file.read_text(encoding="utf-8"))
        self.texts = {name: text.strip() for name, text in self.texts.items()}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.elements[-1]
        name = attributes.get("id", tag)
        self.texts[name] = self.texts.get(name, "") + data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def piece() -> Piece:
    return random_piece(1, 50)


def written(
    folder: Path, piece: Piece, title: str = "a", sound: bytes = b"sound", facts: dict[str, str] | None = None
) -> Document:
    page.write_page(folder / "a.html", piece, title, facts or {}, sound)
    return Document(folder / "a.html")


def test_the_midi_file_inside_holds_the_piece_and_is_named_after_the_page(tmp_path: Path, piece: Piece) -> None:
    link, sound = [one for one in written(tmp_path, piece).all("a") if "download" in one]
    assert (link["download"], sound["download"]) == ("a.mid", "a.mp3")
    kind, _, data = link["href"].partition(";base64,")
    assert kind == "data:audio/midi"
    inside = read_piece(base64.b64decode(data))
    for column in ("onset_ms", "pitch", "velocity", "duration_ms"):
        np.testing.assert_array_equal(getattr(inside, column), getattr(piece, column))


def test_a_midi_file_that_is_given_is_the_one_inside(tmp_path: Path, piece: Piece) -> None:
    page.write_page(tmp_path / "a.html", piece, "a", {}, b"", midi_bytes(piece, "made by hand"))
    link, _ = [one for one in Document(tmp_path / "a.html").all("a") if "download" in one]
    assert read_text(base64.b64decode(link["href"].partition(",")[2])) == "made by hand"


def test_the_notes_and_the_sound_are_inside(tmp_path: Path, piece: Piece) -> None:
    document = written(tmp_path, piece, sound=bytes(range(256)))
    columns = np.array(json.loads(document.texts["notes"])).T
    np.testing.assert_array_equal(columns, [piece.onset_ms, piece.pitch, piece.velocity, piece.duration_ms])
    assert base64.b64decode(document.texts["recording"]) == bytes(range(256))


def test_titles_facts_and_names_cannot_break_the_page(tmp_path: Path, piece: Piece) -> None:
    file = tmp_path / 'x "&<y>.html'
    page.write_page(file, piece, HOSTILE, {HOSTILE: HOSTILE}, b"")
    document = Document(file)
    assert not document.all("b")
    assert document.texts["title"] == document.texts["h1"] == HOSTILE
    assert document.texts["dt"] == document.texts["dd"] == HOSTILE
    assert [one["download"] for one in document.all("a") if "download" in one] == ['x "&<y>.mid', 'x "&<y>.mp3']
    assert len(document.all("script")) == len(written(tmp_path, piece).all("script"))


@pytest.mark.parametrize("template", ["piece.html", "index.html", "listening.html"])
def test_no_page_refers_to_the_network_and_each_forbids_it(template: str) -> None:
    text = (page.TEMPLATES / template).read_text(encoding="utf-8")
    assert not re.findall(r"https?:|wss?:|src=\"//|href=\"//|@import|url\(", text + page.fill("style.css"))
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy"\s+content="([^"]+)"', text)
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "*" not in policy


def test_a_minute_of_anything_stays_below_a_megabyte(tmp_path: Path) -> None:
    seconds = 4  # noise is what compresses worst; a minute of it would take long here
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, (44100 * seconds, 2)).astype(np.float32)
    sound = small_mp3(Sound(noise))
    dense = Piece.of(np.arange(1200) * 50, 30 + np.arange(1200) % 60, np.full(1200, 64), np.full(1200, 700))
    page.write_page(tmp_path / "a.html", dense, "a", {}, sound * (60 // seconds))
    assert dense.end_ms >= 60_000
    assert 700_000 < (tmp_path / "a.html").stat().st_size < 1_000_000


def test_the_picture_is_told_in_words(tmp_path: Path) -> None:
    piece = Piece.of([0, 500], [48, 70], [60, 60], [500, 1500])
    canvas, _ = written(tmp_path, piece).all("canvas")
    assert canvas["aria-label"] == "Piano roll: 2 notes from C3 to Bb4 in 2.0 seconds"
    canvas, _ = written(tmp_path, Piece.of([], [], [], [])).all("canvas")
    assert canvas["aria-label"] == "Piano roll without notes"


def entry(name: str, piece: Piece, valence: float = 0.5, arousal: float = 0.5) -> page.Entry:
    facts = f"key of {HOSTILE}"
    return page.Entry(f"{name} #1 100%.html", piece, name, f"{name} {HOSTILE}", facts, valence, arousal, ["a #1.mid"])


def test_the_index_puts_pieces_where_they_are_heard_in_the_colours_of_their_emotions(
    tmp_path: Path, piece: Piece
) -> None:
    corners = {"happy": (1, 1), "angry": (0, 1), "sad": (0, 0), "calm": (1, 0)}
    page.write_index(tmp_path / "index.html", [entry(name, piece, *corner) for name, corner in corners.items()])
    document = Document(tmp_path / "index.html")
    takes = [one for one in document.all("button") if one.get("class") == "take"]
    assert [(one["data-x"], one["data-y"]) for one in takes] == [
        (f"{100.0 * x}", f"{100.0 - 100 * y}") for x, y in corners.values()
    ]
    for name, one in zip(corners, takes, strict=True):
        assert one["style"].endswith(page.css(EMOTION_COLOURS[name]))
    links = [one["href"] for one in document.all("a") if one.get("class") == "page"]
    assert links == [f"{name}%20%231%20100%25.html" for name in corners]
    assert not document.all("b") or {one.get("aria-hidden") for one in document.all("b")} == {"true"}


def test_an_even_chance_stands_in_the_middle_and_certainty_at_the_edge() -> None:
    assert [page.place(chance) for chance in (0.0, 0.5, 1.0)] == [0, 50, 100]
    assert 60 < page.place(0.8) < page.place(0.95) < 100


def test_a_thumbnail_shows_what_sounds_when_and_how_high() -> None:
    drawn = page.thumbnail(Piece.of([0, 500, 1000], [108, 108, 21], [60] * 3, [500, 250, 1000]))
    assert drawn == "M0 0.5h45M60 43.5h60"


def test_a_page_that_cannot_be_finished_leaves_the_one_before(
    tmp_path: Path, piece: Piece, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written(tmp_path, piece, "before").texts["title"]

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        written(tmp_path, piece, "after")
    assert Document(tmp_path / "a.html").texts["title"] == before == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["a.html"]


def test_every_place_of_a_template_is_filled_and_html_only_once(tmp_path: Path, piece: Piece) -> None:
    document = written(tmp_path, piece, "{{facts}} &amp;")
    assert document.texts["title"] == "{{facts}} &amp;"
    assert "{{" not in (tmp_path / "a.html").read_text(encoding="utf-8").replace(html.escape("{{facts}} &amp;"), "")
