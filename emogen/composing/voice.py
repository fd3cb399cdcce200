"""A voice: an opened checkpoint that composes."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from emogen.composing.generate import generate
from emogen.composing.parallel import Tell, compose_all, workers_for
from emogen.composing.wish import Wish
from emogen.errors import EmogenError
from emogen.model.checkpoint import Meta, plans_of, read_meta
from emogen.model.numpy_network import NumpyComposer
from emogen.model.opening import open_network
from emogen.music.notes import Piece
from emogen.music.plan import PlanTable
from emogen.music.tokens import Tokens
from emogen.settings import SampleSettings
from emogen.system.devices import default_threads, is_out_of_memory, threads
from emogen.training.shelf import label, resolve

if TYPE_CHECKING:
    from emogen.model.network import Composer


@dataclass(frozen=True, eq=False, repr=False)
class Voice:
    """A checkpoint whose metadata is read and valid; its weights are read when it composes for the first time."""

    path: Path
    """The checkpoint's folder, or the exported file."""
    meta: Meta
    plans: PlanTable
    """Plans of real clips, from which the plans of pieces are drawn."""
    label: str
    """What the voice is called when it is spoken of."""
    _networks: dict[tuple[str, str], Composer | NumpyComposer] = field(default_factory=dict, init=False)

    @classmethod
    def open(cls, name: str = "default", runs: Path = Path("runs")) -> Voice:
        """The voice of a checkpoint by any of its names, see ``resolve``.

        Args:
            name: default (the bundled voice), best or last of the newest run, RUN/best, a folder, an exported file;
                empty for best where there is one, else default.
            runs: the folder of the runs that names refer to.

        Raises:
            EmogenError: there is no such checkpoint, or this emogen cannot use it.
        """
        path = resolve(name, runs)
        meta = read_meta(path)
        return cls(path, meta, plans_of(path, meta), label(path, meta))

    def __repr__(self) -> str:
        return f"<Voice {self.label}>"

    def network(self, sample: SampleSettings) -> Composer | NumpyComposer:
        """What composes with these settings: opened at the first call, and kept for the next.

        Raises:
            EmogenError: the weights cannot be read or used, or the device is not there.
        """
        kind = sample.device, sample.precision
        if kind not in self._networks:
            self._networks[kind] = open_network(self.path, self.meta, *kind)
        return self._networks[kind]

    def pieces(
        self,
        wishes: Sequence[Wish],
        sample: SampleSettings | None = None,
        *,
        opening: Tokens | None = None,
        tell: Tell = lambda seconds: None,
    ) -> Generator[Piece]:
        """A piece for each wish, in their order, each of exactly its length.

        Pieces are composed some at a time, so any number of them takes the memory of a few.

        Args:
            sample: how notes are drawn, and where; the defaults if None.
            opening: notes (N, 4) that every piece begins with, see ``wish.opening_of``.
            tell: called now and then with the seconds of music composed so far, over all pieces.

        Raises:
            EmogenError: as ``network``; or memory is too small.
        """
        sample = sample or SampleSettings()
        network = self.network(sample)
        in_torch = not isinstance(network, NumpyComposer) or sample.precision == "int8"
        cores = min(sample.threads, os.cpu_count() or 1)
        workers = 1 if in_torch else workers_for(len(wishes), cores or default_threads())
        limits = partial(threads, 1 if workers > 1 else cores or 1, in_torch)
        compose = partial(_compose, limits, network, self.plans, sample, opening)
        try:
            yield from compose_all(compose, wishes, workers, tell)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                raise
            raise EmogenError(
                f"out of memory on {sample.device}", "close other programs, or compute elsewhere"
            ) from None


def _compose(
    limits: Callable[[], AbstractContextManager[None]],
    network: Composer | NumpyComposer,
    plans: PlanTable,
    sample: SampleSettings,
    opening: Tokens | None,
    wishes: Sequence[Wish],
    tell: Tell,
) -> list[Piece]:
    """Pieces as one batch, within limits of threads that do not outlast it."""
    with limits():
        return generate(network, plans, wishes, sample, opening, tell)
