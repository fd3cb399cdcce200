"""``emogen train``: watch a model learn, stop it whenever you like, and resume it later."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from emogen.cli.console import console
from emogen.cli.options import settings_options
from emogen.cli.training_screen import Screen, Silent
from emogen.errors import EmogenError, UsageError
from emogen.settings import Loaded, Settings, flag
from emogen.system.processes import companions

if TYPE_CHECKING:
    from emogen.data.corpus import Corpus
    from emogen.training.distributed import Team
    from emogen.training.run import Run
    from emogen.training.trainer import Trainer


@settings_options("model", "train", "paths.runs", "paths.home")
def train(
    name: Annotated[str, typer.Option(help="Name of the run: its folder in the runs folder.")] = "main",
    data: Annotated[str, typer.Option(help="Name or folder of a prepared corpus (default: the last prepared).")] = "",
    resume: Annotated[str, typer.Option(help="Resume from this checkpoint of the run, not from its last.")] = "",
    init: Annotated[
        str,
        typer.Option(
            help="Start with the weights of a checkpoint: default or open, the bundled voices, RUN/best, a path."
        ),
    ] = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="Start the run over; what it held gets another name.")] = False,
    *,
    loaded: Loaded,
) -> None:
    """Train a model on the prepared corpus, or resume a training that stopped.

    A run that exists resumes from its last checkpoint, with the settings it was begun with.
    Ctrl-C saves first. A run's folder holds all its numbers: log.txt, log.jsonl, curves.png, checkpoints.
    """
    if fresh and resume:
        raise UsageError("--fresh and --resume contradict each other", "leave one of them out")
    if not name or name.startswith(".") or name != Path(name).name:
        raise UsageError(
            f"'{name}' cannot be the name of a folder", "--name takes a plain name, --runs its parent folder"
        )
    from emogen.data import corpus
    from emogen.model.checkpoint import check_fits, read_meta
    from emogen.training import shelf
    from emogen.training.run import Run, begun_from

    paths = loaded.settings.paths
    prepared = corpus.open_corpus(paths.data_home, data)
    run, leads = (
        Run(paths.runs, name),
        os.environ.get("RANK", "0") == "0",
    )  # the other processes of a team neither write nor print
    if fresh and leads and (aside := run.set_aside()):
        console.print(escape(f"the old run '{name}' is now in {aside}"))
    with run if leads else nullcontext():
        team = _meet(loaded.settings.train.device) if "WORLD_SIZE" in os.environ else None
        start = shelf.resume_from(run.checkpoints, resume)
        origin = shelf.resolve(init, paths.runs) if init and not start else None
        settings, before = loaded.settings, 0
        if begins := start or origin:
            begun = read_meta(begins)
            settings = run.agreed(loaded, begun) if start else begun_from(begun, init, loaded)
            before = begun.processes
            check_fits(begins, settings.model)
        again = _same_command(name, data, loaded)
        job = (prepared, settings, start, origin)
        with nullcontext(team) if team else _team(run, job, again) as team, _room_for_the_model():
            trainer = _trainer(run, team, *job)
            if not leads:
                if not trainer.learn(Silent()):
                    raise typer.Exit(130)
                return
            if start and before != team.size:
                told = f"{before} processes began it, {team.size} resume it: not bit for bit as in one go"
                console.print(escape(f"run '{name}': {told}"))
            if start and resume not in ("", "last") and (aside := shelf.set_aside_after(start)):
                console.print(escape(f"the checkpoints after {start.name} are now in {aside}"))
            run.begin(settings)
            _learn(trainer, start.name if start else "", again)


def _trainer(
    run: Run, team: Team, prepared: Corpus, settings: Settings, start: Path | None, origin: Path | None
) -> Trainer:
    """The trainer as every process of a team has it: resumed from ``start``, or begun from ``origin`` or nothing."""
    from emogen.training.trainer import Trainer

    trainer = Trainer(prepared, settings, run, origin, team)
    if start:
        trainer.resume(start)
    return trainer


@contextmanager
def _room_for_the_model() -> Iterator[None]:
    from emogen.system.devices import is_out_of_memory

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        hint = "take a smaller --size, or end other programs that use the memory"
        raise EmogenError("out of memory: there is no room for the model itself", hint) from None


def _meet(device: str) -> Team:
    """Wait for the other processes that torchrun started; the first one holds the run by now."""
    from emogen.system.devices import pick_device
    from emogen.training.distributed import Team

    team = Team()
    team.meet(pick_device(device))
    return team


@contextmanager
def _team(run: Run, job: tuple[Any, ...], again: str) -> Iterator[Team]:
    """As many processes as --processes says, which end with the block."""
    from emogen.system.devices import pick_device
    from emogen.training.distributed import Team

    s = job[1].train
    device, size = pick_device(s.device), s.processes
    if size > 1 and device.type != "cpu":
        raise UsageError(f"--processes {size} shares the cores of a CPU", "take --processes 1 on a GPU, or torchrun")
    hint = f"{again} resumes from the last save; with --processes 1 it takes less memory"
    if size == 1:
        yield Team()
        return
    with TemporaryDirectory(prefix="emogen-") as folder:
        meeting = Path(folder) / "meeting"
        with companions(size - 1, _accompany, (size, meeting, run.folder, job), hint):
            team = Team(0, size, meeting)
            team.meet(device)
            try:
                yield team
            finally:
                team.part()


def _accompany(
    say_ready: Callable[[], None], rank: int, size: int, meeting: Path, run: Path, job: tuple[Any, ...]
) -> None:
    """What the other processes of --processes do: the same training, silently."""
    import torch

    from emogen.training.distributed import Team
    from emogen.training.run import Run

    team = Team(rank, size, meeting)
    say_ready()
    team.meet(torch.device("cpu"))
    with _room_for_the_model():
        _trainer(Run(run.parent, run.name), team, *job).learn(Silent())


def _same_command(name: str, data: str, loaded: Loaded) -> str:
    """The command that resumes a run: only what says which run it is."""
    told = {"--name": name if name != "main" else "", "--data": data}
    paths = loaded.settings.paths
    told |= {
        flag(f"paths.{name}"): str(getattr(paths, name))
        for name in ("runs", "home")
        if loaded.origin[f"paths.{name}"].startswith("flag")
    }
    return shlex.join(["emogen", "train", *(word for pair in told.items() if pair[1] for word in pair)])


def _learn(trainer: Trainer, resumed: str, again: str) -> None:
    """Train with a screen, and say at the end what to do next."""
    run, progress, settings = trainer.run, trainer.progress, trainer.settings.train
    if progress.epoch >= settings.epochs:
        more = f"{again} --epochs {progress.epoch + 50} continues, --fresh starts over"
        console.print(escape(f"run '{run.name}' has all its {progress.epoch} epochs: {more}"), soft_wrap=True)
        return
    if trainer.out_of_patience():
        more = f"{again} --patience 0 continues, --fresh starts over"
        console.print(escape(f"run '{run.name}' is out of --patience {settings.patience}: {more}"), soft_wrap=True)
        return
    with Screen(trainer) as screen:
        screen.say(_facts(trainer) + (f", resuming from {resumed}" if resumed else ""))
        if trainer.voice_loss is None:
            needs = f"{trainer.measure_voice():.4f} nats per note"
            screen.say(f"the bundled voice needs {needs} on these validation songs; --init default begins with it")
        try:
            done = trainer.learn(screen)
        except KeyboardInterrupt:
            screen.say(f"interrupted; resume from the last save with: {again}")
            raise
        if not done:
            where = f"in epoch {progress.epoch + 1} after {progress.batch} batches"
            screen.say(f"stopped and saved {where}; resume with: {again}")
            raise typer.Exit(130)
        if progress.epoch < settings.epochs:
            screen.say(f"stopped early: no better valid loss for {settings.patience} epochs (--patience)")
        best = min(progress.history, key=lambda loss: loss.valid)
        screen.say(f"best: epoch {best.epoch}, valid {best.valid:.4f} nats per note, in {run.folder}")
        if trainer.voice_loss is not None and best.valid >= trainer.voice_loss:
            screen.say(
                f"the bundled voice is better ({trainer.voice_loss:.4f}), and composes unless --checkpoint is given"
            )
    console.print("next: emogen generate --emotion happy --seconds 30")


def _facts(trainer: Trainer) -> str:
    """What is about to be trained, and on what."""
    import torch

    weights = sum(weight.numel() for weight in trainer.model.parameters()) / 1e6
    arithmetic = {True: "bfloat16", False: "float32", None: "arithmetic to be timed"}[trainer.bf16]
    where = f"{trainer.device.type}, {arithmetic}"
    if trainer.device.type == "cpu":
        threads, here = torch.get_num_threads(), trainer.team.here
        where += f", {here} processes of" if here > 1 else ","
        where += f" {threads} thread{'s' * (threads > 1)}{' each' * (here > 1)}"
    clips = len(trainer.corpus.clips("train"))
    begun = f", begun from {trainer.init}" if trainer.init else ""
    return (
        f"run '{trainer.run.name}': {weights:.1f} M parameters{begun} on {where}; "
        f"{clips:,} training clips of {trainer.corpus.manifest.name}"
    )
