from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from emogen import settings
from emogen.cli.config import commented_file
from emogen.errors import UsageError
from emogen.settings import OPTIONS, SIZES, ModelSettings, PathsSettings, Settings, load

pytestmark = pytest.mark.usefixtures("nobody")


def refusal(flags: dict[str, dict[str, object]] | None = None) -> tuple[str, str]:
    with pytest.raises(UsageError) as caught:
        load(flags)
    return str(caught.value), caught.value.hint


def test_nothing_given_means_the_defaults() -> None:
    loaded = load()
    assert loaded.settings == Settings()
    assert loaded.origin.keys() == OPTIONS.keys()
    assert loaded.origin["train.epochs"] == "default"
    assert loaded.origin["model.d_model"] == "size base"


def test_each_source_goes_before_the_one_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    user = settings.user_config()
    user.write_text("[train]\nepochs = 1\nbatch_size = 1\nseed = 1\npatience = 1\n")
    Path("emogen.toml").write_text("[train]\nbatch_size = 2\nseed = 2\npatience = 2\n")
    monkeypatch.setenv("EMOGEN_TRAIN__SEED", "3")
    monkeypatch.setenv("EMOGEN_TRAIN__PATIENCE", "3")
    loaded = load({"train": {"patience": "4"}})
    train = loaded.settings.train
    assert (train.epochs, train.batch_size, train.seed, train.patience) == (1, 2, 3, 4)
    assert loaded.origin["train.epochs"] == str(user)
    assert loaded.origin["train.batch_size"] == "./emogen.toml"
    assert loaded.origin["train.seed"] == "environment EMOGEN_TRAIN__SEED"
    assert loaded.origin["train.patience"] == "flag --patience"
    assert loaded.origin["train.device"] == "default"


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOGEN_TRAIN__EPOCHS", "")
    monkeypatch.setenv("EMOGEN_HOME", "")
    loaded = load()
    assert loaded.settings.train.epochs == 50
    assert loaded.settings.paths.home is None


@pytest.mark.parametrize(("text", "meant"), [("yes", True), ("true", True), ("1", True), ("no", False), ("off", False)])
def test_words_for_yes_and_no_are_understood_in_variables(
    text: str, meant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOGEN_TRAIN__COMPILE", text)
    assert load().settings.train.compile is meant


def test_home_has_a_second_shorter_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOGEN_HOME", str(tmp_path / "short"))
    loaded = load()
    assert loaded.settings.paths.data_home == tmp_path / "short" / "data"
    assert loaded.origin["paths.home"] == "environment EMOGEN_HOME"
    monkeypatch.setenv("EMOGEN_PATHS__HOME", str(tmp_path / "long"))
    assert load().settings.paths.data_home == tmp_path / "long" / "data"


def test_prepared_data_is_kept_in_the_user_cache_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "user_cache_path", lambda *_, **__: tmp_path / "cache")
    assert PathsSettings().data_home == tmp_path / "cache" / "data"


def test_a_tilde_in_a_path_means_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    Path("emogen.toml").write_text('[paths]\nhome = "~/emogen"\nruns = "~/runs"\n')
    paths = load().settings.paths
    assert (paths.home, paths.runs) == (tmp_path / "emogen", tmp_path / "runs")


def test_an_empty_soundfont_means_the_bundled_one() -> None:
    Path("emogen.toml").write_text('[paths]\nsoundfont = ""\n')
    assert load().settings.paths.soundfont is None
    assert (
        load({"paths": {"soundfont": Path("~/mine.sf2")}}).settings.paths.soundfont == Path("~/mine.sf2").expanduser()
    )


def test_the_variable_of_the_tests_is_no_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOGEN_TEST_DATA", "/somewhere")
    assert load().settings == Settings()


@pytest.mark.parametrize(
    ("text", "unknown", "meant"),
    [
        ("[train]\nepoch = 3\n", "train.epoch", "train.epochs"),
        ("[trian]\nepochs = 3\n", "trian.epochs", "train.epochs"),
        ("[model]\nepochs = 3\n", "model.epochs", "train.epochs"),
        ("epochs = 3\n", "epochs", "train.epochs"),
        ("[traim]\n", "traim", ""),
        ("[train.epochs]\nvalue = 3\n[train.deep]\nvalue = 3\n", "train.deep", ""),
        ("train = 3\n", "train", ""),
    ],
)
def test_an_unknown_key_in_a_file_is_refused_with_the_one_meant(text: str, unknown: str, meant: str) -> None:
    Path("emogen.toml").write_text(text)
    message, hint = refusal()
    assert message == f"./emogen.toml: unknown option '{unknown}'"
    assert meant in hint
    assert hint


def test_an_unknown_key_in_the_users_file_is_refused_with_its_path() -> None:
    settings.user_config().write_text("[sample]\ntemprature = 1\n")
    message, hint = refusal()
    assert message == f"{settings.user_config()}: unknown option 'sample.temprature'"
    assert hint == "did you mean 'sample.temperature'?"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("EMOGEN_TRAIN__EPOCH", "EMOGEN_TRAIN__EPOCHS"),
        ("EMOGEN_EPOCHS", "EMOGEN_TRAIN__EPOCHS"),
        ("EMOGEN_HOM", "EMOGEN_HOME"),
        ("EMOGEN_XYZZY_PLUGH", "`emogen config show`"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_one_meant(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "3")
    message, hint = refusal()
    assert message == f"environment: unknown option '{name}'"
    assert meant in hint


def test_an_option_of_an_earlier_version_is_refused_with_what_became_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("emogen.toml").write_text("[sample]\nbest_of = 4\n")
    message, hint = refusal()
    assert message == "./emogen.toml: unknown option 'sample.best_of'"
    assert hint == "it is no setting since 0.4.0: emogen generate --best-of 4 chooses by ear"
    Path("emogen.toml").unlink()
    monkeypatch.setenv("EMOGEN_SAMPLE__BEST_OF", "4")
    assert refusal() == ("environment: unknown option 'EMOGEN_SAMPLE__BEST_OF'", hint)


def test_an_unknown_flag_is_refused_with_the_one_meant() -> None:
    message, hint = refusal({"train": {"epoch": "3"}})
    assert message == "flags: unknown option 'train.epoch'"
    assert hint == "did you mean 'train.epochs'?"


def test_a_wrong_value_is_refused_with_its_option_place_and_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("emogen.toml").write_text("[train]\nepochs = 0\n")
    message, hint = refusal()
    assert message == "./emogen.toml: train.epochs = 0 should be greater than or equal to 1"
    assert hint == "Passes over the training windows."
    monkeypatch.setenv("EMOGEN_TRAIN__EPOCHS", "many")
    assert refusal()[0].startswith("environment EMOGEN_TRAIN__EPOCHS: train.epochs = many should be a valid integer")
    assert refusal({"train": {"epochs": "1.5"}})[0].startswith("flag --epochs: train.epochs = 1.5 should be a valid")


def test_a_mistyped_choice_is_refused_with_the_choices_and_the_one_meant() -> None:
    message, hint = refusal({"model": {"size": "smal"}})
    assert message == "flag --size: model.size = smal should be 'tiny', 'small' or 'base'"
    assert hint == "did you mean 'small'?"


def test_options_that_do_not_go_together_are_refused_with_where_they_came_from() -> None:
    Path("emogen.toml").write_text("[model]\nn_heads = 7\n")
    message, _ = refusal({"model": {"size": "base"}})
    assert message == "./emogen.toml, flag --size: d_model 512 is not a multiple of eight times n_heads 7"


@pytest.mark.parametrize("value", ["['base']", "{a = 1}", "1", "true"])
def test_a_size_of_a_wrong_kind_is_refused(value: str) -> None:
    Path("emogen.toml").write_text(f"[model]\nsize = {value}\n")
    assert "model.size" in refusal()[0]


def test_a_file_that_is_no_toml_is_refused_with_its_line() -> None:
    Path("emogen.toml").write_text("[train]\nepochs = 3\nbatch_size = = 2\n")
    message, hint = refusal()
    assert message.startswith("./emogen.toml: ")
    assert "line 3" in message
    assert hint


def test_a_file_that_is_no_text_is_refused() -> None:
    Path("emogen.toml").write_bytes(b"[train]\nepochs = \xff\n")
    assert refusal()[0].startswith("./emogen.toml: ")


def test_a_byte_order_mark_does_no_harm() -> None:
    Path("emogen.toml").write_bytes(b"\xef\xbb\xbf[train]\r\nepochs = 3\r\n")
    assert load().settings.train.epochs == 3


@pytest.mark.parametrize("size", SIZES)
def test_a_named_size_fills_the_numbers_left_out(size: str) -> None:
    loaded = load({"model": {"size": size}})
    assert {name: getattr(loaded.settings.model, name) for name in SIZES[size]} == SIZES[size]
    assert {loaded.origin[f"model.{name}"] for name in SIZES[size]} == {f"size {size}"}
    assert loaded.origin["model.size"] == "flag --size"


def test_a_number_from_a_file_goes_before_the_size_from_a_flag() -> None:
    Path("emogen.toml").write_text("[model]\nd_model = 192\n")
    loaded = load({"model": {"size": "tiny"}})
    assert (loaded.settings.model.d_model, loaded.settings.model.n_layers) == (192, SIZES["tiny"]["n_layers"])
    assert loaded.origin["model.d_model"] == "./emogen.toml"
    assert loaded.origin["model.n_layers"] == "size tiny"


def test_a_zero_means_by_size_also_as_text() -> None:
    loaded = load({"model": {"size": "tiny", "n_heads": "0"}})
    assert loaded.settings.model.n_heads == SIZES["tiny"]["n_heads"]
    assert loaded.origin["model.n_heads"] == "size tiny"


def test_model_settings_stay_the_same_when_written_and_read_again() -> None:
    model = ModelSettings(size="small", d_model=320)
    assert ModelSettings.model_validate_json(model.model_dump_json()) == model


def test_the_settings_are_frozen() -> None:
    loaded = load().settings
    with pytest.raises(ValidationError, match="frozen"):
        loaded.train.epochs = 3
    with pytest.raises(ValidationError, match="frozen"):
        loaded.train = loaded.train.model_copy()


def test_every_option_has_help_in_one_sentence_or_more() -> None:
    assert [option for option, field in OPTIONS.items() if not (field.description or "").endswith(".")] == []


def test_the_commented_file_loads_and_changes_nothing() -> None:
    Path("emogen.toml").write_text(commented_file())
    assert load().settings == Settings()
    assert "./emogen.toml" not in load().origin.values()


def test_the_commented_file_with_every_option_taken_in_gives_the_defaults() -> None:
    text, options = re.subn(r"(?m)^#(\w+ = )", r"\1", commented_file())
    assert options == len(OPTIONS)
    Path("emogen.toml").write_text(text)
    loaded = load()
    assert loaded.settings.paths.data_home == PathsSettings().data_home
    home = {"home": loaded.settings.paths.home}
    assert loaded.settings == Settings(paths=PathsSettings.model_validate(home))
    by_size = {f"model.{name}" for name in SIZES["base"]}
    assert {loaded.origin[option] for option in OPTIONS.keys() - by_size} == {"./emogen.toml"}
