from __future__ import annotations

import pytest

from emogen.emotion import ALIASES, EMOTIONS, QUADRANT_OF, QUADRANTS, parse_mixture, suggest
from emogen.errors import UsageError


def refusal(text: str) -> tuple[str, str]:
    with pytest.raises(UsageError) as caught:
        parse_mixture(text)
    return str(caught.value), caught.value.hint


@pytest.mark.parametrize("name", EMOTIONS)
def test_each_of_the_six_emotions_is_its_own_mixture(name: str) -> None:
    assert parse_mixture(name) == {name: 1.0}
    assert parse_mixture(f" {name.upper()} ") == {name: 1.0}


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("joy joyful", "happy"),
        ("surprise surprised", "excited"),
        ("anger", "angry"),
        ("fear fearful afraid", "tense"),
        ("sadness", "sad"),
        ("peaceful relaxed", "calm"),
    ],
)
def test_other_words_for_an_emotion_mean_it(words: str, name: str) -> None:
    assert [parse_mixture(word) for word in words.split()] == [{name: 1.0}] * len(words.split())


def test_no_alias_hides_an_emotion_and_each_means_one() -> None:
    assert set(ALIASES.values()) == set(EMOTIONS)
    assert not set(ALIASES) & set(EMOTIONS)


def test_a_quadrant_is_an_equal_mixture_of_its_emotions() -> None:
    assert parse_mixture("q1") == {"happy": 0.5, "excited": 0.5}
    assert parse_mixture("Q2") == {"angry": 0.5, "tense": 0.5}
    assert parse_mixture("q3") == {"sad": 1.0}
    assert parse_mixture("q4") == {"calm": 1.0}


def test_every_emotion_is_in_one_quadrant() -> None:
    assert sorted(name for names in QUADRANTS.values() for name in names) == sorted(EMOTIONS)
    assert [QUADRANT_OF[name] for name in EMOTIONS] == [1, 1, 2, 2, 3, 4]


def test_weights_are_scaled_to_sum_to_one() -> None:
    assert parse_mixture("happy:7, calm:3") == pytest.approx({"happy": 0.7, "calm": 0.3})
    assert parse_mixture("happy,calm") == {"happy": 0.5, "calm": 0.5}
    assert parse_mixture("q1:1,sad:1") == {"happy": 0.25, "excited": 0.25, "sad": 0.5}


def test_a_mixture_is_in_the_order_of_the_emotions() -> None:
    assert list(parse_mixture("calm,sad,tense,angry,excited,happy")) == list(EMOTIONS)


def test_an_emotion_that_stands_twice_is_added_up() -> None:
    assert parse_mixture("happy:1,sad:2,joy:1") == {"happy": 0.5, "sad": 0.5}
    assert parse_mixture("q1:1,happy:1") == {"happy": 0.75, "excited": 0.25}


def test_an_unknown_name_is_refused_with_the_nearest_and_all_six() -> None:
    message, hint = refusal("hapy")
    assert message == "unknown emotion 'hapy'"
    assert hint.startswith("did you mean 'happy'? ")
    assert all(name in hint for name in EMOTIONS)
    assert "did you mean" not in refusal("xyzzy")[1]
    assert refusal("calm:0.3,tence:0.7")[1].startswith("did you mean 'tense'?")


@pytest.mark.parametrize("text", ["", " ", ",", "happy,", ":1", "q0", "q5", "q12", "happy calm"])
def test_what_names_no_emotion_is_refused_with_the_six(text: str) -> None:
    message, hint = refusal(text)
    assert message.startswith("unknown emotion '")
    assert "happy, excited, angry, tense, sad, calm" in hint


@pytest.mark.parametrize("weight", ["-1", "0", "nan", "inf", "-inf", "much", "0,7:1", "0.7:0.3", "", "1e-400"])
def test_a_weight_that_is_no_positive_number_is_refused(weight: str) -> None:
    message, hint = refusal(f"sad,happy:{weight}")
    assert message == f"'{weight.partition(',')[0]}' is not a weight for 'happy'"
    assert "happy:0.7,calm:0.3" in hint


@pytest.mark.parametrize("text", ["happy:1e308,calm:1e308", "q1:5e-324"])
def test_weights_that_cannot_be_scaled_to_one_are_refused(text: str) -> None:
    assert "is not a weight for" in refusal(text)[0]


def test_nothing_is_suggested_where_nothing_is_near() -> None:
    assert suggest("epcohs", ["epochs", "seed"]) == "did you mean 'epochs'?"
    assert suggest("xyzzy", ["epochs", "seed"]) == ""
