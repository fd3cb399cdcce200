from __future__ import annotations

import json
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from emogen import settings
from emogen.errors import EmogenError, UsageError
from emogen.model.checkpoint import Meta
from emogen.settings import OPTIONS, ModelSettings, Settings, TrainSettings, flag, load
from emogen.training.run import FREE_ON_RESUME, Run, stop_requested
from tests.tiny import composer, meta


@pytest.fixture(autouse=True)
def without_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for option in OPTIONS:
        monkeypatch.delenv(settings.variable(option), raising=False)
    monkeypatch.setattr(settings, "user_config_path", lambda *_, **__: tmp_path / "config")
    monkeypatch.chdir(tmp_path)


# ---- one process at a time


def test_a_run_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    run = Run(tmp_path, "main")
    with run:
        with (
            pytest.raises(EmogenError, match="run 'main' is in use by another process") as caught,
            Run(tmp_path, "main"),
        ):
            pass
        assert "--name" in caught.value.hint
        with Run(tmp_path, "other"):
            pass
    with Run(tmp_path, "main") as again:
        assert again.checkpoints.is_dir()


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    run = Run(tmp_path, "main")
    whole = run.checkpoints / "epoch_001"
    whole.mkdir(parents=True)
    for folder in (run.folder, run.checkpoints):
        (folder / ".epoch_002.x1.tmp" / "epoch_002").mkdir(parents=True)
        (folder / ".epoch_002.x1.tmp" / "epoch_002" / "weights.safetensors").write_text("half")
    with run:
        assert [path.name for path in run.checkpoints.iterdir()] == ["epoch_001"]
        assert not list(run.folder.glob(".*.tmp"))


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    run = Run(tmp_path, "main")
    half = run.checkpoints / ".epoch_002.x1.tmp"
    half.mkdir(parents=True)
    with FileLock(run.folder / ".lock"), pytest.raises(EmogenError, match="in use"), run:
        pass
    assert half.is_dir()


# ---- setting aside


def test_setting_aside_renames_a_run_and_loses_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, "main")
    for number in (1, 2):
        (run.checkpoints / "epoch_001").mkdir(parents=True)
        (run.checkpoints / "epoch_001" / "weights").write_text(f"weights {number}")
        run.say("hello")
        aside = run.set_aside()
        assert aside == tmp_path / f"main-{number}"
        assert not run.folder.exists()
        assert (aside / "checkpoints" / "epoch_001" / "weights").read_text() == f"weights {number}"
        assert (aside / "log.txt").read_text().endswith("hello\n")


def test_an_empty_run_needs_no_setting_aside(tmp_path: Path) -> None:
    run = Run(tmp_path, "main")
    assert run.set_aside() is None
    with run:
        pass
    assert run.set_aside() is None
    assert [path.name for path in tmp_path.iterdir()] == ["main"]


def test_a_run_in_use_is_not_set_aside(tmp_path: Path) -> None:
    run = Run(tmp_path, "main")
    with Run(tmp_path, "main") as user:
        user.say("busy")
        with pytest.raises(EmogenError, match="in use"):
            run.set_aside()
    assert [path.name for path in tmp_path.iterdir()] == ["main"]


# ---- settings


def begun(**train: Any) -> Meta:
    """A checkpoint's facts: made with a tiny network and some options of training."""
    whole = TrainSettings(batch_size=4, seed=7, epochs=3, **train).model_dump(mode="json")
    return meta(composer()).model_copy(update={"train": whole})


def agreed(flags: dict[str, dict[str, Any]], of: Meta) -> Settings:
    return Run(Path("runs"), "main").agreed(load(flags), of)


def test_going_on_takes_the_settings_of_the_checkpoint() -> None:
    of = begun()
    Path("emogen.toml").write_text("[train]\nbatch_size = 64\nepochs = 9\n[model]\nd_model = 128\n")
    found = agreed({}, of)
    assert found.model == of.model
    assert found.train == TrainSettings(batch_size=4, seed=7, epochs=3)


def test_options_that_are_gone_since_a_run_began_are_in_nobodys_way() -> None:
    of = begun()
    before = of.model_copy(update={"train": of.train | {"tensorboard": True}})
    assert agreed({}, before) == agreed({}, of)


def test_other_sections_are_those_of_today() -> None:
    assert agreed({"paths": {"runs": "elsewhere"}}, begun()).paths.runs == Path("elsewhere")


@pytest.mark.parametrize("option", sorted(FREE_ON_RESUME))
def test_these_flags_may_change_when_a_run_goes_on(option: str) -> None:
    name = option.removeprefix("train.")
    value = {"device": "cpu", "compile": True, "save_every_s": 2.5}.get(name, 17)
    found = agreed({"train": {name: value}}, begun())
    assert getattr(found.train, name) == value
    assert found.train == TrainSettings.model_validate(begun().train | {name: value}), "nothing else has changed"


OTHERS: dict[str, Any] = {
    "size": "small", "precision": "bf16", "learning_rate": 0.5, "weight_decay": 0.5, "grad_clip": 0.5, "dropout": 0.5,
    "drop_emotion": 0.6, "drop_plan": 0.6, "drop_plan_entry": 0.6, "drop_remaining": 0.6, "n_heads": 4, "d_model": 128,
    "chart": True, "drop_chart": 0.6, "drop_chords": 0.6, "drop_beat": 0.6, "drop_beat_at_note": 0.6,
    "drop_recall": 0.6,
}  # fmt: skip
"""A value of an option that is another than that of ``begun``; 3 for those not here."""


@pytest.mark.parametrize(
    "option", [name for name in OPTIONS if name.startswith(("model.", "train.")) and name not in FREE_ON_RESUME]
)
def test_every_other_flag_would_make_another_training_and_is_refused(option: str) -> None:
    section, _, name = option.partition(".")
    value = OTHERS.get(name, 3)
    with pytest.raises(UsageError, match=f"begun with {flag(option)} .* \\(not {value}\\)$") as caught:
        agreed({section: {name: value}}, begun())
    assert "--fresh" in caught.value.hint


def test_all_flags_that_clash_are_named() -> None:
    with pytest.raises(
        UsageError, match=r"begun with --d-model 32 \(not 64\), --batch-size 4 \(not 5\), --seed 7 \(not 8\)"
    ):
        agreed({"train": {"batch_size": 5, "seed": 8, "epochs": 9}, "model": {"d_model": 64}}, begun())


def test_a_flag_that_repeats_what_the_run_has_is_fine() -> None:
    flags: dict[str, dict[str, Any]] = {"train": {"batch_size": 4, "seed": 7}, "model": {"d_model": 32, "size": "tiny"}}
    assert agreed(flags, begun()).train.batch_size == 4


def test_a_size_may_be_named_again_without_the_numbers_that_differ_from_it() -> None:
    assert agreed({"model": {"size": "tiny"}}, begun()).model.d_model == 32


def test_options_of_another_version_are_refused_by_name() -> None:
    of = begun()
    of = of.model_copy(update={"train": {**of.train, "moon_phase": 3}})
    with pytest.raises(EmogenError, match=r"begun with a train\.moon_phase that this emogen does not know") as caught:
        agreed({}, of)
    assert "--name" in caught.value.hint


def test_options_that_did_not_exist_yet_take_their_defaults() -> None:
    of = begun()
    of = of.model_copy(update={"train": {name: value for name, value in of.train.items() if name != "drop_plan"}})
    assert agreed({}, of).train.drop_plan == TrainSettings().drop_plan


def test_the_settings_are_written_down(tmp_path: Path) -> None:
    with Run(tmp_path, "main") as run:
        run.begin(Settings(model=ModelSettings(size="small"), train=TrainSettings(epochs=9)))
        run.begin(Settings(model=ModelSettings(size="tiny"), train=TrainSettings(epochs=8)))
    stored = json.loads((run.folder / "settings.json").read_text())
    assert stored.keys() == {"model", "train"}
    assert (stored["model"]["d_model"], stored["train"]["epochs"]) == (128, 8)
    assert sorted(path.name for path in run.folder.glob("[!.]*")) == ["checkpoints", "settings.json"]


# ---- logs


def test_lines_for_people_have_their_time(tmp_path: Path) -> None:
    with Run(tmp_path, "main") as run:
        run.say("epoch 1 – läuft")
        run.say("epoch 2")
    lines = (run.folder / "log.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d epoch 1 – läuft", lines[0])


def test_lines_for_machines_are_json_with_their_time(tmp_path: Path) -> None:
    with Run(tmp_path, "main") as run:
        run.record({"epoch": 1, "valid": 0.1})
        run.record({"epoch": 2, "valid": 0.2})
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["valid"]) for line in lines] == [(1, 0.1), (2, 0.2)]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", line["time"]) for line in lines)


# ---- stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ctrl_c_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_requested() as stop:
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.is_set()
        signal.raise_signal(signal.SIGTERM)  # asking twice is no order
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_training_in_the_background_heeds_no_ctrl_c_but_ends_when_it_is_asked_to() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts a background job
    with stop_requested() as stop:
        signal.raise_signal(signal.SIGINT)
        assert not stop.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_signals_are_as_before_when_training_fails() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), stop_requested():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before


def test_a_training_in_a_thread_leaves_signals_alone() -> None:
    seen = []

    def train() -> None:
        with stop_requested() as stop:
            seen.append((stop.is_set(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [(False, signal.getsignal(signal.SIGINT))]
