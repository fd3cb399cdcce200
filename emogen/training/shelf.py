"""The shelf of checkpoints: how those of a run are named, found, kept and removed, and which one the user asks for.

A checkpoint's name says what it is (``NAMES``); users say ``last`` and ``best``. A newer ``last`` supersedes the one
before it, which is removed only then, so there is a whole ``last`` at every moment. Checkpoints are sorted
by name, so a damaged one does no harm. What is inside one is the affair of ``model/checkpoint``; torch is not needed.
"""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path

from emogen.emotion import suggest
from emogen.errors import EmogenError, UsageError
from emogen.model.checkpoint import VOICE, VOICES, WEIGHTS, Meta, read_meta
from emogen.system import files
from emogen.system.files import shown

NAMES = {
    "last": "last_epoch_{epoch:03d}_step_{step:08d}",
    "epoch": "epoch_{epoch:03d}",
    "best": "best_epoch_{epoch:03d}_loss_{loss:.4f}",
}
"""Names of checkpoints of each kind, from the epochs completed, the steps taken and the valid loss."""

NUMBER = r"\d+(?:\.\d+)?"
PATTERNS = {kind: re.sub(r"{.*?}", lambda _: NUMBER, name) for kind, name in NAMES.items()}
RESUMABLE = ("last", "epoch")
"""The kinds from which training can resume."""


def name(kind: str, meta: Meta) -> str:
    """The name of a checkpoint of a kind (``last``, ``epoch`` or ``best``)."""
    return NAMES[kind].format(epoch=meta.epoch, step=meta.step, loss=meta.valid_loss)


def found(folder: Path, kind: str) -> list[Path]:
    """The checkpoints of a kind in a folder, the latest first, or of ``best`` the best first."""
    paths = [path for path in folder.glob(f"{kind}_*") if re.fullmatch(PATTERNS[kind], path.name)]
    if kind == "best":
        return sorted(paths, key=lambda path: _numbers(path)[::-1])
    return sorted(paths, key=_numbers, reverse=True)


def _numbers(path: Path) -> tuple[float, ...]:
    """The numbers in the name of a checkpoint: the epochs completed first."""
    return tuple(map(float, re.findall(NUMBER, path.name)))


def all_in(folder: Path) -> list[Path]:
    """All checkpoints in a folder, kind by kind."""
    return [path for kind in ("best", "epoch", "last") for path in found(folder, kind)]


def rotate(folder: Path, kind: str, keep: int) -> None:
    """Remove all but ``keep`` checkpoints of a kind, in the order of ``found``."""
    for path in found(folder, kind)[keep:]:
        files.remove(path)


def resumable(folder: Path) -> list[Path]:
    """The checkpoints in a folder from which training can resume, the furthest first."""
    return sorted((path for kind in RESUMABLE for path in found(folder, kind)), key=_numbers, reverse=True)


def resume_from(folder: Path, name: str = "") -> Path | None:
    """The checkpoint in a run's folder of checkpoints to resume from: the latest, or the one of a name; None to begin.

    Raises:
        EmogenError: there is none of that name, or (a UsageError) it cannot be resumed from.
    """
    there = resumable(folder)
    if there and name in ("", "last"):
        return there[0]
    if not name:
        return None
    if name.startswith("best"):
        raise UsageError("the best checkpoints hold weights only", "resume from one named last or epoch")
    for path in there:
        if path.name == name:
            return path
    names = [path.name for path in there]
    hint = f"{suggest(name, names)} there are: {', '.join(names) or 'none'}".strip()
    raise EmogenError(f"run '{folder.parent.name}' has no checkpoint '{name}' to resume from", hint)


def set_aside_after(path: Path) -> Path | None:
    """Move the checkpoints beside ``path`` that are further than it into a new folder; None if there are none.

    Training then continues from ``path`` as if they had never existed, and nothing is lost.
    """
    folder, here = path.parent, read_meta(path)
    further = [last for last in found(folder, "last") if _numbers(last) > (here.epoch, here.step)]
    further += [one for kind in ("epoch", "best") for one in found(folder, kind) if _numbers(one)[0] > here.epoch]
    if not further:
        return None
    aside = next(free for number in count(1) if not (free := folder / f"set-aside-{number}").exists())
    aside.mkdir()
    for other in further:
        other.rename(aside / other.name)
    return aside


def runs_in(runs: Path) -> list[Path]:
    """The run folders that hold a checkpoint, the one trained last first."""
    saved_at = {
        folder.parent: max(map(_saved_at, all_in(folder)), default=0.0) for folder in runs.glob("*/checkpoints")
    }
    return sorted((run for run in saved_at if saved_at[run]), key=lambda run: saved_at[run], reverse=True)


def _saved_at(path: Path) -> float:
    """When a checkpoint was written, in s; 0 if it has just been superseded."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def unasked(runs: Path) -> tuple[Path, str]:
    """The checkpoint to compose with if nobody names one, and why, in words that follow its name.

    The best of the run trained last, unless the bundled voice needs fewer nats on the same validation clips; else the
    bundled voice.
    """
    best = next((path for run in runs_in(runs) for path in found(run / "checkpoints", "best")), None)
    if best is None:
        return VOICE, ""
    try:
        meta = read_meta(best)
    except EmogenError:  # which opening it will tell
        return best, ""
    if meta.voice_loss is None or meta.valid_loss is None:
        return best, ""
    run, own, voices = shown(meta.run), f"{meta.valid_loss:.2f}", f"{meta.voice_loss:.2f} nats per note"
    if meta.valid_loss < meta.voice_loss:
        return best, f"({own} on its validation songs; the bundled voice: {voices})"
    return (
        VOICE,
        f"({voices} on the validation songs of run '{run}', whose best has {own}: --checkpoint {run} takes it)",
    )


def resolve(name: str, runs: Path) -> Path:
    """The checkpoint that a user names.

    ``best``, ``last`` or a checkpoint's name are looked up in the run trained last; ``RUN/best`` in the run of that
    name; a run, by its name or folder, means its best; ``default`` and ``open`` are the bundled voices; anything else
    is the path of a checkpoint folder or of an exported ``.safetensors`` file. Nothing at all means what ``unasked``
    gives.

    Raises:
        EmogenError: there is none, with the command that makes one or the names there are.
    """
    if not name:
        return unasked(runs)[0]
    if name in VOICES:
        return VOICES[name]
    as_path = Path(name)
    if name not in ("best", "last") and ((as_path / WEIGHTS).is_file() or as_path.is_file()):
        return as_path
    if as_path.suffix == ".safetensors":
        raise EmogenError(f"there is no file {name}", "emogen ckpt export writes one")
    trained = runs_in(runs)
    run_names = [run.name for run in trained]
    if as_path.name and (as_path / "checkpoints").is_dir():
        named, which = [as_path], "best"
    elif name in run_names:
        named, which = [run for run in trained if run.name == name], "best"
    else:
        run_name, _, which = name.rpartition("/")
        named = [run for run in trained if not run_name or run.name == run_name]
        if not trained:
            hint = f"train one: emogen train; the bundled voices are called {' and '.join(VOICES)}"
            raise EmogenError(f"no checkpoint '{name}': there is no trained run in {runs}", hint)
        if not named:
            hint = f"{suggest(run_name, run_names)} the runs are {', '.join(run_names)}".strip()
            raise EmogenError(f"no run '{run_name}' in {runs}", hint)
    folder = named[0] / "checkpoints"
    if which in ("best", "last") and (paths := found(folder, which)):
        return paths[0]
    if which and (folder / which / WEIGHTS).is_file():
        return folder / which
    why = ", no epoch is complete yet" if which == "best" else ""
    names = [kind for kind in ("best", "last") if found(folder, kind)] + [path.name for path in all_in(folder)]
    hint = f"{suggest(which, [*names, *run_names])} there are {', '.join(names)}".strip()
    raise EmogenError(f"no checkpoint '{which}' in run '{named[0].name}'{why}", hint)


def label(path: Path, meta: Meta) -> str:
    """The name of a checkpoint in messages."""
    if path == VOICE:
        return "the bundled voice"
    if path == VOICES["open"]:
        return "the open voice"
    return f"{meta.run}/{shown(path.name)}" if path.is_dir() else shown(path.name)
