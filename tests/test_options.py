from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
import typer

from emogen.cli.options import EVERYDAY, EXPERT, settings_options
from emogen.errors import UsageError
from emogen.settings import OPTIONS, Settings

seen: list[tuple[str, bool, Settings]] = []
app = typer.Typer(add_completion=False)


@app.command()
@settings_options("model", "train", "paths.runs")
def learn(
    name: Annotated[str, typer.Argument(help="A name.")] = "nobody",
    *,
    settings: Settings,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew.")] = False,
) -> None:
    """Learn."""
    seen.append((name, fresh, settings))


@pytest.fixture(autouse=True)
def nothing_seen(nobody: None) -> None:
    seen.clear()


def learned(*arguments: str) -> tuple[str, bool, Settings]:
    app(list(arguments), standalone_mode=False)
    return seen[-1]


def help_text(capsys: pytest.CaptureFixture[str]) -> str:
    app(["--help"], standalone_mode=False)
    return capsys.readouterr().out


def test_without_flags_a_command_gets_the_defaults_and_its_own_parameters() -> None:
    assert learned() == ("nobody", False, Settings())
    assert learned("somebody", "--fresh") == ("somebody", True, Settings())


def test_flags_reach_the_settings() -> None:
    given = learned("--epochs", "3", "--size", "tiny", "--max-seq-len", "64", "--compile", "--runs", "elsewhere")[2]
    assert (given.train.epochs, given.model.size, given.model.context_notes) == (3, "tiny", 64)
    assert (given.train.compile, given.paths.runs) == (True, Path("elsewhere"))


def test_a_switch_can_be_turned_off_that_a_file_turns_on() -> None:
    Path("emogen.toml").write_text("[train]\ncompile = true\n")
    assert learned()[2].train.compile
    assert not learned("--no-compile")[2].train.compile


def test_the_settings_refuse_what_a_flag_gives() -> None:
    with pytest.raises(UsageError, match=r"^flag --epochs: train.epochs = 0 should be greater"):
        learned("--epochs", "0")
    with pytest.raises(UsageError, match=r"^flag --precision: train.precision = int4 should be 'auto', 'bf16' or"):
        learned("--precision", "int4")
    with pytest.raises(UsageError, match=r"^flag --max-seq-len: model.context_notes = long should be a valid integer"):
        learned("--max-seq-len", "long")


def test_help_shows_each_option_with_its_words_choices_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(help_text(capsys).split())
    assert "--epochs <int> Passes over the training windows. [default: 50]" in text
    assert "--precision <name> Arithmetic of the forward pass" in text
    assert "[auto, bf16, float32; default: auto]" in text
    assert "[default: no]" in text


def test_help_folds_what_only_experts_set_and_leaves_out_what_was_not_chosen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert set(OPTIONS) >= EVERYDAY
    text = help_text(capsys)
    everyday, expert = text.split(f"─ {EXPERT} ─")
    for flag in ("--fresh", "--epochs", "--size"):
        assert flag in everyday
    for flag in ("--learning-rate", "--d-model", "--runs"):
        assert flag in expert
    assert "--temperature" not in text
    assert "--home" not in text
    assert text.count("--seed ") == 1
