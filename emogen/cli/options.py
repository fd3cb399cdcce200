"""Flags made from the settings, so that an option's name, range, default and help are written once.

Also what several commands share: the flags ``--force`` and ``--json``, and the refusal to replace files unasked.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from emogen.errors import EmogenError
from emogen.settings import OPTIONS, flag, load
from emogen.system.files import check_place

Command = Callable[..., None]


M_SS = "<m:ss>"
"""How options that take seconds are shown."""


def seconds_of(text: str | float) -> float:
    """Seconds, written "90", "90.5" or "1:30".

    Raises:
        BadParameter: it is neither.
    """
    clock = re.fullmatch(r"(\d+):([0-5]?\d(?:\.\d+)?)", str(text).strip())
    try:
        return 60 * int(clock[1]) + float(clock[2]) if clock else float(text)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not a time, such as 90 seconds or 1:30") from None


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]

EVERYDAY = {
    "paths.soundfont", "model.size", "train.epochs", "train.batch_size", "train.patience",
    "train.device", "sample.temperature", "sample.guidance",
}  # fmt: skip
"""The options that ``--help`` shows among a command's own flags; all others stand below, in the panel ``EXPERT``."""
EXPERT = "Expert options"


def settings_options(*chosen: str) -> Callable[[Command], Command]:
    """Give a command one optional flag for each chosen option of the settings.

    The command's parameter ``settings`` receives the settings loaded from those flags and every other source; a
    parameter ``loaded`` instead also tells where each value came from. Its other parameters stay ordinary Typer ones.
    Values are checked by the settings alone, wherever they come from.

    Args:
        chosen: sections (``"train"``) and single options (``"paths.runs"``).
    """
    options = [option for option in OPTIONS if option in chosen or option.partition(".")[0] in chosen]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(**values: Any) -> None:
            flags: dict[str, dict[str, Any]] = {}
            for option in options:
                value = values.pop(_parameter_name(option))
                if value is not None:
                    section, _, name = option.partition(".")
                    flags.setdefault(section, {})[name] = value
            loaded = load(flags)
            command(**values, **({"settings": loaded.settings} if "settings" in own else {"loaded": loaded}))

        own = inspect.signature(command, eval_str=True).parameters
        kept = [one for name, one in own.items() if name not in ("settings", "loaded")]
        parameters = kept + [_parameter(option) for option in options]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate


def refuse_existing(files: Sequence[Path], force: bool, otherwise: str = "") -> None:
    """Refuse to replace files, unless ``force``; ``otherwise`` is what else one could do, or should know.

    Raises:
        EmogenError: one or several of them exist, or one could not be written, see ``files.check_place``.
    """
    for file in files:
        check_place(file)
    there = [] if force else [file for file in files if file.exists()]
    if there:
        if len(there) == 1:
            raise EmogenError(f"{there[0]} exists already", f"--force replaces it{otherwise}")
        raise EmogenError(f"{there[0]} and {len(there) - 1} more exist already", f"--force replaces them{otherwise}")


def _parameter_name(option: str) -> str:
    return option.replace(".", "__")  # no command's own parameter is called so


def _parameter(option: str) -> inspect.Parameter:
    """The Typer parameter of an option: its value as given, or None.

    Numbers and choices stay strings here, so that the settings check them.
    """
    field, name = OPTIONS[option], flag(option)
    kind = next(one for one in (*get_args(field.annotation), field.annotation) if one is not type(None))
    default, metavar, complete = field.default, None, None
    choices: tuple[str, ...] = ()
    if get_origin(field.annotation) is Literal:
        choices = get_args(field.annotation)
        kind, metavar = str, "<name>"
        complete = lambda incomplete: [one for one in choices if one.startswith(incomplete)]  # noqa: E731
    elif kind is bool:
        name += "/--no-" + name.removeprefix("--")
        default = "yes" if default else "no"
    elif kind is not Path:
        kind, metavar = str, f"<{kind.__name__}>"

    facts = [", ".join(choices)] * bool(choices) + [f"default: {default}"] * (default not in (None, ""))
    shown = f" [{'; '.join(facts)}]" if facts else ""
    info = typer.Option(
        None,
        name,
        help=f"{field.description}{shown}".replace("[", "\\["),  # brackets are not markup
        metavar=metavar,
        autocompletion=complete,
        show_default=False,
        rich_help_panel=None if option in EVERYDAY else EXPERT,
    )
    return inspect.Parameter(
        _parameter_name(option), inspect.Parameter.KEYWORD_ONLY, default=info, annotation=kind | None
    )
