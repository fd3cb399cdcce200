"""``emogen ckpt``: list, show, export and prune checkpoints. None of it needs torch."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from emogen.cli.console import console, echo, output, table
from emogen.cli.options import AsJson, Force, refuse_existing, settings_options
from emogen.errors import EmogenError
from emogen.model import checkpoint
from emogen.model.checkpoint import Meta
from emogen.settings import Settings
from emogen.system import files
from emogen.training import shelf

app = typer.Typer(no_args_is_help=True)
Which = Annotated[
    str, typer.Argument(metavar="NAME", help="best, last, a checkpoint's name, RUN/best, a path, default or open.")
]


@app.command("list")
@settings_options("paths.runs")
def list_checkpoints(as_json: AsJson = False, *, settings: Settings) -> None:
    """List the checkpoints of all runs, newest run first, and mark the best of each."""
    rows = [row for run in shelf.runs_in(settings.paths.runs) for row in _rows(run)]
    if as_json:
        echo(json.dumps(rows, indent=2))
        return
    if not rows:
        console.print(f"no checkpoints in {settings.paths.runs}; emogen train makes some")
        return
    shown = table("run", "checkpoint", ">epoch", ">train", ">valid", ">size", ">age")
    for row in rows:
        losses = ("" if row[kind] is None else f"{row[kind]:.4f}" for kind in ("train", "valid"))
        numbers = (str(row["epoch"]), *losses, f"{row['bytes'] / 1e6:.1f} MB", _age(row["age_s"]))
        mark = " [bold]* best[/bold]" if row["best"] else ""
        shown.add_row(escape(row["run"]), escape(row["name"]) + mark, *numbers)
    output.print(shown)
    voices = {row["run"]: row["voice"] for row in rows if row["voice"] is not None}
    for run, loss in voices.items():
        console.print(
            escape(f"the bundled voice needs {loss:.4f} on the validation songs of run '{run}'"), soft_wrap=True
        )


def _rows(run: Path) -> list[dict[str, Any]]:
    """The facts about each checkpoint of a run; one that cannot be read is reported in a message."""
    rows: list[dict[str, Any]] = []
    best = shelf.found(run / "checkpoints", "best")[:1]
    for path in shelf.all_in(run / "checkpoints"):
        try:
            meta, size, age_s = checkpoint.read_meta(path), _bytes(path), round(time.time() - path.stat().st_mtime)
        except (EmogenError, FileNotFoundError) as error:  # damaged, or superseded this very moment
            if path.exists():
                console.print(escape(f"left out: {error}"), soft_wrap=True)
            continue
        rows.append(
            {
                "run": run.name,
                "name": path.name,
                "best": path in best,
                "epoch": meta.epoch,
                "step": meta.step,
                "train": meta.history[-1].train if meta.history else None,
                "valid": meta.valid_loss,
                "voice": meta.voice_loss,
                "bytes": size,
                "age_s": age_s,
                "path": str(path),
            }
        )
    return rows


def _bytes(path: Path) -> int:
    """Size of a checkpoint folder or of an exported file."""
    return sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))


@app.command()
@settings_options("paths.runs")
def show(which: Which = "best", as_json: AsJson = False, *, settings: Settings) -> None:
    """Show what a checkpoint contains: model, losses, data and settings."""
    path = shelf.resolve(which, settings.paths.runs)
    meta = checkpoint.read_meta(path)
    if as_json:
        echo(json.dumps({"path": str(path), **_plain(meta.model_dump(mode="json"))}, indent=2))
        return
    shown = table("", "", header=False)
    for name, value in _facts(path, meta).items():
        if value:
            shown.add_row(name, escape(value))
    output.print(shown)


def _plain(value: Any) -> Any:
    """A value as JSON has it: numbers that are none are null."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _facts(path: Path, meta: Meta) -> dict[str, str]:
    """What ``ckpt show`` prints, by name."""
    model = meta.model
    facts = {
        "checkpoint": str(path),
        "run": meta.run,
        "size": f"{_bytes(path) / 1e6:.1f} MB",
        "made": f"{meta.created} by emogen {meta.emogen}, torch {meta.torch}",
        "trained": f"{meta.epoch} epochs, {meta.step:,} steps",
        "model": f"{model.size}: {meta.parameters / 1e6:.1f} M parameters, d_model {model.d_model}, "
        f"{model.n_layers} layers, {model.n_heads} heads, context {model.context_notes} notes",
        "begun from": f"{meta.init}, trained on {', '.join(facts.name for facts in meta.ancestors)}"
        if meta.init
        else "",
        "emotions": ", ".join(meta.emotions),
        "vocabulary": meta.vocabulary,
        "data": f"{meta.dataset.name} ({', '.join(f'{n:,} {split}' for split, n in meta.dataset.clips.items())} clips)",
        "data fingerprint": meta.dataset.fingerprint,
        "training": ", ".join(f"{name} {value}" for name, value in meta.train.items()),
    }
    if meta.history:
        last = meta.history[-1]
        families = ", ".join(f"{name} {nats:.3f}" for name, nats in last.valid_by_family.items())
        facts |= {
            "train loss": f"{last.train:.4f} nats per note  {sparkline([loss.train for loss in meta.history])}",
            "valid loss": f"{last.valid:.4f} nats per note  {sparkline([loss.valid for loss in meta.history])}",
            "bundled voice": f"{meta.voice_loss:.4f} nats per note on the same songs" if meta.voice_loss else "",
            "valid by family": f"{families} (a quarter of the whole, {last.valid / 4:.4f}, compares to nats per token)",
        }
    return facts


@app.command()
@settings_options("paths.runs")
def export(
    which: Which,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The .safetensors file to write.")],
    half: Annotated[
        bool, typer.Option("--half", help="Write half precision: half the size, almost the same loss.")
    ] = False,
    force: Force = False,
    *,
    settings: Settings,
) -> None:
    """Write a checkpoint as one self-contained file, for generate --checkpoint FILE."""
    path = shelf.resolve(which, settings.paths.runs)
    checkpoint.load_arrays(path)  # raises if it is damaged
    if file.suffix != ".safetensors":
        file = file.with_name(file.name + ".safetensors")
    refuse_existing([file], force)
    with files.whole(file) as draft:
        if half:
            checkpoint.write_half(path, draft)
        else:
            shutil.copyfile(path / checkpoint.WEIGHTS if path.is_dir() else path, draft)
    said = f"{file}: {_bytes(file) / 1e6:.1f} MB; next: emogen generate --checkpoint {shlex.quote(str(file))}"
    console.print(escape(said), soft_wrap=True)


@app.command()
@settings_options("paths.runs")
def prune(
    run: Annotated[str, typer.Option(help="The run (default: the one trained last).")] = "",
    keep_best: Annotated[int, typer.Option(min=0, help="Best checkpoints to keep.")] = 1,
    keep_periodic: Annotated[int, typer.Option(min=0, help="Periodic checkpoints to keep.")] = 0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    *,
    settings: Settings,
) -> None:
    """Remove checkpoints of a run to free disk space; its last is always kept."""
    from emogen.training.run import Run

    folder = shelf.resolve(f"{run}/last" if run else "last", settings.paths.runs).parent
    with Run(settings.paths.runs, folder.parent.name):  # not while it is trained
        doomed = shelf.found(folder, "best")[keep_best:] + shelf.found(folder, "epoch")[keep_periodic:]
        doomed += shelf.found(folder, "last")[1:]
        if not doomed:
            console.print(escape(f"run '{folder.parent.name}' has nothing to remove"))
            return
        freed = sum(map(_bytes, doomed)) / 1e6
        for path in doomed:
            console.print(f"remove {path.name}")
        if not yes and not typer.confirm(f"{len(doomed)} checkpoints, {freed:.1f} MB?", err=True):
            console.print("nothing was removed")
            return
        for path in doomed:
            files.remove(path)
    console.print(f"{freed:.1f} MB freed")


def sparkline(values: Sequence[float]) -> str:
    """A curve of block characters, at most 40 wide, from the lowest to the highest of the values."""
    if len(values) > 40:
        values = [values[round(i * (len(values) - 1) / 39)] for i in range(40)]
    numbers = [value for value in values if isfinite(value)]
    lowest, highest = min(numbers, default=0.0), max(numbers, default=0.0)
    scale = 7 / (highest - lowest) if lowest < highest else 0
    return "".join("▁▂▃▄▅▆▇█"[round((value - lowest) * scale)] if isfinite(value) else "?" for value in values)


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
