from __future__ import annotations

import io
import shutil
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.loudness import unrounded
from benchmarks.soundfont import fluidsynth
from emogen.errors import EmogenError, UsageError
from emogen.music.notes import Piece
from emogen.sound import render
from emogen.sound.render import (
    KNEE,
    LONGEST_S,
    LOUDEST,
    PEAK,
    REFERENCE,
    Sound,
    audio,
    bundled_soundfont,
    limit,
    small_mp3,
    write_sound,
)
from emogen.sound.soundfont import SAMPLE_RATE, Floats, SoundFont
from tests.soundfonts import soundfont
from tests.sounds import sine

FLUIDSYNTH = shutil.which("fluidsynth")
"""The real one, where it is installed."""


SCALE = (60, 62, 64, 65, 67, 69, 71, 72)
STEP_MS = 500


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    """Each test looks for its engine anew, and those of other files too."""
    render.engine_for.cache_clear()
    yield
    render.engine_for.cache_clear()


def scale(velocity: int = 80) -> Piece:
    """C major up, a note each half second."""
    return Piece.of(np.arange(8) * STEP_MS, SCALE, [velocity] * 8, [STEP_MS - 50] * 8)


def read(path: Path) -> tuple[Floats, int]:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return samples, rate


def pitches(samples: Floats) -> list[int]:
    """The MIDI pitch heard in each step of a scale: the key whose first five partials hold the most."""
    found = []
    for number in range(len(SCALE)):
        part = samples[number * STEP_MS * SAMPLE_RATE // 1000 :][: STEP_MS * SAMPLE_RATE // 1000].mean(axis=1)
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 17))
        bin_hz = SAMPLE_RATE / (1 << 17)

        def fit(pitch: int, spectrum: Floats = spectrum, bin_hz: float = bin_hz) -> float:
            fundamental = 440 * 2 ** ((pitch - 69) / 12)
            return sum(float(spectrum[round(n * fundamental / bin_hz)]) / n for n in range(1, 6))

        found.append(max(range(48, 85), key=fit))
    return found


def test_a_scale_is_heard_as_that_scale(tmp_path: Path) -> None:
    sound = audio(scale())
    assert sound.engine == "TimGM6mb"
    assert render.engine_for(None).warning == ""
    write_sound(tmp_path / "scale.wav", sound)
    samples, rate = read(tmp_path / "scale.wav")
    assert rate == sound.sample_rate == 44_100
    assert pitches(samples) == list(SCALE)


@pytest.mark.parametrize("dry", [False, True])
def test_a_sound_is_exactly_as_long_as_its_piece_and_fades_at_the_end(dry: bool) -> None:
    piece = Piece.of([0, 2000], [60, 64], [80, 80], [1000, 3000])
    sound = audio(piece, dry=dry).samples
    rings = audio(piece, dry=dry, tail=True).samples
    assert len(sound) == 5 * SAMPLE_RATE
    assert len(rings) > len(sound) + 0.3 * SAMPLE_RATE
    fade = round(render.FADE_S[1] * SAMPLE_RATE)
    assert np.abs(sound[:-fade] - rings[: len(sound) - fade]).max() < 1e-5
    falling = np.cos(np.linspace(0, np.pi / 2, fade))[:, None] ** 2
    assert np.abs(sound[-fade:] - rings[len(sound) - fade : len(sound)] * falling).max() < 1e-5
    assert np.abs(rings[len(sound) - fade :]).max() > 1e-3


def test_a_last_note_is_not_faded_as_soon_as_it_is_struck() -> None:
    piece = Piece.of([0, 1000], [60, 72], [80, 80], [900, 100])
    sound, rings = audio(piece).samples, audio(piece, tail=True).samples
    same = round(1.05 * SAMPLE_RATE)
    assert np.abs(sound[:same] - rings[:same]).max() < 1e-5
    assert np.abs(sound[-2000:] - rings[len(sound) - 2000 : len(sound)]).max() > 1e-5
    assert len(sound) == 48_510


def test_the_room_is_heard_unless_it_is_left_out() -> None:
    piece = Piece.of([0, 1900], [60, 60], [90, 1], [200, 100])
    wet, dry = (audio(piece, dry=one).samples for one in (False, True))
    assert (wet.shape[1], dry.shape[1]) == (2, 1)
    at = slice(round(1.0 * SAMPLE_RATE), round(1.4 * SAMPLE_RATE))
    assert np.abs(wet[at]).max() > 10 * np.abs(dry[at]).max()
    assert np.abs(wet).max() == pytest.approx(np.abs(dry).max(), rel=0.15)


def test_a_sound_is_as_long_as_its_piece_and_the_last_tone(tmp_path: Path) -> None:
    piece = scale()
    samples = audio(piece, dry=True, tail=True).samples
    end = piece.end_ms * SAMPLE_RATE // 1000
    assert end + 0.2 * SAMPLE_RATE < len(samples) < end + 1.5 * SAMPLE_RATE
    loud = np.abs(samples[end - 2000 : end]).max()
    assert loud / 100 < np.abs(samples[end : end + 2000]).max() < loud  # it rings
    assert np.abs(samples[-100:]).max() < 2e-3 * loud  # and is gone at the end


def test_a_sound_is_not_cut_where_a_held_note_has_died_away(tmp_path: Path) -> None:
    piece = Piece.of([0], [100], [80], [20_000])
    assert len(audio(piece).samples) >= 20 * SAMPLE_RATE


def chords(velocity: int) -> Piece:
    return Piece.of(np.repeat([0, 400], 20), [*range(40, 80, 2)] * 2, [velocity] * 40, [390] * 40)


def test_a_loud_piece_is_louder_than_a_soft_one_and_nothing_clips(tmp_path: Path) -> None:
    peaks = []
    for velocity in (1, 40, 80, 127):
        sound = audio(chords(velocity))
        peaks.append(np.abs(sound.samples).max())
        write_sound(tmp_path / "chords.wav", sound)
        with wave.open(str(tmp_path / "chords.wav")) as file:
            values = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert np.abs(values.astype(int)).max() == pytest.approx(peaks[-1] * 32_767, abs=2)
    assert peaks == sorted(peaks)
    assert 0 < peaks[0] < peaks[1] / 2
    assert peaks[1] < peaks[2] / 2
    assert KNEE < peaks[-1] <= PEAK


def test_the_reference_is_half_as_loud_as_the_loudest_pieces_are_allowed_to_be() -> None:
    assert np.abs(audio(REFERENCE, dry=True).samples).max() == pytest.approx(PEAK / LOUDEST, rel=1e-5)


def test_what_is_too_loud_is_rounded_off_and_what_is_not_stays_as_it_is() -> None:
    samples = np.linspace(-3, 3, 1001, dtype=np.float32)[:, None]
    limited = samples.copy()
    limit(limited)
    quiet = np.abs(samples) <= KNEE
    assert np.array_equal(limited[quiet], samples[quiet])
    assert (np.diff(limited[:, 0]) >= 0).all()
    assert PEAK * 0.99 < limited.max() <= PEAK + 1e-6
    assert np.abs(np.diff(limited[:, 0])).max() <= 0.0061  # no step at the knee
    some = (samples[:, 0] >= 0) & (samples[:, 0] < 1.2)  # from there on float32 has no room left below PEAK
    assert [unrounded(float(one)) for one in limited[some, 0]] == pytest.approx(samples[some, 0].tolist(), abs=1e-3)


def test_loud_notes_are_louder_than_soft_ones() -> None:
    samples = audio(Piece.of([0, 1000], [60, 60], [40, 100], [900, 900])).samples
    soft, loud = (np.abs(samples[at : at + SAMPLE_RATE // 2]).max() for at in (0, SAMPLE_RATE))
    assert loud / soft == pytest.approx((100 / 40) ** 2, rel=0.1)


def test_the_same_piece_makes_the_same_sound() -> None:
    assert np.array_equal(audio(scale()).samples, audio(scale()).samples)


@pytest.mark.parametrize("suffix", [".wav", ".ogg", ".mp3"])
def test_each_format_holds_the_music(suffix: str, tmp_path: Path) -> None:
    sound = audio(scale())
    path = tmp_path / f"scale{suffix}"
    write_sound(path, sound)
    samples, rate = read(path)
    assert rate == 44_100
    assert len(samples) == pytest.approx(len(sound.samples), abs=3_000)
    assert pitches(samples) == list(SCALE)
    if suffix != ".wav":
        assert path.stat().st_size < 2 * len(sound.samples) / 5
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_the_mp3_of_a_page_holds_the_sound_whole_and_in_tune() -> None:
    heard, rate = soundfile.read(io.BytesIO(small_mp3(Sound(sine(2.5, hz=1000)))))
    assert rate == SAMPLE_RATE
    assert len(heard) == 2.5 * SAMPLE_RATE
    assert np.abs(np.fft.rfft(heard)).argmax() / 2.5 == pytest.approx(1000, abs=1)
    assert np.abs(heard[20_000:80_000]).max() == pytest.approx(0.3, abs=0.03)


def test_sound_is_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given two minutes of OGG in one call libsndfile crashes, and takes the process along."""
    lengths = []
    write = soundfile.SoundFile.write

    def listen(self: soundfile.SoundFile, data: Floats) -> None:
        lengths.append(len(data))
        write(self, data)

    monkeypatch.setattr(soundfile.SoundFile, "write", listen)
    write_sound(tmp_path / "long.ogg", Sound(np.zeros((5 * SAMPLE_RATE + 7, 1), dtype=np.float32)))
    assert lengths == [SAMPLE_RATE] * 5 + [7]


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"piece\.flac is not a sound file"):
        write_sound(tmp_path / "piece.flac", Sound(np.zeros((10, 1), dtype=np.float32)))
    assert not list(tmp_path.iterdir())


def test_a_sound_that_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "piece.wav"
    path.write_bytes(b"before")

    def full(self: object, data: object) -> None:
        raise soundfile.LibsndfileError(2)

    monkeypatch.setattr(soundfile.SoundFile, "write", full)
    with pytest.raises(EmogenError, match=r"piece\.wav cannot be written"):
        write_sound(path, Sound(np.zeros((10, 1), dtype=np.float32)))
    assert path.read_bytes() == b"before"
    assert [one.name for one in tmp_path.iterdir()] == ["piece.wav"]


def test_a_piece_without_notes_makes_no_sound() -> None:
    with pytest.raises(EmogenError, match="without notes"):
        audio(Piece.of([], [], [], []))


def test_a_piece_of_ten_hours_is_refused_with_the_limit() -> None:
    with pytest.raises(EmogenError, match="a piece of 36,000 s is too long for sound, which takes at most 1,200 s"):
        audio(Piece.of([0], [60], [64], [36_000_000]))
    assert LONGEST_S >= 2 * 600


def test_a_named_soundfont_is_played(tmp_path: Path) -> None:
    sound = audio(scale(), soundfont(tmp_path / "mine.sf2"))
    assert sound.engine == "mine"
    assert pitches(sound.samples) == list(SCALE)


@pytest.mark.parametrize("content", [None, b"", b"hello"], ids=["missing", "empty", "text"])
def test_a_named_soundfont_that_cannot_be_played_is_an_error(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "mine.sf2"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EmogenError, match=r"the SoundFont .*mine\.sf2 cannot be played: ") as caught:
        audio(scale(), path)
    assert "--soundfont" in caught.value.hint


def test_a_named_soundfont_that_is_silent_is_an_error(tmp_path: Path) -> None:
    path = soundfont(tmp_path / "mine.sf2", waves=bytes(4000))
    with pytest.raises(EmogenError, match="a note of it makes no sound"):
        audio(scale(), path)


@pytest.mark.parametrize("broken", [False, True], ids=["missing", "broken"])
def test_without_its_soundfont_the_piano_is_made_of_sines_with_a_warning(
    broken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "font.sf2").write_bytes(b"broken")
    monkeypatch.setattr(render, "bundled_soundfont", lambda: tmp_path / "font.sf2" if broken else None)
    sound = audio(scale())
    assert sound.engine == "sine"
    assert render.engine_for(None).warning.startswith("the piano is made of plain sines: ")
    assert pitches(sound.samples) == list(SCALE)
    assert 0.1 < np.abs(sound.samples).max() <= PEAK


def test_an_engine_that_plays_all_notes_alike_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SoundFont, "play", lambda self, piece: np.full((2 * SAMPLE_RATE, 1), 0.1, dtype=np.float32))
    assert audio(scale()).engine == "sine"


@pytest.mark.skipif(not FLUIDSYNTH, reason="FluidSynth is not installed")
def test_we_play_the_bundled_piano_as_fluidsynth_does() -> None:
    font, program = bundled_soundfont(), FLUIDSYNTH
    assert font is not None
    assert program is not None
    for pitch in (45, 60, 69, 90):
        piece = Piece.of([0], [pitch], [100], [3000])
        ours, theirs = SoundFont(font).play(piece), fluidsynth(program, font, piece)
        steps = [np.array([np.abs(one[at : at + 8_820]).max() for at in range(0, 130_000, 8_820)])
                 for one in (ours, theirs)]  # fmt: skip
        ours_db, theirs_db = (20 * np.log10(one / one[0]) for one in steps)
        assert np.abs(ours_db - theirs_db).max() < 4


def test_memory_stays_near_that_of_the_sound(tmp_path: Path) -> None:
    """Three minutes are 32 MB of samples: a copy of them in between would be seen."""
    resource = pytest.importorskip("resource")
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from emogen.music.notes import Piece
from emogen.sound.render import audio, write_sound
at = np.arange(0, 180_000, 1_000)
unit = 1 if sys.platform == "darwin" else 1024
write_sound(Path(sys.argv[1]), audio(Piece.of([0], [60], [80], [1_000])))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sound = audio(Piece.of(at, np.resize([60, 64, 67], len(at)), np.full(len(at), 80), np.full(len(at), 900)))
write_sound(Path(sys.argv[1]), sound)
more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit
print(more / sound.samples.nbytes)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.wav")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert resource
    assert float(done.stdout) < 1.5


def test_the_soundfont_is_read_where_it_lies() -> None:
    font = bundled_soundfont()
    assert font is not None
    assert font.parent.name == "pretty_midi"
    ours = Path(render.__file__).parent
    assert not [path for path in ours.rglob("*") if path.suffix.lower() in (".sf2", ".sf3")]


def test_a_sound_begins_with_samples_rate_and_engine() -> None:
    samples, rate, engine, *_ = audio(scale())
    assert samples.dtype == np.float32
    assert (samples.ndim, rate, engine) == (2, 44_100, "TimGM6mb")
