"""A voice: an opened checkpoint that composes.

(Above 300 lines: most of them are signatures, and the words on what each argument is.)
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

from pydantic import ValidationError

from emogen.composing import varying
from emogen.composing.drafts import Drawn, ring
from emogen.composing.form import continued, like
from emogen.composing.generate import generate
from emogen.composing.originality import Originality
from emogen.composing.parallel import Compose, Tell, compose_all, workers_for
from emogen.composing.piece import Piece
from emogen.composing.provenance import made_by
from emogen.composing.wish import Feeling, Wish, check_prime
from emogen.emotion import suggest
from emogen.errors import EmogenError, UsageError, check_range, whole_number
from emogen.model.checkpoint import Meta, plans_of, read_meta
from emogen.model.numpy_network import NumpyComposer
from emogen.model.opening import open_network
from emogen.music.chart import Chart
from emogen.music.notes import Piece as Notes
from emogen.music.plan import PlanTable
from emogen.settings import SampleSettings
from emogen.system.devices import default_threads, is_out_of_memory, threads
from emogen.training.shelf import label, resolve

if TYPE_CHECKING:
    from emogen.model.network import Composer


class Sampling(TypedDict, total=False):
    """How notes are drawn, and where: the options of ``SampleSettings``, see there; ``threads`` is 1 if left out."""

    temperature: float
    top_p: float
    min_p: float
    top_k: int
    guidance: float
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["float32", "int8"]
    threads: int


class Terms(Sampling, total=False):
    """What ``Voice.compose`` takes beside emotion, length, count and seed; it says what each is."""

    key: str | None
    mode: str | None
    density: float | None
    loudness: float | None
    register: float | None
    tempo: float | None
    meter: str | None
    chords: str | None
    form: str | None
    returns: float | None
    chart: Chart | str | os.PathLike[str] | None
    cut: bool
    markers: Sequence[float]
    loop: bool
    prime: Notes | str | os.PathLike[str] | None


@dataclass(frozen=True, eq=False, repr=False)
class Voice:
    """A checkpoint that composes. Its metadata is read and valid; its weights are read when it first composes.

    One voice may be used from several threads: they take turns.
    """

    path: Path
    """The checkpoint's folder, or the exported file."""
    meta: Meta
    plans: PlanTable
    """Plans of real clips, from which the plans of pieces are drawn."""
    label: str
    """The name of the voice in messages."""
    _networks: dict[tuple[str, str], Composer | NumpyComposer] = field(default_factory=dict, init=False)

    @classmethod
    def open(cls, name: str | os.PathLike[str] = "default", runs: str | os.PathLike[str] = "runs") -> Voice:
        """Open a voice by any of its names.

        Args:
            name: "default", the bundled voice; "open", the one trained on MIT-licensed music alone; "best" or "last" of
                the run trained last; a run ("main" or "runs/main"), which means its best; "main/last"; a checkpoint's
                folder; an exported .safetensors file; or "", the best of the run trained last if there is one, else the
                bundled voice.
            runs: the folder in which runs are looked up.

        Raises:
            EmogenError: there is no such voice, or this emogen cannot use it; ``hint`` names those there are.
        """
        path = resolve(os.fspath(name), Path(runs))
        meta = read_meta(path)
        return cls(path, meta, plans_of(path, meta), label(path, meta))

    def __repr__(self) -> str:
        return f"<Voice {self.label}>"

    def network(self, sample: SampleSettings) -> Composer | NumpyComposer:
        """The network for these settings: opened at the first call, and kept for the next.

        Raises:
            EmogenError: the weights cannot be read or used, or the device is missing.
        """
        kind = sample.device, sample.precision
        if kind not in self._networks:
            self._networks[kind] = open_network(self.path, self.meta, *kind)
        return self._networks[kind]

    @cached_property
    def known(self) -> Originality | None:
        """The songs of which it copies no run; None where nothing is known of them.

        Raises:
            EmogenError: the file beside its weights cannot be used.
        """
        return Originality.beside(self.path)

    @overload
    def compose(
        self, emotion: Feeling, seconds: float, *, seed: int | None = None, **terms: Unpack[Terms]
    ) -> Piece: ...

    @overload
    def compose(
        self,
        emotion: Feeling,
        seconds: float,
        *,
        count: int,
        seed: int | None = None,
        **terms: Unpack[Terms],
    ) -> list[Piece]: ...

    def compose(
        self,
        emotion: Feeling,
        seconds: float,
        *,
        count: int | None = None,
        seed: int | None = None,
        key: str | None = None,
        mode: str | None = None,
        density: float | None = None,
        loudness: float | None = None,
        register: float | None = None,
        tempo: float | None = None,
        meter: str | None = None,
        chords: str | None = None,
        form: str | None = None,
        returns: float | None = None,
        chart: Chart | str | os.PathLike[str] | None = None,
        cut: bool = False,
        markers: Sequence[float] = (),
        loop: bool = False,
        prime: Notes | str | os.PathLike[str] | None = None,
        **sampling: Unpack[Sampling],
    ) -> Piece | list[Piece]:
        """A piece, or with ``count`` a list of pieces. What is left out follows the emotion.

        Args:
            emotion: an emotion ("sad"), a word for a mood ("nostalgic"), a quadrant ("q3"), a mixture
                ("happy:0.7,calm:0.3"), or weights by name ({"happy": 0.7, "calm": 0.3}); passages, "sad 0:00, calm
                0:30" or [(0, "sad"), (30, "calm")]; an even path, "tense > calm".
            seconds: when the last note is released, 5 to 600; exact to the millisecond.
            count: how many pieces; their seeds are ``seed``, ``seed + 1`` and so on.
            seed: 0 to 2**32 - 1. The same seed makes the same piece, whatever ``count`` is. None draws one, which
                ``piece.made_by["seed"]`` tells.
            key: such as "A minor", "Am", "Eb" or "F# major"; it includes the mode.
            mode: "major" or "minor".
            density: notes per second, 0.5 to 30.
            loudness: mean MIDI velocity, 1 to 127.
            register: mean MIDI pitch, 21 to 108; 60 is middle C.
            tempo: beats per minute, 30 to 240; whole bars fill the seconds, so it gives way by a few per cent.
            meter: "4/4" or "3/4".
            chords: a chord per bar ("Am F C G"), or bars apart by "|"; numerals in the key ("i VI III VII"); N: none.
            form: the letters of the sections, such as "AABA".
            returns: how strongly a section that was heard before is heard again, 0 to 1; 0.5 if left out.
            chart: beats, bars and chords to follow: a ``Chart``, or a piece of MIDI whose bars are taken.
            cut: whether passages change at once rather than over a few seconds.
            markers: seconds at which a strong beat falls, with a sound within 20 ms.
            loop: whether the end leads into the beginning: the last half bar to the first chord, without a rest.
            prime: a piece or a MIDI file that each piece begins with; it must end 1 s before ``seconds`` or earlier.
            **sampling: how notes are drawn, and where, as ``emogen config show`` lists under ``sample``:
                temperature, top_p, min_p, top_k (of pitches), guidance, device, precision, threads. ``threads`` is 1
                unless given: with more, or with 0 (which chooses), many pieces are composed in several processes,
                and a script on macOS or Windows then needs ``if __name__ == "__main__":``.

        Raises:
            EmogenError: an argument that is unknown or out of range, a file or device that cannot be used, weights
                that cannot be read, or too little memory; its ``hint`` says what to do.
        """
        pieces = list(
            self.stream(
                emotion, seconds, count=1 if count is None else count, seed=seed, key=key, mode=mode,
                density=density, loudness=loudness, register=register, tempo=tempo, meter=meter, chords=chords,
                form=form, returns=returns, chart=chart, cut=cut, markers=markers, loop=loop, prime=prime, **sampling,
            )
        )  # fmt: skip
        return pieces[0] if count is None else pieces

    def stream(
        self,
        emotion: Feeling,
        seconds: float,
        *,
        count: int,
        seed: int | None = None,
        **terms: Unpack[Terms],
    ) -> Generator[Piece]:
        """The pieces that ``compose`` would give, as they become ready: any number takes the memory of a few.

        Takes what ``compose`` takes, and raises what it raises: what is wrong with arguments and files, at once.
        """
        rest: dict[str, Any] = dict(terms)
        prime = rest.pop("prime", None)
        wanted = {name: rest.pop(name) for name in WANTED if name in rest}
        if (chart := wanted.get("chart")) is not None and not isinstance(chart, Chart):
            wanted["chart"] = like(Piece.read(chart).chart, seconds)
        sample = _sample(rest)
        seeds = _seeds(seed, count)
        wish = Wish.of(emotion, seconds, **wanted)
        wishes = [replace(wish, seed=one) for one in seeds]
        return self.pieces(wishes, sample, prime=prime if prime is None or isinstance(prime, Notes) else Path(prime))

    @overload
    def vary(
        self,
        piece: Piece | str | os.PathLike[str],
        *,
        amount: float = 0.5,
        section: str | None = None,
        start: float | None = None,
        end: float | None = None,
        seed: int | None = None,
        **sampling: Unpack[Sampling],
    ) -> Piece: ...

    @overload
    def vary(
        self,
        piece: Piece | str | os.PathLike[str],
        *,
        amount: float = 0.5,
        section: str | None = None,
        start: float | None = None,
        end: float | None = None,
        count: int,
        seed: int | None = None,
        **sampling: Unpack[Sampling],
    ) -> list[Piece]: ...

    def vary(
        self,
        piece: Piece | str | os.PathLike[str],
        *,
        amount: float = 0.5,
        section: str | None = None,
        start: float | None = None,
        end: float | None = None,
        count: int | None = None,
        seed: int | None = None,
        **sampling: Unpack[Sampling],
    ) -> Piece | list[Piece]:
        """A variation of a piece, or with ``count`` a list of them, on its bars and chords and by its plan.

        Args:
            piece: a piece, or a MIDI file of any origin; at most 600 s.
            amount: how much changes, from 0 (nothing) to 1 (every note is free).
            section: only where this section is, a letter of ``piece.chart.letters``; other notes stay as they are.
            start: only from this second on.
            end: only until this second.
            count: how many; their seeds are ``seed``, ``seed + 1`` and so on.
            seed: 0 to 2**32 - 1; None draws one.
            **sampling: as for ``compose``.

        Raises:
            EmogenError: as ``compose``; or no such section or time.
        """
        given = piece if isinstance(piece, Piece) else Piece.read(piece)
        check_range("amount", amount, 0, 1)
        sample, seeds = _sample(dict(sampling)), _seeds(seed, count)
        wish = varying.wish_like(given, given.seconds, self.meta.model.chart)
        parts = varying.windows(given, section, start, end)
        how = {"amount": amount, "of": (given.made_by or {}).get("seed", f"{len(given)} notes")}
        if parts:
            how["parts"] = [[first / 1000, last / 1000] for first, last in parts]
        if amount == 0:
            found: list[Notes] = [given for _ in seeds]
        elif parts:
            found = [self._in_parts(given, wish, parts, amount, one, sample) for one in seeds]
        else:
            wishes = [varying.resembling(wish, given, amount, one) for one in seeds]
            found = list(self.pieces(wishes, sample))
        bars = given.bars or wish.chart
        made = [
            Piece(*notes.columns, made_by(replace(wish, seed=one), self.label, sample) | {"varied": how}, bars=bars)
            for notes, one in zip(found, seeds, strict=True)
        ]
        return made[0] if count is None else made

    def _in_parts(
        self,
        piece: Piece,
        wish: Wish,
        parts: Sequence[varying.Window],
        amount: float,
        seed: int,
        sample: SampleSettings,
    ) -> Notes:
        """The notes of a piece with some parts composed again, one after the other."""
        notes: Notes = piece
        for part in parts:
            before, after = varying.outside(notes, part)
            one = varying.resembling(wish, piece, amount, seed, part)
            new: Notes
            (new,) = self.pieces([one], sample, prime=before if len(before) else None)
            if not len(after) and len(new):
                new = ring(new, piece.end_ms)
            notes = varying.joined(before, new, after)
        return notes

    def extend(
        self,
        piece: Piece | str | os.PathLike[str],
        seconds: float,
        *,
        seed: int | None = None,
        **sampling: Unpack[Sampling],
    ) -> Piece:
        """A piece that begins with all of another, note for note, and goes on to a length in its manner.

        Args:
            piece: a piece, or a MIDI file of any origin.
            seconds: the whole length, at least 1 s more than the piece's, up to 600.
            seed: 0 to 2**32 - 1; None draws one.
            **sampling: as for ``compose``.

        Raises:
            EmogenError: as ``compose``.
        """
        given = piece if isinstance(piece, Piece) else Piece.read(piece)
        check_range("seconds", seconds, 5, 600)
        check_prime(given, seconds, "the piece")
        wish = replace(varying.wish_like(given, float(seconds), self.meta.model.chart), seed=_seeds(seed, None)[0])
        if wish.chart is not None:
            wish = replace(wish, chart=continued(wish.chart, seconds))
        (made,) = self.pieces([wish], _sample(dict(sampling)), prime=given)
        return Piece(*made.columns, (made.made_by or {}) | {"extended": given.seconds}, bars=made.bars)

    def pieces(
        self,
        wishes: Sequence[Wish],
        sample: SampleSettings | None = None,
        *,
        prime: Notes | Path | None = None,
        tell: Tell = lambda seconds: None,
    ) -> Generator[Piece]:
        """A piece for each wish, in their order, each of exactly its length.

        Pieces are composed some at a time, so any number of them takes the memory of a few.

        Args:
            wishes: what the pieces shall be.
            sample: how notes are drawn, and where; the defaults if None.
            prime: music that every piece begins with, note for note; it ends a second before the shortest wish.
            tell: called now and then with the seconds of music composed so far, over all pieces.

        Raises:
            EmogenError: as ``network`` and ``check_prime``, at once; or, later, memory is too small.
        """
        sample = sample or SampleSettings()
        if not self.meta.model.chart and any(wish.asks_for_bars for wish in wishes):
            hint = "leave tempo, meter, chords, form, return, chart and markers out, or take the voice default"
            raise UsageError(f"{self.label} follows no beats and chords", hint)
        opening: Notes | None = None
        name = ""
        if isinstance(prime, Path):
            opening, name = Piece.read(prime), prime.name
        elif prime is not None:
            opening, name = prime, f"{len(prime)} notes"
        if opening is not None and not any(wish.window_s for wish in wishes):
            check_prime(opening, min(wish.seconds for wish in wishes), f"the prime ({name})")
            if self.meta.model.chart:
                wishes = _on_bars_of(opening, wishes)
        network = self.network(sample)
        in_torch = not isinstance(network, NumpyComposer) or sample.precision == "int8"
        cores = min(sample.threads, os.cpu_count() or 1)
        workers = 1 if in_torch else workers_for(len(wishes), cores or default_threads())
        limits = partial(threads, 1 if workers > 1 else cores or 1, in_torch)
        compose: Compose = partial(_compose, limits, network, self.plans, sample, opening, self.known)
        if workers == 1:
            compose = partial(_in_turn, compose)

        def composed() -> Generator[Piece]:
            made = compose_all(compose, wishes, workers, tell)
            try:
                for wish, notes in zip(wishes, made, strict=True):
                    yield Piece(*notes.columns, made_by(wish, self.label, sample, name), bars=notes.chart)
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                    raise
                hint = "close other programs, or compute elsewhere"
                raise EmogenError(f"out of memory on {sample.device}", hint) from None
            finally:
                made.close()

        return composed()


def _on_bars_of(opening: Notes, wishes: Sequence[Wish]) -> list[Wish]:
    """The wishes, going on with the bars and chords of an opening where these are clear and nothing else is asked."""
    chart = opening.chart if isinstance(opening, Piece) else Chart.of(opening)
    if len(chart) < 2 or not chart.is_clear:
        return list(wishes)
    return [
        wish
        if wish.asks_for_bars or wish.passages or wish.tonic is not None or "mode" in wish.pins
        else replace(wish, chart=continued(chart, wish.seconds))
        for wish in wishes
    ]


_TURN = Lock()
"""Held while a batch is composed: the limits of threads are those of the process, so a caller's threads take turns."""


def _in_turn(compose: Compose, wishes: Sequence[Wish], tell: Tell) -> list[Drawn]:
    with _TURN:
        return compose(wishes, tell)


WANTED = (
    "cut", "markers", "loop",
    "key", "mode", "density", "loudness", "register", "tempo", "meter", "chords", "form", "returns", "chart",
)  # fmt: skip
"""What ``Wish.of`` takes beside emotion, length and seed."""


def _compose(
    limits: Callable[[], AbstractContextManager[None]],
    network: Composer | NumpyComposer,
    plans: PlanTable,
    sample: SampleSettings,
    opening: Notes | None,
    known: Originality | None,
    wishes: Sequence[Wish],
    tell: Tell,
) -> list[Drawn]:
    """Pieces as one batch, within limits of threads that do not outlast it."""
    with limits():
        return generate(network, plans, wishes, sample, opening, tell, known)


load = Voice.open


def _seeds(seed: int | None, count: int | None) -> range:
    """The seeds of some pieces, one after the other from ``seed``, or from one that is drawn."""
    number = whole_number("count", 1 if count is None else count, 1, 2**32)
    if seed is None:
        seed = secrets.randbelow(2**31)
    first = whole_number("seed", seed, 0, 2**32 - number)
    return range(first, first + number)


def _sample(options: dict[str, Any]) -> SampleSettings:
    """The settings that some options make.

    Raises:
        UsageError: an unknown option, or a value that it does not take.
    """
    for name in options:
        if name not in Sampling.__annotations__:
            known = Terms.__annotations__
            raise UsageError(f"unknown argument '{name}'", suggest(name, known) or f"there are {', '.join(known)}")
    try:
        return SampleSettings.model_validate({"threads": 1, **options})
    except ValidationError as error:
        found = error.errors()[0]
        name = str(found["loc"][0])
        rule = found["msg"].removeprefix("Input ")
        about = SampleSettings.model_fields[name].description or ""
        raise UsageError(f"{name} = {found['input']!r} {rule}", about) from None
