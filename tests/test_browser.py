"""The pages in a real browser without a network: the system's Chromium, or that of ``playwright install chromium``."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emogen.ear.fitted import Ear
from emogen.evaluation import listening, report, systems, yardstick
from emogen.evaluation.listening import Trial
from emogen.music.chart import ROW, Chart
from emogen.music.notes import Piece
from emogen.music.tokens import encode
from emogen.sound import page
from emogen.sound.render import Sound, small_mp3
from tests.music import corpus_of, random_piece
from tests.sounds import sine

pytest.importorskip("soundfile", reason="soundfile makes the sound of the pages")
pytestmark = pytest.mark.slow
playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")

PIECE = Piece.of([0, 3000, 4000, 9000], [60, 64, 67, 48], [40, 90, 90, 127], [2000, 1000, 1000, 1000])
"""C4, a silence, E4, G4, a long silence, C3; ten seconds."""
HANG_S = 300
"""Seconds after which the browser is taken to hang, however busy the machine is."""
SCREENS = {"phone": {"width": 360, "height": 640}, "desktop": {"width": 1280, "height": 800}}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as play:
        try:
            started = play.chromium.launch(executable_path=shutil.which("chromium"), timeout=HANG_S * 1000)
        except playwright.Error as error:
            pytest.skip(f"no Chromium can be started here ({str(error).splitlines()[0]})")
        yield started
        started.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """A page of the browser that has no network, asks for nothing but files, and has nothing to complain of."""
    with browser.new_context(viewport=SCREENS["phone"], offline=True) as context:
        context.set_default_timeout(HANG_S * 1000)
        tab = context.new_page()
        asked, complaints = [], []
        tab.on("request", lambda one: asked.append(one.url))
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        yield tab
        assert not [url for url in asked if not url.startswith(("file:", "blob:", "data:"))]
        assert not complaints


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One piece's page, twice, and their index."""
    folder = tmp_path_factory.mktemp("pages")
    sound = small_mp3(Sound(sine(10)))
    for name in ("one", "two #2"):
        page.write_page(folder / f"{name}.html", PIECE, name, {"Emotion": "sad"}, sound)
    entries = [
        page.Entry(f"{name}.html", PIECE, "sad", "Sad", "C major", 0.2, 0.2, ["one.mid"]) for name in ("one", "two #2")
    ]
    page.write_index(folder / "index.html", entries)
    return folder


def until(tab: Any, condition: str) -> None:
    """Wait for something in the page. (playwright's own wait needs eval, which the pages forbid.)"""
    give_up = time.monotonic() + HANG_S
    while not tab.evaluate(condition):
        assert time.monotonic() < give_up, f"still not: {condition}"
        time.sleep(0.02)


def is_playing(tab: Any) -> None:
    """Wait until sound has been heard for a moment, not only asked for."""
    before = tab.evaluate("audio.currentTime")
    until(tab, f"!audio.paused && audio.currentTime > {before} + 0.2")


def seek_to(tab: Any, seconds: float) -> None:
    tab.evaluate(f"seek({seconds})")
    until(tab, "!audio.seeking")
    assert tab.evaluate("audio.currentTime") == pytest.approx(seconds, abs=0.01)


def lit_keys(tab: Any) -> list[int]:
    """The keys whose pixels at the left of the picture have the colour of a sounding note."""
    found: list[int] = tab.evaluate("""() => {
        const row = (canvas.height / devicePixelRatio - CLOCK_PX) / (highest - lowest + 1), lit = [];
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        copy.fillStyle = colours.lit;
        copy.fillRect(0, 0, 1, 1);
        const colour = (x, y) => copy.getImageData(x, y, 1, 1).data.join();
        for (let pitch = lowest; pitch <= highest; pitch++) {
            const y = Math.round(((highest - pitch) * row + row * 0.3) * devicePixelRatio);
            if (colour(4 * devicePixelRatio, y) === colour(0, 0)) lit.push(pitch);
        }
        return lit;
    }""")
    return found


def test_the_report_of_an_evaluation_fits_a_telephone_and_its_players_are_seen(tab: Any, tmp_path: Path) -> None:
    pieces = [(label, random_piece(seed, 25)) for seed, label in enumerate(("happy", "angry", "sad", "calm"))]
    corpus = corpus_of([encode(random_piece(seed, 25)) for seed in range(12)], np.arange(12) % 6, 2)
    some = systems.of_pieces("mine & yours", pieces, 10)
    found = yardstick.compare([some], corpus, Ear.load(), 10)
    report.write(tmp_path / "r.html", found, [some])
    tab.goto((tmp_path / "r.html").as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    until(tab, "[...document.querySelectorAll('audio')].every((one) => one.readyState > 0)")
    heights = tab.evaluate("[...document.querySelectorAll('audio')].map((one) => one.clientHeight)")
    assert len(heights) == 4
    assert min(heights) > 20
    assert tab.evaluate("document.querySelectorAll('svg').length") == len(report.PICTURES)


GROUND = """(() => {
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    return copy.getImageData(canvas.width - 2, canvas.height - 2, 1, 1).data[0];
})()"""
"""The red of the picture's ground, 0..255."""


@pytest.mark.parametrize("screen", SCREENS)
def test_the_picture_is_drawn_at_once_and_nothing_overflows(screen: str, tab: Any, folder: Path) -> None:
    tab.set_viewport_size(SCREENS[screen])
    tab.goto((folder / "one.html").as_uri())
    pixels = "new Uint32Array(pen.getImageData(0, 0, canvas.width, canvas.height).data.buffer)"
    assert tab.evaluate(f"new Set({pixels}).size") > 6
    assert tab.evaluate("canvas.clientWidth") > 0.7 * tab.evaluate("innerWidth")
    for name in ("one.html", "index.html"):
        tab.goto((folder / name).as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_click_plays_and_another_pauses(tab: Any, folder: Path) -> None:
    tab.goto((folder / "one.html").as_uri())
    tab.get_by_role("button", name="Play").click()
    is_playing(tab)
    tab.get_by_role("button", name="Pause").click()
    tab.get_by_role("button", name="Play").wait_for()  # it is renamed once the sound has stopped
    assert tab.evaluate("audio.paused")
    assert tab.locator("#clock").inner_text() == f"0:{math.floor(tab.evaluate('audio.currentTime')):02} / 0:10"


def test_the_cursor_follows_the_sound(tab: Any, folder: Path) -> None:
    tab.goto((folder / "one.html").as_uri())
    tab.evaluate("window.still = canvas.toDataURL()")
    tab.keyboard.press("Space")
    is_playing(tab)
    until(tab, "canvas.toDataURL() !== still && place.value > 0.1")


def test_the_keyboard_seeks_and_plays(tab: Any, folder: Path) -> None:
    tab.goto((folder / "one.html").as_uri())
    for key, seconds in (("ArrowRight", 5), ("ArrowRight", 9.8), ("ArrowLeft", 4.8), ("Home", 0), ("ArrowLeft", 0)):
        tab.keyboard.press(key)
        until(tab, "!audio.seeking")
        assert tab.evaluate("audio.currentTime") == pytest.approx(seconds, abs=0.05)
        told = tab.get_by_label("Place in the piece").get_attribute("aria-valuetext")
        assert told == f"0:{math.floor(seconds):02} of 0:10"
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.id") == "place"
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.id") == "play"
    tab.keyboard.press("Space")
    is_playing(tab)


def test_a_click_in_the_picture_goes_there(tab: Any, folder: Path) -> None:
    tab.goto((folder / "one.html").as_uri())
    box = tab.locator("#roll").bounding_box()
    tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + 20)
    until(tab, "!audio.seeking")
    shown_s = min(10, (box["width"] - 44) / 45)
    there_s = shown_s * (box["width"] / 2 - 44) / (box["width"] - 44)
    assert tab.evaluate("audio.currentTime") == pytest.approx(there_s, abs=0.1)


def test_the_keys_that_sound_light_up(tab: Any, folder: Path) -> None:
    tab.goto((folder / "one.html").as_uri())
    names = {60: "C4", 64: "E4", 67: "G4", 48: "C3"}
    for seconds, keys in ((1, [60]), (2.5, []), (3.5, [64]), (4.5, [67]), (7, []), (9.5, [48])):
        seek_to(tab, seconds)
        assert lit_keys(tab) == keys
        assert tab.locator("#sounding").text_content() == " ".join(names[key] for key in keys)


def test_the_colours_follow_the_systems_light_and_dark(tab: Any, folder: Path) -> None:
    tab.goto((folder / "one.html").as_uri())
    assert tab.evaluate(GROUND) > 200
    tab.emulate_media(color_scheme="dark")
    until(tab, f"{GROUND} < 60")
    tab.emulate_media(color_scheme="light")
    until(tab, f"{GROUND} > 200")


def test_everything_to_operate_has_a_role_and_a_name(tab: Any, folder: Path) -> None:
    tab.goto((folder / "one.html").as_uri())
    assert tab.get_by_role("img", name="Piano roll: 4 notes from C3 to G4 in 10.0 seconds").count() == 1
    assert tab.get_by_role("slider", name="Place in the piece").count() == 1
    assert tab.get_by_role("heading", name="one", exact=True).count() == 1
    assert tab.get_by_role("link", name="Download the MIDI file").count() == 1


def test_the_midi_file_inside_is_saved_under_the_pages_name(tab: Any, folder: Path, tmp_path: Path) -> None:
    tab.goto((folder / "one.html").as_uri())
    with tab.expect_download() as caught:
        tab.get_by_role("link", name="Download the MIDI file").click()
    assert caught.value.suggested_filename == "one.mid"
    assert caught.value.path().read_bytes()[:4] == b"MThd"


def test_a_sound_that_cannot_be_played_is_said(tab: Any, tmp_path: Path) -> None:
    page.write_page(tmp_path / "x.html", PIECE, "x", {}, b"no sound at all")
    tab.goto((tmp_path / "x.html").as_uri())
    tab.get_by_role("alert").wait_for()
    assert "cannot play the sound" in tab.get_by_role("alert").inner_text()
    assert tab.get_by_role("button", name="Play").is_disabled()


PRESSED = "document.querySelectorAll('.play[aria-pressed=true]').length"


def test_the_index_plays_each_piece_from_the_plane_and_from_the_list(tab: Any, folder: Path) -> None:
    tab.goto((folder / "index.html").as_uri())
    for name in ("Play 1: Sad", "Play 2: Sad"):
        button = tab.get_by_role("button", name=name)
        button.click()
        until(tab, f"{PRESSED} === 1")
        assert button.get_attribute("aria-pressed") == "true"
        is_playing(tab.frames[1])
    tab.get_by_role("button", name="Play 2", exact=True).click()
    until(tab, f"{PRESSED} === 0")
    assert tab.frames[1].evaluate("audio.paused")


def test_play_all_goes_on_with_the_next_piece(tab: Any, folder: Path) -> None:
    tab.goto((folder / "index.html").as_uri())
    tab.get_by_role("button", name="Play all").click()
    until(tab, f"{PRESSED} === 1")
    is_playing(tab.frames[1])
    tab.frames[1].evaluate("seek(9.9)")
    until(tab, "document.querySelectorAll('.card')[1].classList.contains('plays')")
    is_playing(tab.frames[1])


def test_pictures_on_the_plane_do_not_cover_each_other_and_stars_outlive_a_reload(tab: Any, folder: Path) -> None:
    tab.goto((folder / "index.html").as_uri())
    one, two = (tab.locator(".take").nth(number).bounding_box() for number in (0, 1))
    assert abs(one["x"] - two["x"]) >= one["width"] or abs(one["y"] - two["y"]) >= one["height"]
    tab.get_by_role("button", name="Star 2").click()
    tab.reload()
    stars = [tab.get_by_role("button", name=f"Star {n}").get_attribute("aria-pressed") for n in (1, 2)]
    assert stars == ["false", "true"]
    tab.get_by_role("checkbox", name="starred only").check()
    assert [tab.locator(".card").nth(n).is_visible() for n in (0, 1)] == [False, True]


def test_a_listener_hears_answers_and_saves_and_a_reload_forgets_nothing(tab: Any, tmp_path: Path) -> None:
    sound = small_mp3(Sound(sine(1)))
    trials = [Trial(origin, "happy", f"seed {seed}", sound) for origin in ("A", "B") for seed in range(2)]
    listening.write_test(tmp_path / "test.html", tmp_path / "key.json", trials, seed=1)
    tab.goto((tmp_path / "test.html").as_uri())
    tab.get_by_role("button", name="Begin").click()
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for number in range(1, 5):
        assert tab.get_by_role("heading", name=f"Piece {number} of 4").is_visible()
        tab.get_by_role("radio", name="tense").check()
        for group, value in (("pleasant", "2"), ("energy", "5, very much"), ("good", "3")):
            tab.get_by_role("group", name=group).get_by_role("radio", name=value).check()
        tab.get_by_role("button", name="Next").click()
        assert "Listen to at least half of the piece first" in tab.get_by_role("alert").inner_text()
        until(tab, "audio.duration > 0")
        tab.evaluate("audio.currentTime = audio.duration")
        until(tab, "!audio.seeking && audio.currentTime === 0")
        tab.evaluate("audio.play()")
        until(tab, "heardS() >= audio.duration / 2")
        tab.get_by_role("button", name="Next").click()
        if number == 2:
            tab.reload()
    with tab.expect_download() as caught:
        tab.get_by_role("button", name="Save the answers").or_(tab.get_by_role("link", name="Save the answers")).click()
    saved = tmp_path / caught.value.suggested_filename
    caught.value.save_as(saved)
    told = json.loads(saved.read_text())
    hidden = json.loads((tmp_path / "key.json").read_text())["pieces"]
    assert {answer["piece"] for answer in told["answers"]} == hidden.keys()
    row = listening.score([saved], tmp_path / "key.json")[0]
    assert (row["origin"], row["answers"], row["emotion"]["mean"], row["musicality"]["mean"]) == ("A", 2, 0, 3)
    assert np.mean([answer["arousal"] for answer in told["answers"]]) == 5


def test_a_listener_uses_number_keys_and_goes_back(tab: Any, tmp_path: Path) -> None:
    trials = [Trial("A", "happy", f"seed {seed}", small_mp3(Sound(sine(1)))) for seed in range(2)]
    listening.write_test(tmp_path / "test.html", tmp_path / "key.json", trials, seed=1)
    tab.goto((tmp_path / "test.html").as_uri())
    tab.get_by_role("button", name="Begin").click()
    assert tab.get_by_role("button", name="Back").is_disabled()
    tab.keyboard.type("6253")
    chosen = "SCALES.concat('emotion').map((name) => form.elements[name].value)"
    assert tab.evaluate(chosen) == ["2", "5", "3", "calm"]
    tab.keyboard.press("Enter")
    assert "at least half" in tab.get_by_role("alert").inner_text()
    tab.keyboard.press("Space")
    until(tab, "heardS() >= audio.duration / 2")
    tab.keyboard.press("Enter")
    until(tab, "state.answers.length === 1")
    assert tab.evaluate("the('progress').value / the('progress').max") == 0.5
    tab.get_by_role("button", name="Back").click()
    assert tab.evaluate(chosen) == ["2", "5", "3", "calm"]
    tab.get_by_role("radio", name="sad").check()
    tab.get_by_role("button", name="Next").click()  # it was heard before
    assert tab.evaluate("state.answers.length === 1 && state.answers[0].emotion") == "sad"
    assert tab.get_by_role("heading", name="Piece 2 of 2").is_visible()


def test_bars_and_chords_stand_above_the_roll_where_there_is_a_chart(tab: Any, tmp_path: Path) -> None:
    chart = Chart.from_rows(
        np.array([(ms, at % 4, 9, 1, 0) for at, ms in enumerate(range(0, 10_001, 500))], dtype=ROW), 4, 1.0
    )
    page.write_page(tmp_path / "x.html", PIECE, "x", {}, small_mp3(Sound(sine(10))), chart=chart, below="seed 7")
    tab.goto((tmp_path / "x.html").as_uri())
    assert tab.evaluate("CHART_PX") > 0
    assert tab.evaluate("beats[5].join()") == "2500,1,Am,A"
    assert tab.get_by_text("seed 7").is_visible()
    inked = "new Set(new Uint32Array(pen.getImageData(50, 12, 200, 24).data.buffer)).size"
    assert tab.evaluate(inked) > 3
    assert not tab.get_by_text("plays and pauses").is_visible()  # a phone has no keys


def test_the_strip_shows_the_whole_piece_and_seeks(tab: Any, folder: Path) -> None:
    tab.goto((folder / "one.html").as_uri())
    box = tab.locator("#strip").bounding_box()
    tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    until(tab, "!audio.seeking && Math.abs(audio.currentTime - 5) < 0.3")
    assert "at most" in tab.locator("#densest").inner_text()


def test_the_sound_is_saved_under_the_pages_name(tab: Any, folder: Path) -> None:
    tab.goto((folder / "one.html").as_uri())
    with tab.expect_download() as caught:
        tab.get_by_role("link", name="Download the sound").click()
    assert caught.value.suggested_filename == "one.mp3"
