"""``emogen doctor``: what somebody who helps needs to know, to be pasted into a bug report."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from rich.markup import escape

from emogen import __version__
from emogen.cli.console import echo, output
from emogen.cli.options import AsJson, settings_options
from emogen.errors import EmogenError
from emogen.settings import LOCAL_CONFIG, Settings, user_config

DISTRIBUTION = "emogen-piano"
Facts = dict[str, Any]


@settings_options("paths")
def doctor(as_json: AsJson = False, *, settings: Settings) -> None:
    """Show what a bug report needs: versions, devices, folders, runs.

    Your home folder is written as ~. Nothing is changed, and nothing is sent anywhere.
    """
    parts: dict[str, Callable[[], Facts]] = {
        "versions": _versions,
        "computer": _computer,
        "sound": lambda: _sound(settings),
        "folders": lambda: _folders(settings),
        "prepared data": lambda: _prepared(settings),
        "runs": lambda: _runs(settings),
    }
    report = {name: _tried(part) for name, part in parts.items()}
    if as_json:
        echo(json.dumps(report, indent=2))
        return
    for name, facts in report.items():
        output.print(escape(name), style="bold")
        width = max(map(len, facts), default=0)
        for fact, value in facts.items():
            output.print(escape(f"  {fact:<{width}}  {value}"), soft_wrap=True)
        if not facts:
            output.print("  none")


def _tried(part: Callable[[], Facts]) -> Facts:
    """A part of the report; where it fails, the report shows the error."""
    try:
        return part()
    except Exception as error:  # a failing part must not end the report
        return {"trouble": f"{type(error).__name__}: {error}"}


def _versions() -> Facts:
    facts = {"emogen": __version__, "Python": f"{platform.python_version()} ({_place(sys.executable)})"}
    try:
        named = requires(DISTRIBUTION) or []
    except PackageNotFoundError:  # run from its sources
        named = ["torch", "numpy", "typer", "pydantic", "pretty_midi", "safetensors"]
    for requirement in named:
        if "extra ==" not in requirement:
            name = re.split(r"[^\w.-]", requirement)[0]
            facts[name] = _version_of(name)
    return facts


def _version_of(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _computer() -> Facts:
    facts: Facts = {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()}
    if hasattr(os, "sched_getaffinity"):
        facts["cores allowed"] = len(os.sched_getaffinity(0))
    import torch

    from emogen.system.devices import default_threads, faster_in_bf16, pick_device

    facts["threads"] = f"{default_threads()} (0 in the settings), PyTorch's own {torch.get_num_threads()}"
    facts["devices"] = ", ".join(
        ["cpu"]
        + [f"cuda:{n} {torch.cuda.get_device_name(n)}" for n in range(torch.cuda.device_count())]
        + ["mps"] * torch.backends.mps.is_available()
    )
    device = pick_device("auto")
    arithmetic = {True: "bfloat16", False: "float32", None: "bfloat16 or float32, timed when a training begins"}
    facts["auto means"] = f"{device}, {arithmetic[faster_in_bf16(device)]}"
    return facts


def _processor() -> str:
    """The name of the processor, if the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _sound(settings: Settings) -> Facts:
    """What makes the sound, tried with a note."""
    try:
        import soundfile

        facts = {"soundfile": f"{soundfile.__version__} ({soundfile.__libsndfile_version__})"}
    except (ImportError, OSError) as error:  # OSError: without libsndfile
        facts = {"soundfile": f"no ({error})"}
    from emogen.sound import pianos
    from emogen.sound.render import engine_for

    font = settings.paths.soundfont
    try:
        engine = engine_for(font)
        font, facts["plays"] = engine.font, ", ".join(filter(None, (engine.name, engine.warning)))
        if engine.advice:
            facts["advice"] = engine.advice
    except EmogenError as error:
        facts["plays"] = f"nothing: {error}"
    facts["SoundFont"] = _place(font) if font else "none"
    facts["installed"] = ", ".join(map(_place, pianos.installed())) or "none"
    return facts


def _folders(settings: Settings) -> Facts:
    facts = {}
    for name, folder in (("data", settings.paths.data_home), ("runs", settings.paths.runs), ("here", Path.cwd())):
        there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
        free = f"{shutil.disk_usage(there).free / 1e9:.1f} GB free"
        state = "" if there == folder.absolute() else ", not there yet"
        facts[name] = f"{_place(folder)} ({free}{'' if os.access(there, os.W_OK) else ', not writable'}{state})"
    for path in (LOCAL_CONFIG.absolute(), user_config()):
        facts["settings here" if path.name == LOCAL_CONFIG.name and path.parent == Path.cwd() else "your settings"] = (
            f"{_place(path)} ({'read' if path.exists() else 'not there'})"
        )
    set_ = sorted(name for name in os.environ if name.startswith(("EMOGEN_", "OMP_", "CUDA_", "PYTORCH_")))
    facts["variables"] = ", ".join(f"{name}={_place(os.environ[name])}" for name in set_) or "none"
    return facts


def _prepared(settings: Settings) -> Facts:
    from emogen.data.corpus import open_corpus

    facts = {}
    for manifest in sorted(settings.paths.data_home.glob("*/manifest.json")):
        try:
            prepared = open_corpus(settings.paths.data_home, manifest.parent.name)
        except EmogenError as error:
            facts[manifest.parent.name] = str(error)
        else:
            facts[manifest.parent.name] = f"{len(prepared.emotion):,} clips, {len(prepared.tokens):,} notes"
    return facts


def _runs(settings: Settings) -> Facts:
    from emogen.model.checkpoint import read_meta
    from emogen.training.shelf import all_in, runs_in

    facts = {}
    for run in runs_in(settings.paths.runs):
        paths = all_in(run / "checkpoints")
        try:
            meta = read_meta(paths[0])
        except EmogenError as error:
            facts[run.name] = str(error)
        else:
            loss = f"{meta.valid_loss:.4f}" if meta.valid_loss is not None else "unknown"
            told = f"{paths[0].name} of {meta.parameters / 1e6:.1f} M parameters, valid loss {loss}"
            facts[run.name] = f"{len(paths)} checkpoints, such as {told}"
    return facts


def _place(path: str | Path) -> str:
    """A path with the home folder written as ~."""
    text, home = str(path), os.path.expanduser("~")  # noqa: PTH111 (Path.home fails where there is none)
    return "~" + text[len(home) :] if text == home or text.startswith(home + os.sep) else text
