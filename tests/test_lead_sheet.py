from __future__ import annotations

import pytest

from emogen.errors import UsageError
from emogen.music.lead_sheet import MOST_BARS, read_chords, symbol


def names(text: str, tonic: int | None = None, mode: str | None = None) -> list[list[str]]:
    return [list(map(symbol, bar)) for bar in read_chords(text, tonic, mode)]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("C", "C"), ("Am", "Am"), ("Bb", "Bb"), ("A#", "Bb"), ("Cb", "B"), ("F#m7", "F#m7"), ("Gsus4", "Gsus"),
        ("Dmin", "Dm"), ("Emaj", "E"), ("EM7", "Emaj7"), ("B°", "Bdim"), ("Bdim7", "Bdim"), ("C+", "Caug"),
        ("G7", "G7"), ("E-7", "Em7"), ("N", "N"), ("NC", "N"),
    ],
)  # fmt: skip
def test_a_chord_goes_by_every_name_that_it_has(written: str, meant: str) -> None:
    assert names(written) == [[meant]]


def test_without_bar_lines_each_chord_is_a_bar() -> None:
    assert names("Am F, C  G") == [["Am"], ["F"], ["C"], ["G"]]
    assert names("| Am F | C G |") == [["Am", "F"], ["C", "G"]]


def test_numerals_are_degrees_of_the_key() -> None:
    assert names("I vi IV V7", 0) == [["C"], ["Am"], ["F"], ["G7"]]
    assert names("i VI III VII", 9, "minor") == [["Am"], ["F"], ["C"], ["G"]]
    assert names("bVII #iv° ii7 Isus", 2, "major") == [["C"], ["Abdim"], ["Em7"], ["Dsus"]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "there are no chords"),
        ("|", "there are no chords"),
        ("H", "'H' is not a chord"),
        ("Am Hm", "'Hm' is not a chord"),
        ("am", "'am' is not a chord"),
        ("Cmaj13", "'Cmaj13' is not a chord that emogen knows"),
        ("C/E", "'C/E' is not a chord that emogen knows"),
        ("IV", "the chord 'IV' is of a key, and there is none"),
        ("A B C D E|", "at most 400 bars of four chords"),
        ("C " * (MOST_BARS + 1), "at most 400 bars"),
        ("x" * 1000, "'" + "x" * 20 + "' is not a chord"),
    ],
)
def test_what_is_no_chord_is_refused_with_a_hint(text: str, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_chords(text)
    assert told in str(refused.value)
    assert refused.value.hint
