"""The command line: reads what a user types, runs the command, and reports errors.

Exit codes: 0 done, 1 failed (with a hint), 2 usage error, 130 interrupted.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from emogen import __version__
from emogen.errors import EmogenError
from emogen.system.files import disk_of, shown
from emogen.system.signals import end_in_order

COMMANDS = {
    "prepare": "Read a corpus of labelled MIDI files and make it ready for training.",
    "train": "Train a model on the prepared corpus, or resume a training that stopped.",
    "generate": "Compose pieces for an emotion and an exact length.",
    "vary": "Compose a piece again on its own bars and chords: all of it, a section, or some seconds.",
    "extend": "Let a piece go on in its manner, to a length.",
    "evaluate": "Measure a checkpoint, or any system's pieces: obedience, musicality, memory, coherence.",
    "judge": "Judge the emotion and the coherence of MIDI files.",
    "play": "Open a page that plays MIDI files, without writing beside them.",
    "render": "Write sound, pictures and pages of MIDI files.",
    "listening-test": "Write a blind listening test, and score its answers.",
    "show": "Show what a MIDI file contains and how emogen made it.",
    "ckpt": "List, show, export and prune checkpoints.",
    "config": "Show the settings and where each comes from, or write a settings file.",
    "doctor": "Show what a bug report needs: versions, devices, folders, runs.",
}
"""The commands in the order of ``--help``; each lives in the module of its name, as its ``app`` or as a function."""

LIBRARY_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # numpy would start a thread per core, and no command has work for them
    "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads do not spin: on a busy machine steps are many times faster
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",  # each length of a batch leaves a primitive: 1,024 of them take gigabytes
}
"""Environment variables that NumPy and torch read when they are imported; the user's own values are kept."""

FULL = "make room on that disk, or choose a folder on another"
HINTS = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.ENOENT: "check the path: a folder or file of it is not there",
    errno.EACCES: "choose a place where you may read and write, or change its permissions",
    errno.EPERM: "choose a place where you may read and write, or change its permissions",
    errno.EROFS: "choose a place that can be written to",
}
"""Hints for errors of the operating system."""


class LateCommands(TyperGroup):
    """Imports a command's module when that command is called: ``emogen --help`` imports none of them, and is quick."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Replace the one-line stand-in by the real command."""
        name = args[0]
        if name in COMMANDS:
            python_name = name.replace("-", "_")
            module = import_module(f"emogen.cli.{python_name}")
            real = typer.Typer()
            if hasattr(module, "app"):
                real.add_typer(module.app, name=name, help=COMMANDS[name])
            else:
                real.command(name)(getattr(module, python_name))
            self.commands[name] = _name_no_type_of_switches(typer.main.get_group(real).commands[name], ctx)
        return super().resolve_command(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        """The options of ``emogen`` itself."""
        return [_without_type(one) for one in super().get_params(ctx)]


def _name_no_type_of_switches(command: Any, ctx: Any) -> Any:
    """A command whose help, and that of its subcommands, prints no ``<bool>`` behind ``--force``."""
    for one in command.get_params(ctx):
        _without_type(one)
    for part in getattr(command, "commands", {}).values():
        _name_no_type_of_switches(part, ctx)
    return command


def _without_type(option: Any) -> Any:
    if getattr(option, "is_flag", False):
        option.metavar = ""
    return option


app = typer.Typer(
    name="emogen",
    cls=LateCommands,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for _name, _help in COMMANDS.items():
    app.command(_name, help=_help)(lambda: None)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"emogen {__version__}")
        raise typer.Exit


@app.callback()
def emogen(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Compose piano music for an emotion and an exact length."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``emogen`` with some arguments (default: those of the process) and exit."""
    for name, value in LIBRARY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _open_streams()
    end_in_order()
    try:
        code = app(arguments, prog_name="emogen", standalone_mode=False)
        sys.stdout.flush()
    except EmogenError as error:
        code = _complain(str(error), error.hint, error.exit_code)
    except typer.TyperException as error:  # the command line is wrong
        context = getattr(error, "ctx", None)
        hint = f"see `{context.command_path} --help`" if context else ""
        message = error.format_message()
        code = _complain(message[:1].lower() + message[1:], hint, error.exit_code) if message else error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except OSError as error:
        code = 1
        if error.errno != errno.EPIPE:  # the reader of our output may leave, as `head` does
            message = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
            _complain(message, _hint(error), code)
        with suppress(OSError):  # the rest is never written: nothing may try at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except MemoryError:
        code = _complain("out of memory", "close other programs, or ask for less at a time", 1)
    sys.exit(code)


def _open_streams() -> None:
    """Reopen streams that the caller closed: otherwise the next file to be opened would take their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may not be text


def _hint(error: OSError) -> str:
    """Hints for errors of the operating system."""
    hint = HINTS.get(error.errno or 0, "")
    if hint == FULL and error.filename:
        hint = hint.replace("that disk", f"the disk {disk_of(Path(error.filename))}")
    return hint


def _complain(message: str, hint: str, code: int) -> int:
    for kind, text in (("error", message), ("hint", hint)):
        if text:
            typer.echo(f"{kind}: {shown(text)}", err=True)
    return code
