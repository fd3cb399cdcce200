"""A run: the folder of one training, with its lock, settings, logs and checkpoints; and how it is stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from tempfile import gettempdir
from types import FrameType, TracebackType
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from emogen.errors import EmogenError, UsageError
from emogen.model.checkpoint import Meta
from emogen.settings import REMOVED, Loaded, Settings, flag
from emogen.system import files
from emogen.system.signals import ENDING

FREE_ON_RESUME = frozenset(
    f"train.{name}"
    for name in (
        "epochs", "accumulate", "device", "threads", "processes", "compile", "patience", "checkpoint_every",
        "keep_periodic", "keep_best", "save_every_s",
    )
)  # fmt: skip
"""Options that may change when a run resumes; any other option of model or train would make it another training."""


FREE_ON_INIT = frozenset({"model.context_notes", "model.chart"})
"""What of a checkpoint's model may be changed by who begins from it: what is no weight, and what can be added to them.
(Dropout never is its own.)"""


class Run:
    """The folder of one training, held by one process at a time (use it in a ``with`` statement)."""

    def __init__(self, runs: Path, name: str) -> None:
        self.folder = runs / name
        self.checkpoints = self.folder / "checkpoints"
        self._lock = FileLock(self.folder / ".lock", timeout=0)

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.name

    def __enter__(self) -> Run:
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise EmogenError(
                f"run '{self.name}' is in use by another process", "wait until it is done, or use another run (--name)"
            ) from None
        for folder in (self.folder, self.checkpoints):
            for left in folder.glob(".*.tmp"):  # left by a process that was killed while writing
                shutil.rmtree(left, ignore_errors=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def set_aside(self) -> Path | None:
        """Rename the folder of the run, so that it can start again and nothing is lost; None if it is empty."""
        if not any(path.is_file() for path in self.folder.rglob("[!.]*")):
            return None
        with self:  # not while it is being trained
            names = (self.folder.with_name(f"{self.name}-{number}") for number in count(1))
            aside = next(path for path in names if not path.exists())
        return self.folder.rename(aside)

    def agreed(self, loaded: Loaded, begun: Meta) -> Settings:
        """The settings to resume with: those of the checkpoint, changed by flags alone.

        Raises:
            UsageError: a flag that would make it another training.
            EmogenError: another version of emogen started the run, with options that this one does not have.
        """
        kept = {"model": begun.model.model_dump(mode="json"), "train": begun.train}
        return _kept(
            loaded, kept, FREE_ON_RESUME, f"run '{self.name}' was begun with",
            "leave the flag out to resume, start another run with --name, or this one again with --fresh",
        )  # fmt: skip

    def begin(self, settings: Settings) -> None:
        """Write the settings of the run to a file, for people; resuming uses those in the checkpoint."""
        text = settings.model_dump_json(include={"model", "train"}, indent=1)
        files.write_text(self.folder / "settings.json", text)
        self.mend()

    def keep(self) -> None:
        """Make the folder again where somebody removed it; where that is impossible, go on in another one."""
        for folder in (self.folder, Path(gettempdir()) / f"emogen-run-{self.name}"):
            try:
                (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            except OSError:
                continue
            self.folder, self.checkpoints = folder, folder / "checkpoints"
            return

    def mend(self) -> None:
        """Leave out of ``log.jsonl`` what is not an epoch: a line cut by a full disk or a power failure."""
        path = self.folder / "log.jsonl"
        if path.exists():
            content = path.read_bytes()
            lines = content.decode(errors="replace").splitlines()
            mended = "".join(f"{line}\n" for line in lines if _is_epoch(line))
            if mended.encode() != content:  # also where a byte that is no text was replaced
                files.write_text(path, mended)
                self.say("log.jsonl was damaged: lines that were not whole are left out")

    def say(self, text: str) -> None:
        """Add a line to ``log.txt``, for people (``tail -f``)."""
        self.keep()
        with (self.folder / "log.txt").open("a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def record(self, facts: Mapping[str, Any]) -> None:
        """Add a line to ``log.jsonl``, for machines; it is on the disk before the next one.

        If an epoch has several lines, the last one counts: a run that was killed, or resumed from further back, repeats
        some epochs.
        """
        self.keep()
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps({**facts, "time": datetime.now(UTC).isoformat(timespec="seconds")}) + "\n")
            log.flush()
            os.fsync(log.fileno())


def _is_epoch(line: str) -> bool:
    try:
        return isinstance(json.loads(line)["epoch"], int)
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


def begun_from(init: Meta, name: str, loaded: Loaded) -> Settings:
    """The settings of a training that starts with the weights of the checkpoint ``name``: its model, all else new.

    Raises:
        UsageError: a flag that asks for another model.
    """
    shape = init.model.model_dump(mode="json", exclude={"dropout"})
    hint = "leave the flag out, or leave out --init to start with random weights"
    return _kept(loaded, {"model": shape}, FREE_ON_INIT, f"checkpoint '{name}' has", hint)


def _kept(
    loaded: Loaded, kept: Mapping[str, Mapping[str, Any]], free: frozenset[str], whose: str, hint: str
) -> Settings:
    """The loaded settings with the options in ``kept`` (by section) restored; flags may change those in ``free``."""
    tree = loaded.settings.model_dump(mode="json")
    clashes = []
    for section, options in kept.items():
        for name, value in options.items():
            option = f"{section}.{name}"
            if option in REMOVED:
                continue
            if not loaded.origin.get(option, "").startswith("flag"):
                tree[section][name] = value
            elif tree[section][name] != value and option not in free:
                clashes.append(f"{flag(option)} {value} (not {tree[section][name]})")
    if clashes:
        raise UsageError(f"{whose} {', '.join(clashes)}", hint)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise EmogenError(f"{whose} a {where} that this emogen does not know", hint) from None


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C, SIGTERM or SIGHUP sets, so that a step can be completed.

    A second Ctrl-C interrupts. A signal that is ignored (SIGHUP, by nohup) stays ignored.
    """
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    watched = (signal.SIGINT, *ENDING) if threading.current_thread() is threading.main_thread() else ()
    heeded = [number for number in watched if signal.getsignal(number) != signal.SIG_IGN]
    before: dict[int, Any] = {number: signal.signal(number, ask) for number in heeded}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
