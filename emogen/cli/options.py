"""Flags made from the settings, so that an option's name, range, default and help are written once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from emogen.settings import OPTIONS, Settings, flag, load

Command = Callable[..., None]


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


def _parameter_name(option: str) -> str:
    return option.replace(".", "__")  # no command has a parameter of its own by such a name


def _parameter(option: str) -> inspect.Parameter:
    """The Typer parameter of an option: its value as given, or None.

    Numbers and choices stay strings here, so that the settings check them.
    """
    field, name = OPTIONS[option], flag(option)
    kind = next(one for one in (*get_args(field.annotation), field.annotation) if one is not type(None))
    default, metavar, complete = field.default, None, None
    if get_origin(field.annotation) is Literal:
        choices = get_args(field.annotation)
        kind, metavar = str, f"<{'|'.join(choices)}>"
        complete = lambda incomplete: [one for one in choices if one.startswith(incomplete)]  # noqa: E731
    elif kind is bool:
        name += "/--no-" + name.removeprefix("--")
        default = "yes" if default else "no"
    elif kind is not Path:
        kind, metavar = str, f"<{kind.__name__}>"

    shown = "" if default is None else f" [default: {default}]"
    info = typer.Option(
        None,
        name,
        help=f"{field.description}{shown}".replace("[", "\\["),  # no markup is meant
        metavar=metavar,
        autocompletion=complete,
        show_default=False,
        rich_help_panel=(Settings.model_fields[option.partition(".")[0]].annotation.__doc__ or "").partition(".")[0],
    )
    return inspect.Parameter(
        _parameter_name(option), inspect.Parameter.KEYWORD_ONLY, default=info, annotation=kind | None
    )
