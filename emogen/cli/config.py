"""``emogen config``: shows the settings, and writes a file to change them in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.markup import escape

from emogen.cli.console import console, echo, output
from emogen.cli.options import AsJson, Force, refuse_existing
from emogen.errors import EmogenError
from emogen.settings import LOCAL_CONFIG, OPTIONS, Settings, in_home, load, user_config
from emogen.system.files import write_text

app = typer.Typer(no_args_is_help=True)


@app.command()
def show(
    as_json: AsJson = False,
) -> None:
    """Show every option, its value, and where the value came from."""
    loaded = load()
    tree = loaded.settings.model_dump(mode="json")
    values: dict[str, Any] = {}
    for option in OPTIONS:
        section, _, name = option.partition(".")
        values[option] = tree[section][name]
    if as_json:
        report = {option: {"value": value, "origin": loaded.origin[option]} for option, value in values.items()}
        echo(json.dumps(report, indent=2))
        return
    rows = [
        (option, _toml(value) if value is not None else "-", loaded.origin[option]) for option, value in values.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for option, text, origin in rows:
        line = f"{option:<{widths[0]}}  {text:<{widths[1]}}  {origin}"
        chosen = origin != "default" and not origin.startswith("size ")
        output.print(escape(line), style="bold" if chosen else None, soft_wrap=True)
    for path in (LOCAL_CONFIG.absolute(), user_config()):
        console.print(escape(f"{'read' if path.exists() else 'not there:'} {path}"), soft_wrap=True)


@app.command()
def init(
    user: Annotated[
        bool, typer.Option("--user", help="Write your user configuration, which holds in every folder.")
    ] = False,
    force: Force = False,
) -> None:
    """Write a settings file with every option in it, commented out."""
    path = user_config() if user else LOCAL_CONFIG
    if user and not path.is_absolute():
        raise EmogenError("this user has no home folder to keep settings in", "leave --user out")
    refuse_existing([path], force)
    write_text(path, commented_file())
    console.print(escape(f"wrote {path}; remove the '#' from the options you want to set"), soft_wrap=True)


def commented_file() -> str:
    """A settings file (TOML) that lists every option with its help and default, commented out."""
    lines = [
        "# Settings of emogen. Remove the '#' from a line to set an option.",
        "# Flags and the environment (EMOGEN_TRAIN__EPOCHS=20) override this file; ./emogen.toml overrides",
        f"# the user's own file, {user_config()}.",
    ]
    for section, part in Settings.model_fields.items():
        lines += ["", "", f"# {type(part.default).__doc__}", f"[{section}]"]
        for name, field in type(part.default).model_fields.items():
            choices = ", ".join(_toml(choice) for choice in get_args(field.annotation) if isinstance(choice, str))
            unset = in_home("cache") if name == "home" else ""
            default = unset if field.default is None else field.default
            lines += ["", f"# {field.description}", *([f"# One of {choices}."] if choices else [])]
            lines += [f"#{name} = {_toml(default)}"]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """A value as TOML writes it."""
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
