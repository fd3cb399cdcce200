from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emogen.errors import UnusableFile
from emogen.music.notes import Piece
from emogen.sound.regions import Gen, Region, Sample
from emogen.sound.render import bundled_soundfont
from emogen.sound.soundfont import LONGEST_TONE_S, MOST_FRAMES, SAMPLE_RATE, Floats, SoundFont
from tests.soundfonts import (
    AROUND,
    CONCAVE,
    CONVEX,
    FALLING,
    KEY,
    RATE,
    VELOCITY,
    Moved,
    ogg,
    sine,
    soundfont,
    span,
)

SECOND = SAMPLE_RATE


def note(pitch: int = 69, velocity: int = 127, duration_ms: int = 1000, onset_ms: int = 0) -> Piece:
    return Piece.of([onset_ms], [pitch], [velocity], [duration_ms])


def play(path: Path, piece: Piece) -> Floats:
    return SoundFont(path).play(piece)


def frequency_hz(samples: Floats) -> float:
    """The strongest frequency of some samples (N,)."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 8 * len(samples)))
    return float(spectrum.argmax()) * SAMPLE_RATE / (8 * len(samples))


def level(samples: Floats) -> float:
    return float(np.abs(samples).max())


@pytest.mark.parametrize("pitch", [45, 57, 69, 70, 81, 93])
def test_a_key_sounds_at_its_pitch_from_a_sample_of_another(pitch: int, tmp_path: Path) -> None:
    sound = play(soundfont(tmp_path / "a.sf2"), note(pitch))
    assert frequency_hz(sound[:SECOND, 0]) == pytest.approx(441 * 2 ** ((pitch - 69) / 12), rel=1e-3)


def test_a_sample_played_as_it_was_recorded_is_the_sample(tmp_path: Path) -> None:
    sound = play(soundfont(tmp_path / "a.sf2"), note(duration_ms=500))
    expected = 0.5 * np.sin(2 * np.pi * 441 * np.arange(SECOND // 2) / SAMPLE_RATE)
    assert np.abs(sound[100 : SECOND // 2, 0] - expected[100:]).max() < 1e-3


@pytest.mark.parametrize("velocity", [1, 20, 64, 100])
def test_loudness_follows_the_square_of_velocity(velocity: int, tmp_path: Path) -> None:
    path = soundfont(tmp_path / "a.sf2")
    assert level(play(path, note(velocity=velocity))) == pytest.approx(0.5 * (velocity / 127) ** 2, rel=1e-3)


def test_a_tone_begins_with_its_note_and_dies_away_after_it(tmp_path: Path) -> None:
    path = soundfont(tmp_path / "a.sf2", [(Gen.RELEASE, 0)])  # one second for 100 dB
    sound = play(path, note(onset_ms=1000, duration_ms=1000))[:, 0]
    assert level(sound[: SECOND - 1]) == 0
    assert level(sound[SECOND + 200 : 2 * SECOND]) == pytest.approx(0.5, rel=1e-2)
    after_s = [level(sound[2 * SECOND + at : 2 * SECOND + at + 200]) for at in (4_410, 13_230, 22_050)]
    assert after_s == pytest.approx([0.5 * 10 ** (-db / 20) for db in (10, 30, 50)], rel=0.06)
    assert len(sound) == pytest.approx(2.7 * SECOND, abs=2)


def test_a_held_tone_falls_to_its_sustain(tmp_path: Path) -> None:
    zone = [(Gen.HOLD, -1200), (Gen.DECAY, 1200), (Gen.SUSTAIN_CB, 200)]  # after half a second 50 dB a second
    sound = play(soundfont(tmp_path / "a.sf2", zone), note(duration_ms=2000))[:, 0]
    for at_s, db in ((0.4, 0), (0.7, 10), (1.5, 20)):
        assert level(sound[int(at_s * SECOND) :][:200]) == pytest.approx(0.5 * 10 ** (-db / 20), rel=0.05)


def test_a_tone_that_has_died_away_is_not_made_longer(tmp_path: Path) -> None:
    zone = [(Gen.DECAY, 0), (Gen.SUSTAIN_CB, 1000)]
    font = SoundFont(soundfont(tmp_path / "a.sf2", zone))
    assert len(font.tone(font.regions[0], 69, 600 * SECOND)) == pytest.approx(SECOND, rel=0.01)


def test_the_filter_takes_what_is_above_its_frequency(tmp_path: Path) -> None:
    low, high = 57, 93  # 220 and 1765 Hz, and a filter of two poles at 440 Hz
    path = soundfont(tmp_path / "a.sf2", [(Gen.FILTER_CENTS, 6900)])
    passed, stopped = (level(play(path, note(pitch))[4_000:20_000]) / 0.5 for pitch in (low, high))
    assert passed == pytest.approx(1 / np.sqrt(1 + 0.5**4), rel=0.03)
    assert stopped == pytest.approx(1 / np.sqrt(1 + 4.0**4), rel=0.1)


@pytest.mark.parametrize("length", [1, 3000, 3584, 50_000])
def test_a_filter_that_stays_where_it_is_does_what_the_moving_one_does(
    length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    font = SoundFont(soundfont(tmp_path / "a.sf2", [(Gen.FILTER_CENTS, 6900), (Gen.RESONANCE_CB, 60)]))
    steady = font.tone(font.regions[0], 93, length)
    monkeypatch.setattr("emogen.sound.soundfont.STEADY_CENTS", -1)
    moving = font.tone(font.regions[0], 93, length)
    assert len(steady) == len(moving) == length
    assert np.abs(steady - moving).max() < 0.01
    assert length < 3000 or level(steady) > 0.02


def test_the_filter_is_moved_by_its_envelope(tmp_path: Path) -> None:
    zone = [(Gen.FILTER_CENTS, 6900), (Gen.TO_FILTER_CENTS, 6000), (Gen.FILTER_DECAY, 0), (Gen.FILTER_SUSTAIN, 1000)]
    sound = play(soundfont(tmp_path / "a.sf2", zone), note(93, duration_ms=2000))
    early, late = level(sound[500:1500]), level(sound[int(1.5 * SECOND) : 2 * SECOND])
    assert early > 0.45
    assert late == pytest.approx(0.5 / np.sqrt(1 + 4.0**4), rel=0.1)


def test_keys_and_velocities_choose_their_zone(tmp_path: Path) -> None:
    path = soundfont(
        tmp_path / "a.sf2",
        [(Gen.KEYS, span(0, 68)), (Gen.SEMITONES, 12)],
        [(Gen.KEYS, span(69, 127)), (Gen.VELOCITIES, span(0, 63))],
        [(Gen.KEYS, span(69, 127)), (Gen.VELOCITIES, span(64, 127)), (Gen.CENTS, 1200)],
    )
    found = [frequency_hz(play(path, note(pitch, velocity))[:SECOND, 0]) for pitch, velocity in
             ((57, 100), (69, 63), (69, 64))]  # fmt: skip
    assert found == pytest.approx([441, 441, 882], rel=1e-3)


def test_amounts_of_the_preset_are_added_and_those_of_the_whole_instrument_hold(tmp_path: Path) -> None:
    path = soundfont(tmp_path / "a.sf2", [], outer=[(Gen.SEMITONES, 12)], whole=[(Gen.SEMITONES, -5)])
    assert frequency_hz(play(path, note())[:SECOND, 0]) == pytest.approx(441 * 2 ** (7 / 12), rel=1e-3)


def test_attenuation_makes_a_zone_softer_by_two_fifths_of_its_decibels(tmp_path: Path) -> None:
    path = soundfont(tmp_path / "a.sf2", [(Gen.ATTENUATION_CB, 250)])
    assert level(play(path, note())) == pytest.approx(0.5 * 10 ** (-10 / 20), rel=1e-2)


def test_zones_on_two_sides_are_heard_there(tmp_path: Path) -> None:
    path = soundfont(tmp_path / "a.sf2", [(Gen.KEYS, span(0, 68)), (Gen.PAN, -500)], [(Gen.PAN, 500)])
    left, right = play(path, note(80, duration_ms=100)).T
    assert level(left) < 1e-6
    assert level(right) == pytest.approx(0.5, rel=1e-2)
    assert play(soundfont(tmp_path / "b.sf2", [(Gen.PAN, 4)]), note()).shape[1] == 1


def test_a_key_held_for_hours_is_let_go(tmp_path: Path) -> None:
    sound = play(soundfont(tmp_path / "a.sf2"), note(duration_ms=100_000))
    assert level(sound[int(LONGEST_TONE_S - 1) * SECOND : int(LONGEST_TONE_S) * SECOND]) > 0.4
    assert level(sound[int(LONGEST_TONE_S + 1) * SECOND :]) == 0


def test_a_compressed_sample_is_heard_as_it_was(tmp_path: Path) -> None:
    plain, small = (soundfont(tmp_path / "a.sf3", compressed=one) for one in (False, True))
    zone = [(Gen.ATTACK, -4000)]  # Vorbis begins softly
    heard = [play(soundfont(tmp_path / "a.sf3", zone, compressed=one), note(duration_ms=3000)) for one in (False, True)]
    assert plain == small
    assert len(heard[0]) == len(heard[1])
    middle = slice(SECOND, 2 * SECOND)  # within the loop
    assert frequency_hz(heard[1][middle, 0]) == pytest.approx(441, rel=1e-3)
    assert np.abs(heard[0][middle] - heard[1][middle]).max() < 0.03


def test_what_is_damaged_in_a_compressed_sample_is_silent(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-9_000, 9_000, 3 * RATE).astype(np.int16)
    content = ogg(noise)
    third = content.replace(b"OggS", b"", 3).index(b"OggS") + 12  # a page in the middle
    broken = content[:third] + b"gone" + content[third + 4 :]
    assert content.count(b"OggS") == 1 + broken.count(b"OggS") > 5
    heard = []
    for waves in (content, broken):
        font = SoundFont(soundfont(tmp_path / "a.sf3", waves=waves, compressed=True))
        heard.append(font._decode(font.regions[0].sample, len(noise)))
        assert len(heard[-1]) == len(noise)
        assert level(heard[-1][:1000]) > 0.1
    assert level(heard[0][-1000:]) > 0.1
    assert level(heard[1][-1000:]) == 0


def test_a_compressed_sample_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    font = soundfont(tmp_path / "a.sf3", compressed=True)
    monkeypatch.setattr("emogen.sound.soundfont.MOST_FRAMES", len(sine()) - 1)
    with pytest.raises(UnusableFile, match="longer than 1,999 frames"):
        SoundFont(font)


def test_only_as_much_of_a_compressed_sample_is_decoded_as_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emogen.sound.soundfont.AT_LEAST_FRAMES", 500)
    font = SoundFont(soundfont(tmp_path / "a.sf3", compressed=True))
    read: list[int] = []
    decode = font._decode

    def listen(sample: Sample, frames: int) -> Floats:
        read.append(frames)
        return decode(sample, frames)

    monkeypatch.setattr(font, "_decode", listen)
    assert font.regions[0].sample.frames == len(sine())
    font.tone(font.regions[0], 69, 400)
    font.tone(font.regions[0], 69, SECOND)
    assert read == [500, 2000]


def test_both_sides_of_a_pair_have_the_pitch_of_the_right_one(tmp_path: Path) -> None:
    left, right = [(Gen.PAN, -500), (Gen.SAMPLE, 0)], [(Gen.PAN, 500), (Gen.SAMPLE, 1), (Gen.CENTS, 1200)]
    for zones in ((left, right), (right, left)):
        sides = play(soundfont(tmp_path / "a.sf2", *zones), note())[:SECOND].T
        assert [frequency_hz(side) for side in sides] == pytest.approx([882, 882], rel=1e-3)


def test_layers_of_preset_and_instrument_meet(tmp_path: Path) -> None:
    path = soundfont(
        tmp_path / "a.sf2",
        [(Gen.VELOCITIES, span(0, 79))], [(Gen.VELOCITIES, span(80, 127)), (Gen.CENTS, 1200)],
        outer=[(Gen.VELOCITIES, span(40, 100))],
    )  # fmt: skip
    heard = [play(path, note(velocity=velocity))[:SECOND, 0] for velocity in (39, 40, 79, 80, 100, 101)]
    assert [round(frequency_hz(one)) for one in heard[1:-1]] == [441, 441, 882, 882]
    assert level(heard[0]) == level(heard[-1]) == 0


LOUDNESS = VELOCITY | FALLING | CONCAVE


@pytest.mark.parametrize(
    ("moved", "outer_moved", "db"),
    [
        ([], [], 960), ([(LOUDNESS, Gen.ATTENUATION_CB, 0, 0)], [], 0),
        ([(LOUDNESS, Gen.ATTENUATION_CB, 500, 0)], [(LOUDNESS, Gen.ATTENUATION_CB, 200, 0)], 700),
        ([], [(LOUDNESS, Gen.ATTENUATION_CB, -960, 0)], 0),
    ],
    ids=["default", "replaced", "both", "taken back"],
)  # fmt: skip
def test_modulators_say_how_loudness_follows_velocity(
    moved: Moved, outer_moved: Moved, db: int, tmp_path: Path
) -> None:
    path = soundfont(tmp_path / "a.sf2", moved=moved, outer_moved=outer_moved)
    soft, loud = (level(play(path, note(velocity=velocity))) for velocity in (32, 127))
    assert 20 * np.log10(loud / soft) == pytest.approx(db / 960 * 40 * np.log10(127 / 32), abs=0.1)


@pytest.mark.parametrize(
    ("source", "by", "velocity", "cents"),
    [
        (VELOCITY, 0, 127, 1200), (VELOCITY, 0, 0, 0), (VELOCITY | FALLING, 0, 0, 1200), (VELOCITY, VELOCITY, 64, 305),
        (VELOCITY | AROUND, 0, 0, -1200), (VELOCITY | CONCAVE, 0, 64, 152), (VELOCITY | CONVEX, 0, 64, 1051),
        (KEY | FALLING, 0, 64, 548), (0, 0, 64, 1200), (0x81, 0, 64, 0), (14, 0, 64, 0),
    ],
)  # fmt: skip
def test_modulators_follow_the_curves_of_their_sources(
    source: int, by: int, velocity: int, cents: int, tmp_path: Path
) -> None:
    font = SoundFont(soundfont(tmp_path / "a.sf2", moved=[(source, Gen.CENTS, 1200, by)]))
    assert font.regions[0].struck(69, velocity).amount(Gen.CENTS) == pytest.approx(cents, abs=1)


def test_velocities_share_a_tone_unless_it_follows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tones: list[int] = []
    tone = SoundFont.tone

    def listen(font: SoundFont, region: Region, key: int, length: int) -> Floats:
        tones.append(key)
        return tone(font, region, key, length)

    monkeypatch.setattr(SoundFont, "tone", listen)
    notes = Piece.of(np.arange(8) * 100, [69] * 8, range(60, 68), [50] * 8)
    made = []
    for moved in ([], [(VELOCITY, Gen.FILTER_CENTS, -2400, 0)]):
        play(soundfont(tmp_path / "a.sf2", moved=moved), notes)
        made.append(len(tones))
    assert made == [1, 1 + 2]


def test_a_time_may_be_shorter_for_high_keys(tmp_path: Path) -> None:
    font = SoundFont(soundfont(tmp_path / "a.sf2", [(Gen.DECAY, 1200), (Gen.KEY_TO_DECAY, 50)]))
    assert [font.regions[0].struck(key, 64).amount(Gen.DECAY) for key in (36, 60, 84)] == [2400, 1200, 0]


def test_a_zone_of_thousands_of_modulators_is_refused(tmp_path: Path) -> None:
    moved = [(VELOCITY, Gen.CENTS, 1, by) for by in range(1000)]
    with pytest.raises(UnusableFile, match="damaged"):
        SoundFont(soundfont(tmp_path / "a.sf2", moved=moved))


def test_without_a_piano_the_first_preset_plays(tmp_path: Path) -> None:
    assert level(play(soundfont(tmp_path / "a.sf2", preset=(48, 0)), note())) > 0.4


def damaged(path: Path) -> list[tuple[bytes, str]]:
    """Contents of a file that is no SoundFont of ours, each with the reason that is given."""
    sound = soundfont(path).read_bytes()
    alien, stereo = (
        soundfont(path, waves=waves, compressed=True).read_bytes()
        for waves in (sine().tobytes(), ogg(sine(), channels=2))
    )
    empty = soundfont(path, waves=b"").read_bytes()
    lists = b"RIFF\0\0\0\0sfbk" + b"LIST\xff\xff\xff\x7fpdta" * 3000
    return [
        (b"", "not a SoundFont"),
        (b"hello", "not a SoundFont"),
        (b"RIFF", "a damaged SoundFont"),
        (sound[:-60], "a damaged SoundFont"),
        (sound[: len(sound) // 2], "a damaged SoundFont"),
        (lists, "a damaged SoundFont"),
        (sound.replace(b"igen", b"none"), "a damaged SoundFont"),
        (empty, "a SoundFont without samples for a piano"),
        (alien, "a SoundFont with a damaged sample"),
        (stereo, f"a SoundFont with a compressed sample that is not mono, or longer than {MOST_FRAMES:,} frames"),
    ]


@pytest.mark.parametrize("case", range(10))
def test_a_file_that_is_no_sound_soundfont_is_refused_with_the_reason(case: int, tmp_path: Path) -> None:
    path = tmp_path / "a.sf2"
    content, reason = damaged(path)[case]
    path.write_bytes(content)
    with pytest.raises(UnusableFile) as caught:
        SoundFont(path)
    assert str(caught.value) == reason


def test_a_soundfont_that_is_not_there_is_refused_with_the_reason(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.sf2", tmp_path):
        with pytest.raises(UnusableFile, match="cannot be read"):
            SoundFont(path)


def test_no_damaged_byte_leads_further_than_a_refusal(tmp_path: Path) -> None:
    path, rng = tmp_path / "a.sf2", np.random.default_rng(0)
    sound = soundfont(path, [(Gen.KEYS, span(0, 127))], outer=[(Gen.CENTS, 3)]).read_bytes()
    tables = sound.index(b"pdta")
    refused = 0
    for _ in range(300):
        broken = bytearray(sound)
        for at in rng.integers(tables, len(sound), 3).tolist():
            broken[at] = int(rng.integers(256))
        path.write_bytes(broken)
        try:
            played = play(path, note(duration_ms=20))
        except UnusableFile:
            refused += 1
        else:
            assert np.isfinite(played).all()
    assert 0 < refused < 300


def test_the_bundled_piano_is_softer_and_darker_when_it_fades(tmp_path: Path) -> None:
    path = bundled_soundfont()
    assert path is not None
    for pitch in (33, 60, 84):
        sound = play(path, note(pitch, duration_ms=3000))[:, 0]
        begin, end = sound[2_000:10_000], sound[2 * SECOND : 2 * SECOND + 8_000]
        assert level(end) < level(begin) / 4
        energy = [np.abs(np.fft.rfft(part)) ** 2 for part in (begin, end)]
        high = int(8 * 440 * 2 ** ((pitch - 69) / 12) * 8_000 / SAMPLE_RATE)
        share = [one[high:].sum() / one.sum() for one in energy]
        assert share[1] < share[0]
