"""The format of checkpoints: folders that describe themselves, never changed once they have their name.

A checkpoint is a folder of a run's ``checkpoints/``:

- ``weights.safetensors``: the weights, and in its header everything ``Meta`` holds, so that this one file is enough;
- ``meta.json``: the same ``Meta``, for people and scripts to read;
- ``trainer.pt``: the optimizer and the place in the data; in resumable ones only.

It is written aside and renamed, so it is whole or not there. Its names and how many are kept: ``training/shelf``.
Nothing here executes what a file holds, nothing is believed further than the file is large, and what was damaged since
is known by the checksums in ``Meta``. Looking at a checkpoint (``read_meta``) needs neither torch nor NumPy.
(Above 300 lines: there is much that can be wrong with a file, and it is told.)
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from emogen import __version__
from emogen.emotion import EMOTIONS
from emogen.errors import EmogenError, UsageError
from emogen.settings import ModelSettings
from emogen.system import files

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from emogen.model.network import Composer
    from emogen.model.numpy_network import NumpyComposer
    from emogen.model.rotary import Floats32
    from emogen.music.plan import PlanTable

FORMAT = 1
HEADER_LIMIT = 16 * 2**20
"""Largest header, in bytes, that is parsed; ours have about ten thousand."""
ITEM_BYTES = {"F16": 2, "F32": 4}
"""The types of numbers that weights may have, as safetensors calls them."""

TAKE_ANOTHER = "take another one (emogen ckpt list); training resumes from it with --resume NAME"
TOO_OLD = "use the emogen that made it, or train a new one"
NO_FIT = "do not fit this emogen's network"

WEIGHTS, META, TRAINER = "weights.safetensors", "meta.json", "trainer.pt"

VOICES = {name: Path(__file__).parents[1] / "voices" / name for name in ("default", "open")}
"""The bundled voices by the names that users call them, checkpoints like any other."""
VOICE = VOICES["default"]
"""*The* bundled voice, which composes where no other is named."""


Count = Annotated[int, Field(ge=0, lt=2**53)]


class Frozen(BaseModel):
    """Part of the metadata. Keys of a newer version are let pass; numbers that are none stay what they are."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")


class EpochLoss(Frozen):
    """The losses of one epoch, in nats per note."""

    epoch: Count
    train: float
    valid: float
    valid_by_family: dict[str, float]
    seconds: float


class DatasetFacts(Frozen):
    """The corpus that a model was trained on."""

    name: str
    fingerprint: str
    clips: dict[str, Count]
    """Number of clips in each split."""


class Meta(Frozen):
    """Everything about a checkpoint but its weights."""

    format: int
    emogen: str
    torch: str
    created: str
    """UTC, ISO 8601."""
    run: str
    epoch: Count
    """Epochs completed."""
    step: Count
    """Optimizer steps taken."""
    history: tuple[EpochLoss, ...]
    parameters: Count
    model: ModelSettings
    train: dict[str, Any]
    """The settings of the training."""
    vocabulary: str
    """Fingerprint of the tokens, see ``tokens.fingerprint``."""
    emotions: tuple[str, ...]
    dataset: DatasetFacts
    plan: dict[str, Any]
    """A ``plan.PlanTable``, see ``plans_of``."""
    bf16_on_cpu: bool | None = None
    """Whether training on the CPU was found to be faster in bfloat16, and goes on in it; None: it was not timed."""
    init: str = ""
    """The checkpoint whose weights training started with; empty if it started with random ones."""
    ancestors: tuple[DatasetFacts, ...] = ()
    """The corpora of that checkpoint and those before it, the first one first."""
    processes: Count = 1
    """How many trained it together; going on with another number is not bit for bit the same."""
    voice_loss: float | None = None
    """What the bundled voice needs on the validation clips of this training, in nats per note; None: not measured."""
    checksums: dict[str, str] = {}
    """Of ``WEIGHTS`` (see ``checksum``) and of the file ``TRAINER``; empty in checkpoints of emogen 0.3 and before."""

    @field_validator("model", mode="before")
    @classmethod
    def _plain_if_not_said(cls, model: object) -> object:
        """Networks of emogen 0.3 and before know no charts."""
        return {"chart": False, **model} if isinstance(model, dict) else model

    @classmethod
    def of(cls, model: Composer, plans: PlanTable, dataset: DatasetFacts, **training: Any) -> Meta:
        """The metadata of a network as it is now, saved by this emogen; ``training`` gives the fields not known here.

        These are ``run``, ``epoch``, ``step``, ``history`` and ``train``, and those that have a default.
        """
        import torch

        from emogen.music import tokens

        return cls(
            format=FORMAT,
            emogen=__version__,
            torch=torch.__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            parameters=sum(weight.numel() for weight in model.parameters()),
            model=model.settings,
            vocabulary=tokens.fingerprint(),
            emotions=EMOTIONS,
            dataset=dataset,
            plan=plans.model_dump(mode="json"),
            **training,
        )

    @property
    def valid_loss(self) -> float | None:
        """Valid loss of the last completed epoch, nats per note."""
        return self.history[-1].valid if self.history else None


def save(path: Path, meta: Meta, weights: Mapping[str, Tensor], trainer: dict[str, Any] | None = None) -> None:
    """Write the checkpoint ``path``, whole or not at all. An existing one is left as it is.

    Raises:
        EmogenError: it could not be written, for example on a full disk.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if path.exists():
        return
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    checksums = {WEIGHTS: checksum({name: tensor.numpy() for name, tensor in plain.items()})}
    try:
        with files.whole(path) as draft:
            draft.mkdir()
            if trainer is not None:
                with (draft / TRAINER).open("wb") as stream:
                    torch.save(trainer, stream)
                checksums[TRAINER] = files.checksum(draft / TRAINER)
            text = meta.model_copy(update={"checksums": checksums}).model_dump_json(indent=1)
            save_file(plain, draft / WEIGHTS, metadata={"emogen": text})
            (draft / META).write_text(text, encoding="utf-8")
    except (OSError, SafetensorError, RuntimeError) as error:
        cause = error.__context__ if isinstance(error.__context__, OSError) else error  # torch hides a full disk
        hint = f"make room on the disk {files.disk_of(path)}; the same command then resumes from the last one"
        raise EmogenError(f"checkpoint {path} could not be written: {cause}; those before it are whole", hint) from None


def checksum(weights: Mapping[str, npt.NDArray[Any]]) -> str:
    """Of weights by name, in whatever order a file has them."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + b"\0")
        digest.update(weights[name].ravel().view("u1").data)
    return digest.hexdigest()[:32]


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
    checksums = {WEIGHTS: checksum({name: tensor.numpy() for name, tensor in weights.items()})}
    meta = read_meta(path).model_copy(update={"checksums": checksums})
    file.write_bytes(serialise(weights, metadata={"emogen": meta.model_dump_json(indent=1)}))


def _weights_file(path: Path) -> Path:
    return path / WEIGHTS if path.is_dir() else path


def read_meta(path: Path) -> Meta:
    """The metadata of a checkpoint folder or an exported file, from the header of its weights.

    Raises:
        EmogenError: the file is missing, cut short, not an emogen checkpoint, or of another format.
    """
    text, _ = _header(path)
    try:
        number = index(json.loads(text)["format"])
    except (ValueError, LookupError, TypeError, RecursionError):
        raise _foreign(path) from None
    if number != FORMAT:
        hint = "update emogen" if number > FORMAT else TOO_OLD
        raise EmogenError(f"{path} is of format {number}, this emogen reads {FORMAT}", hint)
    try:
        return Meta.model_validate_json(text)
    except ValidationError as error:
        raise EmogenError(f"the metadata of {path} is damaged: {error.errors()[0]['msg']}", TAKE_ANOTHER) from None


def _header(path: Path) -> tuple[str, dict[str, tuple[int, ...]]]:
    """The text of a checkpoint's metadata, and the shapes of its weights, which fill the file exactly.

    Raises:
        EmogenError: as ``read_meta``.
    """
    file = _weights_file(path)
    try:
        with files.opened(file) as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length) if length <= HEADER_LIMIT else b"")
            there = stream.seek(0, 2)
        text = header.pop("__metadata__")["emogen"]
        json.loads(text)["format"]
        shapes = {name: tuple(map(index, tensor["shape"])) for name, tensor in header.items()}
        spans = sorted(tuple(map(index, tensor["data_offsets"])) for tensor in header.values())
        ends = [0, *(end for _, end in spans)]
        sizes = [math.prod(shapes[name]) * ITEM_BYTES[tensor["dtype"]] for name, tensor in header.items()]
        stated = [tensor["data_offsets"][1] - tensor["data_offsets"][0] for tensor in header.values()]
        fits = sizes == stated and min(sizes, default=0) >= 0 and ends[:-1] == [begin for begin, _ in spans]
    except FileNotFoundError:
        raise EmogenError(f"there is no checkpoint at {path}", "emogen ckpt list shows what exists") from None
    except OSError as error:
        raise EmogenError(f"{file} cannot be read: {error.strerror or error}", TAKE_ANOTHER) from None
    except (struct.error, ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError):
        raise _foreign(path) from None
    if not fits:
        raise _foreign(path)
    if there != (size := 8 + length + ends[-1]):
        raise EmogenError(f"{file} is cut short: {there} bytes of {size}", TAKE_ANOTHER)
    return text, shapes


def _foreign(path: Path) -> EmogenError:
    hint = "a checkpoint is a folder with weights.safetensors, or a file made by emogen ckpt export"
    return EmogenError(f"{path} is not an emogen checkpoint, or is damaged", hint)


def check_fits(path: Path, settings: ModelSettings) -> None:
    """Make sure, before any memory is taken, that a checkpoint's weights are those of a network of some settings.

    Raises:
        EmogenError: they are not.
    """
    import torch

    from emogen.model.network import Composer

    _, shapes = _header(path)
    try:
        with torch.device("meta"):  # shapes without numbers; no weight's shape depends on the context
            network = Composer(settings.model_copy(update={"context_notes": 1}))
            network.take({name: torch.empty(shape) for name, shape in shapes.items()})
    except (RuntimeError, LookupError, TypeError, ValueError):
        raise EmogenError(f"the weights of {path} {NO_FIT}", TOO_OLD) from None


def plans_of(path: Path, meta: Meta, older: bool = False) -> PlanTable:
    """The plans of a checkpoint that this emogen can use. (``read_meta`` alone does not import NumPy.)

    With ``older`` it may lack the newest entries: enough to start a training from, not to compose with.

    Raises:
        EmogenError: its tokens, emotions or plan entries are not those of this emogen.
    """
    from emogen.music import tokens
    from emogen.music.plan import ENTRIES, PlanTable

    try:
        plans = PlanTable.model_validate(meta.plan)
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise EmogenError(f"the plans of {path} are damaged: {why}", TAKE_ANOTHER) from None
    known = ENTRIES[: len(plans.entries)]
    if (meta.vocabulary, meta.emotions, plans.entries) != (tokens.fingerprint(), EMOTIONS, known):
        raise EmogenError(f"{path} was made with different tokens, emotions or plan entries", TOO_OLD)
    if known != ENTRIES and not older:
        hint = f"train it with them: emogen train --init {path}"
        raise EmogenError(f"{path} lacks entries of this emogen's plans", hint)
    return plans


def load_arrays(path: Path) -> dict[str, Floats32]:
    """The weights of a checkpoint folder or an exported file, in float32."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not _weights_file(path).exists():
        raise EmogenError(f"{path} is gone", "a training under way may have saved a newer one: try again")
    expected = read_meta(path).checksums.get(WEIGHTS)
    try:
        arrays = load_file(_weights_file(path))
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        raise EmogenError(f"the weights of {path} cannot be read: {error}", TAKE_ANOTHER) from None
    if expected and checksum(arrays) != expected:
        raise EmogenError(f"the weights of {path} are damaged: their checksum is another", TAKE_ANOTHER)
    return {name: array.astype("f4", copy=False) for name, array in arrays.items()}


def load_weights(path: Path) -> dict[str, Tensor]:
    """``load_arrays`` as tensors on the CPU."""
    import torch

    return {name: torch.from_numpy(array) for name, array in load_arrays(path).items()}


def load_into(model: Composer, path: Path) -> None:
    """Give a network the weights of a checkpoint; plan entries that it does not know have no effect then.

    Raises:
        EmogenError: they cannot be read, are those of a network of another shape, or contain NaN or infinity.
    """
    weights = load_weights(path)
    try:
        model.take(weights)
    except (RuntimeError, LookupError):
        raise EmogenError(f"the weights of {path} {NO_FIT}", TOO_OLD) from None
    if not model.is_finite():
        raise EmogenError(f"the weights of {path} contain NaN or infinity", TAKE_ANOTHER)


def load_numpy(path: Path, meta: Meta) -> NumpyComposer:
    """The network of a checkpoint in NumPy.

    Raises:
        EmogenError: as ``load_into``.
    """
    from emogen.model.numpy_network import NumpyComposer

    weights = load_arrays(path)
    try:
        network = NumpyComposer(meta.model, weights)
    except (LookupError, TypeError, ValueError):
        raise EmogenError(f"the weights of {path} {NO_FIT}", TOO_OLD) from None
    if not network.is_finite():
        raise EmogenError(f"the weights of {path} contain NaN or infinity", TAKE_ANOTHER)
    return network


def load_trainer(path: Path) -> dict[str, Any]:
    """The trainer's state of a resumable checkpoint; only plain data and tensors are read, nothing is executed."""
    import torch

    if not (path / TRAINER).is_file():
        hint = "resume from one named last or epoch"
        raise UsageError(f"{path.name} holds weights only, training cannot resume from it", hint)
    expected = read_meta(path).checksums.get(TRAINER)
    if expected and files.checksum(path / TRAINER) != expected:
        raise EmogenError(f"{path / TRAINER} is damaged: its checksum is another", TAKE_ANOTHER)
    try:
        with zipfile.ZipFile(path / TRAINER) as archive:  # as torch.save writes it: as large as what it holds
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError
        state: dict[str, Any] = torch.load(path / TRAINER, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise anything
        why = f"it is damaged or holds more than tensors and plain data ({type(error).__name__})"
        raise EmogenError(f"{path / TRAINER} cannot be used: {why}", TAKE_ANOTHER) from None
    return state
