"""Checkpoints: folders that describe themselves, never changed once they have their name.

A checkpoint is a folder of a run's ``checkpoints/``:

- ``weights.safetensors``: the weights, and in its header everything ``Meta`` holds, so that this one file is enough;
- ``meta.json``: the same ``Meta``, for people and scripts to read;
- ``trainer.pt``: the optimizer and the place in the data; in resumable ones only.

Its name says what it is, see ``NAMES``; people say ``last`` and ``best``. A checkpoint is written aside and renamed;
a newer one supersedes it and only then is it removed, so there is a whole ``last`` at every moment. One that is damaged
hinders nobody who asks for another: its name is enough to sort it. Nothing here executes what a file holds, and only
``load_*`` and ``save`` import torch. (Above 300 lines: there is much that can be wrong with a file, and it is told.)
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from itertools import count
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from emogen.emotion import EMOTIONS, suggest
from emogen.errors import EmogenError, UsageError
from emogen.settings import ModelSettings
from emogen.system import files

if TYPE_CHECKING:
    from torch import Tensor

    from emogen.model.network import Composer
    from emogen.model.numpy_network import NumpyComposer
    from emogen.model.rotary import Floats32
    from emogen.music.plan import PlanTable

FORMAT = 1
HEADER_LIMIT = 16 * 2**20
"""Bytes of a header we are willing to parse; ours have some ten thousand."""

NAMES = {
    "last": "last_epoch_{epoch:03d}_step_{step:08d}",
    "epoch": "epoch_{epoch:03d}",
    "best": "best_epoch_{epoch:03d}_loss_{loss:.4f}",
}
"""How checkpoints of each kind are named: by the epochs completed, the steps taken, the valid loss."""

NUMBER = r"\d+(?:\.\d+)?"
PATTERNS = {kind: re.sub(r"{.*?}", lambda _: NUMBER, name) for kind, name in NAMES.items()}
RESUMABLE = ("last", "epoch")
"""The kinds that training can go on from."""

TAKE_ANOTHER = "take another one (emogen ckpt list); training goes on from it with --resume NAME"
TOO_OLD = "use the emogen that made it, or train anew"
NO_FIT = "do not fit this emogen's network"

WEIGHTS, META, TRAINER = "weights.safetensors", "meta.json", "trainer.pt"

VOICE = Path(__file__).parents[1] / "voices" / "default"
"""The bundled voice, a checkpoint as any other; people say ``default``."""


class Frozen(BaseModel):
    """Part of the metadata. Keys of a newer version are let pass."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class EpochLoss(Frozen):
    """What one epoch brought; losses are nats per note."""

    epoch: int
    train: float
    valid: float
    valid_by_family: dict[str, float]
    seconds: float


class DatasetFacts(Frozen):
    """What the model was trained on."""

    name: str
    fingerprint: str
    clips: dict[str, int]
    """Clips of each split."""


class Meta(Frozen):
    """Everything there is to know of a checkpoint but its weights."""

    format: int
    emogen: str
    torch: str
    created: str
    """UTC, ISO 8601."""
    run: str
    epoch: int
    """Epochs completed."""
    step: int
    """Optimizer steps taken."""
    history: tuple[EpochLoss, ...]
    parameters: int
    model: ModelSettings
    train: dict[str, Any]
    """The training's settings."""
    vocabulary: str
    """Fingerprint of the tokens, see ``tokens.fingerprint``."""
    emotions: tuple[str, ...]
    dataset: DatasetFacts
    plan: dict[str, Any]
    """A ``plan.PlanTable``, see ``plans_of``."""
    init: str = ""
    """The checkpoint that training began from; empty where it began from nothing."""
    ancestors: tuple[DatasetFacts, ...] = ()
    """What that checkpoint, and those before it, were trained on; the first one first."""

    @property
    def valid_loss(self) -> float | None:
        """Valid loss of the last completed epoch, nats per note."""
        return self.history[-1].valid if self.history else None


def name(kind: str, meta: Meta) -> str:
    """The name of a checkpoint of a kind (``last``, ``epoch`` or ``best``)."""
    return NAMES[kind].format(epoch=meta.epoch, step=meta.step, loss=meta.valid_loss)


def save(path: Path, meta: Meta, weights: Mapping[str, Tensor], trainer: dict[str, Any] | None = None) -> None:
    """Write the checkpoint ``path``, whole or not at all. One that is there already is left as it is.

    Raises:
        EmogenError: it could not be written, for example on a full disk.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if path.exists():
        return
    text = meta.model_dump_json(indent=1)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    try:
        with files.whole(path) as draft:
            draft.mkdir()
            save_file(plain, draft / WEIGHTS, metadata={"emogen": text})
            (draft / META).write_text(text, encoding="utf-8")
            if trainer is not None:
                with (draft / TRAINER).open("wb") as stream:
                    torch.save(trainer, stream)
    except (OSError, SafetensorError, RuntimeError) as error:
        cause = error.__context__ if isinstance(error.__context__, OSError) else error  # torch hides a full disk
        hint = "make room on the disk; the same command then goes on from the last one"
        raise EmogenError(f"checkpoint {path} could not be written: {cause}; those before it are whole", hint) from None


def write_half(path: Path, file: Path) -> None:
    """Write the weights of a checkpoint to a file in half precision, with the same metadata.

    Raises:
        EmogenError: a weight is too large for half precision.
    """
    import torch
    from safetensors.torch import save as serialise

    weights = {name: tensor.half() for name, tensor in load_weights(path).items()}
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise EmogenError(f"a weight of {path} is beyond half precision", "export it without --half")
    file.write_bytes(serialise(weights, metadata={"emogen": read_meta(path).model_dump_json(indent=1)}))


def found(folder: Path, kind: str) -> list[Path]:
    """The checkpoints of a kind in a folder, the latest first; of ``best`` the best first."""
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
    """The checkpoints in a folder that training can go on from, the furthest first."""
    return sorted((path for kind in RESUMABLE for path in found(folder, kind)), key=_numbers, reverse=True)


def set_aside_after(path: Path) -> Path | None:
    """Move the checkpoints beside ``path`` that are further than it into a folder of their own; None if there are none.

    Training goes on from ``path`` then as if they had never been, and nothing is lost.
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


def resolve(name: str, runs: Path) -> Path:
    """The checkpoint that a person means.

    ``best``, ``last`` or a checkpoint's name are looked up in the run trained last; ``RUN/best`` in the run of that
    name; ``default`` is the bundled voice; anything else is the path of a checkpoint folder or of an exported
    ``.safetensors`` file. Nothing at all means the best of the run trained last, else the bundled voice.

    Raises:
        EmogenError: there is none, with the command that makes one or the names there are.
    """
    if not name:
        best = (path for run in runs_in(runs) for path in found(run / "checkpoints", "best"))
        return next(best, VOICE)
    if name == "default":
        return VOICE
    as_path = Path(name)
    if name not in ("best", "last") and ((as_path / WEIGHTS).is_file() or as_path.is_file()):
        return as_path
    if as_path.suffix == ".safetensors":
        raise EmogenError(f"there is no file {name}", "emogen ckpt export writes one")
    run_name, _, which = name.rpartition("/")
    trained = runs_in(runs)
    if not trained:
        hint = "train one: emogen train; the bundled voice is called default"
        raise EmogenError(f"no checkpoint '{name}': there is no trained run in {runs}", hint)
    named = [run for run in trained if not run_name or run.name == run_name]
    if not named:
        names = [run.name for run in trained]
        hint = f"{suggest(run_name, names)} the runs are {', '.join(names)}".strip()
        raise EmogenError(f"no run '{run_name}' in {runs}", hint)
    folder = named[0] / "checkpoints"
    if which in ("best", "last") and (paths := found(folder, which)):
        return paths[0]
    if which and (folder / which / WEIGHTS).is_file():
        return folder / which
    why = ", no epoch is complete yet" if which == "best" else ""
    names = [kind for kind in ("best", "last") if found(folder, kind)] + [path.name for path in all_in(folder)]
    hint = f"{suggest(which, names)} there are {', '.join(names)}".strip()
    raise EmogenError(f"no checkpoint '{which}' in run '{named[0].name}'{why}", hint)


def label(path: Path, meta: Meta) -> str:
    """What a checkpoint is called when it is spoken of."""
    if path == VOICE:
        return "the bundled voice"
    return f"{meta.run}/{path.name}" if path.is_dir() else path.name


def _weights_file(path: Path) -> Path:
    return path / WEIGHTS if path.is_dir() else path


def read_meta(path: Path) -> Meta:
    """The metadata of a checkpoint folder or an exported file, from the header of its weights.

    Raises:
        EmogenError: the file is missing, cut short, foreign, or of another format.
    """
    file = _weights_file(path)
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length) if length <= HEADER_LIMIT else b"")
        text = header.pop("__metadata__")["emogen"]
        number = index(json.loads(text)["format"])
        size = 8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except FileNotFoundError:
        raise EmogenError(f"there is no checkpoint at {path}", "emogen ckpt list shows those there are") from None
    except (struct.error, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        hint = "a checkpoint is a folder with weights.safetensors, or a file made by emogen ckpt export"
        raise EmogenError(f"{path} is not an emogen checkpoint, or is damaged", hint) from None
    if number != FORMAT:
        hint = "update emogen" if number > FORMAT else TOO_OLD
        raise EmogenError(f"{path} is of format {number}, this emogen reads {FORMAT}", hint)
    if file.stat().st_size != size:
        raise EmogenError(f"{file} is cut short: {file.stat().st_size} bytes of {size}", TAKE_ANOTHER)
    try:
        meta = Meta.model_validate_json(text)
    except ValidationError as error:
        raise EmogenError(f"the metadata of {path} is damaged: {error.errors()[0]['msg']}", TAKE_ANOTHER) from None
    return meta


def plans_of(path: Path, meta: Meta, older: bool = False) -> PlanTable:
    """The plans of a checkpoint that this emogen can use. (Looking at one needs neither this nor numpy's import.)

    An ``older`` one may lack the newest entries: enough to begin a training from, not to compose with.

    Raises:
        EmogenError: its tokens, emotions or plans are not those of this emogen.
    """
    from emogen.music import tokens
    from emogen.music.plan import ENTRIES, PlanTable

    try:
        plans = PlanTable.model_validate(meta.plan)
    except ValidationError as error:
        raise EmogenError(f"the plans of {path} are damaged: {error.errors()[0]['msg']}", TAKE_ANOTHER) from None
    known = ENTRIES[: len(plans.entries)]
    if (meta.vocabulary, meta.emotions, plans.entries) != (tokens.fingerprint(), EMOTIONS, known):
        raise EmogenError(f"{path} speaks of other tokens, emotions or plans than this emogen", TOO_OLD)
    if known != ENTRIES and not older:
        hint = f"teach it them: emogen train --init {path}"
        raise EmogenError(f"{path} does not know all entries of this emogen's plans", hint)
    return plans


def load_arrays(path: Path) -> dict[str, Floats32]:
    """The weights of a checkpoint folder or an exported file, in float32."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return {name: array.astype("f4") for name, array in load_file(_weights_file(path)).items()}
    except FileNotFoundError:
        raise EmogenError(f"{path} is gone", "a training under way may have saved a newer one: try again") from None
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        raise EmogenError(f"the weights of {path} cannot be read: {error}", TAKE_ANOTHER) from None


def load_weights(path: Path) -> dict[str, Tensor]:
    """``load_arrays`` as tensors on the CPU."""
    import torch

    return {name: torch.from_numpy(array) for name, array in load_arrays(path).items()}


def load_into(model: Composer, path: Path) -> None:
    """Give a network the weights of a checkpoint; plan entries that it does not know have no effect then.

    Raises:
        EmogenError: they cannot be read, or are those of a network of another shape.
    """
    weights = load_weights(path)
    try:
        model.take(weights)
    except (RuntimeError, LookupError):
        raise EmogenError(f"the weights of {path} {NO_FIT}", TOO_OLD) from None


def load_numpy(path: Path, meta: Meta) -> NumpyComposer:
    """The network of a checkpoint in NumPy.

    Raises:
        EmogenError: as ``load_into``.
    """
    from emogen.model.numpy_network import NumpyComposer

    weights = load_arrays(path)
    try:
        return NumpyComposer(meta.model, weights)
    except (LookupError, TypeError, ValueError):
        raise EmogenError(f"the weights of {path} {NO_FIT}", TOO_OLD) from None


def load_trainer(path: Path) -> dict[str, Any]:
    """The trainer's state of a resumable checkpoint; only plain data and tensors are read, nothing is executed."""
    import torch

    if not (path / TRAINER).is_file():
        hint = f"resume from one named {' or '.join(RESUMABLE)}"
        raise UsageError(f"{path.name} holds weights only, training cannot resume from it", hint)
    try:
        state: dict[str, Any] = torch.load(path / TRAINER, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file makes torch raise is of any kind
        why = f"it is damaged or holds more than tensors and plain data ({type(error).__name__})"
        raise EmogenError(f"{path / TRAINER} is not read: {why}", TAKE_ANOTHER) from None
    return state
