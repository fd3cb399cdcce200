"""Which piano plays: what is installed is made up, but for the last test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from emogen.music.notes import Piece
from emogen.sound import pianos, render
from emogen.sound.pianos import installed
from emogen.sound.soundfont import SAMPLE_RATE, SoundFont
from tests.soundfonts import soundfont

NOTES = Piece.of([0, 500], [60, 60], [30, 100], [400, 400])


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    render.engine_for.cache_clear()
    yield
    render.engine_for.cache_clear()


@pytest.fixture
def share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the programs of a computer share; a person's own data are in ``own``."""
    monkeypatch.setenv("XDG_DATA_DIRS", os.pathsep.join([str(tmp_path / "nowhere"), str(tmp_path / "share")]))
    monkeypatch.setattr(pianos, "user_data_path", lambda *name, **_: Path(tmp_path, "own", *name))
    return tmp_path / "share"


def put(folder: Path, name: str, more: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = soundfont(folder / name)
    file.write_bytes(file.read_bytes() + bytes(more))
    return file.resolve()


def test_known_pianos_are_found_where_systems_have_them_the_best_first(share: Path) -> None:
    fluid = put(share / "sounds" / "sf2", "FluidR3_GM.sf2")
    small = put(share / "sounds" / "sf3", "MuseScore_General_Lite.sf3")
    large = put(share / "sounds" / "sf3", "MuseScore_General.SF3", more=2)
    best = put(share / "soundfonts", "SalamanderGrandPiano.sf2")
    assert installed() == [best, large, small, fluid]


def test_what_is_unknown_is_played_from_a_persons_own_folder_alone(share: Path) -> None:
    put(share / "soundfonts", "drums.sf2")
    put(share / "sounds" / "sf2", "TimGM6mb.sf2")
    known = put(share / "sounds" / "sf2", "FluidR3_GM.sf2")
    (share / "sounds" / "sf2" / "FluidR3.txt").write_text("no SoundFont")
    assert installed() == [known]
    own = put(pianos.own_folder(), "upright.sf2")
    assert installed() == [own, known]


def test_links_to_one_file_are_one_piano(share: Path) -> None:
    file = put(share / "sounds" / "sf3", "MuseScore_General_Lite.sf3")
    for name in ("default-GM.sf3", "MuseScore_General.sf3", "MuseScore_gone.sf3"):
        (file.parent / name).symlink_to(file if "gone" not in name else file.with_name("gone.sf3"))
    assert installed() == [file]


def test_homebrews_folder_is_looked_into(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = put(share.parent / "brew" / "share" / "soundfonts", "GeneralUser GS 1.471.sf2")
    monkeypatch.setenv("HOMEBREW_PREFIX", str(share.parent / "brew"))
    assert installed() == [file]


def test_the_best_installed_piano_plays_and_the_bundled_one_only_without_it(share: Path) -> None:
    assert render.audio(NOTES).engine == "TimGM6mb"
    assert str(pianos.own_folder()) not in render.engine_for(None).warning
    assert "musescore-general-soundfont-small" in render.engine_for(None).advice
    file = put(share / "soundfonts", "FluidR3_GM.sf2")
    render.engine_for.cache_clear()
    engine = render.engine_for(None)
    assert (engine.name, engine.font, engine.warning, engine.advice) == ("FluidR3_GM", file, "", "")


def test_an_installed_piano_that_is_damaged_is_passed_over_with_a_warning(share: Path) -> None:
    file = put(share / "soundfonts", "MuseScore_General.sf3")
    file.write_bytes(b"RIFF")
    good = put(share / "soundfonts", "FluidR3_GM.sf2")
    engine = render.engine_for(None)
    assert engine.font == good
    assert engine.warning == f"{file} cannot be played: a damaged SoundFont"


def test_a_folder_that_cannot_be_read_holds_none(share: Path) -> None:
    share.mkdir()
    (share / "soundfonts").write_text("no folder")
    assert installed() == []


@pytest.mark.slow
def test_an_installed_piano_is_stereo_and_grows_brighter_with_velocity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_DIRS")
    found = [font for font in installed() if font.name.startswith("MuseScore_General")]
    if not found:
        pytest.skip("MuseScore's SoundFont is not installed (apt install musescore-general-soundfont-small)")
    font = SoundFont(found[0])
    heard = [font.play(Piece.of([0], [40], [velocity], [1000])) for velocity in (30, 60, 120)]
    levels, centroids = [], []
    for sound in heard:
        left, right = sound[:SAMPLE_RATE].T
        assert np.corrcoef(left, right)[0, 1] < 0.95
        energy = np.abs(np.fft.rfft(left)) ** 2
        levels.append(float(np.sqrt((left**2).mean())))
        centroids.append(float((energy * np.arange(len(energy))).sum() / energy.sum()))
    assert levels[0] * 2 < levels[1] < levels[2] / 2
    assert centroids == sorted(centroids)
    assert centroids[2] > 1.5 * centroids[0]
