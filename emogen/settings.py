"""Every option of emogen, written once: its name, type, range, default and help text.

The tree is frozen. A field's docstring is its help text, its comment in ``emogen.toml`` and its flag's description.
``load`` gathers the values from flags, environment and files. (Above 300 lines: most of them are options.)
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from platformdirs import user_cache_path, user_config_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails

from emogen.emotion import suggest
from emogen.errors import UsageError

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(ge=0, lt=1)]
Device = Literal["auto", "cpu", "cuda", "mps"]

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"d_model": 128, "n_layers": 3, "n_heads": 4, "context_notes": 256},
    "small": {"d_model": 256, "n_layers": 6, "n_heads": 4, "context_notes": 512},
    "base": {"d_model": 512, "n_layers": 6, "n_heads": 8, "context_notes": 512},
}
"""The named sizes: about 1, 7 and 26 million parameters."""


class Section(BaseModel):
    """One part of the settings: frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


class PathsSettings(Section):
    """Where things are kept."""

    home: Path | None = None
    """Folder for prepared data (default: the user cache; the variable EMOGEN_HOME sets it too)."""

    runs: Path = Path("runs")
    """Folder that holds one sub-folder per training run."""

    soundfont: Path | None = None
    """SoundFont (.sf2, .sf3) to play (default, or empty: the best that is installed, else pretty_midi's)."""

    @field_validator("soundfont", mode="before")
    @classmethod
    def _none_if_empty(cls, path: object) -> object:
        return path or None

    @field_validator("home", "runs", "soundfont")
    @classmethod
    def _expand_user(cls, path: Path | None) -> Path | None:
        try:
            return path and path.expanduser()  # files and variables do not pass through a shell
        except RuntimeError:  # a user without a home
            raise ValueError("begins with the home folder of a user who has none") from None

    @property
    def data_home(self) -> Path:
        """Folder of prepared data."""
        return (self.home or default_home()) / "data"


class DataSettings(Section):
    """How a corpus is read and split."""

    split: Literal["song", "official"] = "song"
    """song: 70/15/15 by whole songs, stratified; official: the split files that EMOPIA ships."""

    split_seed: Seed = 0
    """Seed of the split by song."""

    apart_from: str = ""
    """A prepared corpus: songs that share a melody with its valid or test songs are kept out of training."""

    any_instrument: bool = False
    """Also take files without a piano program, with all their pitched instruments merged."""

    workers: int = Field(default=0, ge=0, le=256)
    """Processes that read files (0: one per core)."""


class ModelSettings(Section):
    """The shape of the network. A number that is left out comes from the named size."""

    size: Literal["tiny", "small", "base"] = "base"
    """Named size: about 1, 7 or 26 million parameters."""

    d_model: int = Field(default=0, ge=0, le=8192)
    """Width of the network; a multiple of eight times n_heads (0: by size)."""

    n_layers: int = Field(default=0, ge=0, le=128)
    """Transformer blocks (0: by size)."""

    n_heads: int = Field(default=0, ge=0, le=128)
    """Attention heads of each block (0: by size)."""

    context_notes: int = Field(default=0, ge=0, le=65536, json_schema_extra={"flag": "--max-seq-len"})
    """Longest stretch of music that the network sees at once, in notes (0: by size)."""

    dropout: Share = 0.1
    """Probability of dropping an activation in training, on the residual stream and the embeddings."""

    chart: bool = True
    """Give the network the beat, the chords and what was played before; without, it composes without bars."""

    @field_validator(*SIZES["base"])
    @classmethod
    def _by_size(cls, number: int, info: ValidationInfo) -> int:
        return number or SIZES[info.data.get("size", "base")][str(info.field_name)]  # a wrong size is refused as well

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> ModelSettings:
        if self.d_model % (8 * self.n_heads):
            raise ValueError(f"d_model {self.d_model} is not a multiple of eight times n_heads {self.n_heads}")
        return self


class TrainSettings(Section):
    """How the network is trained."""

    epochs: int = Field(default=50, ge=1)
    """Passes over the training windows."""

    batch_size: int = Field(default=8, ge=1)
    """Windows of music per optimizer step."""

    accumulate: int = Field(default=1, ge=1)
    """Number of parts in which a batch is computed, one after the other, to save memory; the result is the same."""

    learning_rate: float = Field(default=1e-3, gt=0, lt=1)
    """Highest learning rate (AdamW's; Muon's is 20 times it), after the warm-up; in the last 30 % it falls to zero."""

    warmup_steps: int = Field(default=100, ge=0)
    """Optimizer steps over which the learning rate rises from zero."""

    weight_decay: float = Field(default=0.1, ge=0)
    """Decay of the weight matrices, relative to the learning rate."""

    grad_clip: float = Field(default=1.0, gt=0)
    """Longer gradients (L2 norm) are clipped to this length."""

    seed: Seed = 0
    """Seed of the weights, the order of the windows, augmentation and dropout."""

    device: Device = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""

    precision: Literal["auto", "bf16", "float32"] = "auto"
    """Arithmetic of the forward pass; auto takes the faster one (on a CPU, a few steps are timed first)."""

    threads: int = Field(default=0, ge=0, le=1024)
    """CPU threads, at most one per core (0: one fewer than the cores, at most 3: a busy neighbour stalls no step)."""

    processes: int = Field(default=1, ge=1, le=64)
    """Processes that train together on this machine's CPU, each with its threads; more pay where cores are idle."""

    compile: bool = False
    """Compile the network first (up to a minute; on a CPU with a C++ compiler): steps are then 1.2 times as fast."""

    patience: int = Field(default=0, ge=0)
    """Stop after this many epochs without a better valid loss (0: never)."""

    checkpoint_every: int = Field(default=5, ge=1)
    """Epochs between the periodic checkpoints."""

    keep_periodic: int = Field(default=2, ge=1)
    """Periodic checkpoints kept; older ones are removed."""

    keep_best: int = Field(default=3, ge=1)
    """Best checkpoints kept, by valid loss."""

    save_every_s: float = Field(default=15.0, gt=0)
    """Seconds between saves of 'last' within an epoch; more where saving is slow."""

    key_semitones: int = Field(default=5, ge=0, le=12)
    """Augmentation: windows are transposed by at most this many semitones, up or down."""

    tempo_percent: int = Field(default=8, ge=0, le=30)
    """Augmentation: windows are played faster or slower by at most this many percent."""

    velocity_steps: int = Field(default=1, ge=0, le=8)
    """Augmentation: windows are made louder or softer by at most this many steps of four MIDI velocities."""

    drop_emotion: Share = 0.1
    """Share of windows whose emotion is hidden; guidance needs some of these."""

    drop_plan: Share = 0.5
    """Share of windows whose whole plan is hidden."""

    drop_plan_entry: Share = 0.2
    """Share of single plan entries hidden in the other windows."""

    drop_remaining: Share = 0.1
    """Share of windows whose time remaining is hidden."""

    drop_chart: Share = 0.25
    """With --chart: share of windows whose beat and chords are hidden."""

    drop_beat: Share = 0.05
    """With --chart: share of windows whose beat alone is hidden."""

    drop_chords: Share = 0.15
    """With --chart: share of windows whose chords alone are hidden."""

    drop_beat_at_note: Share = 0.1
    """With --chart: share of single notes whose beat is hidden, so that a piece that slips off the beat recovers."""

    drop_recall: Share = 0.25
    """With --chart: share of windows in which what was played before is hidden."""


class SampleSettings(Section):
    """How pieces are sampled from the network."""

    temperature: float = Field(default=0.8, gt=0, le=5)
    """Boldness in pitch: lower is safer, higher wilder. Rhythm, loudness and note length do not depend on it."""

    top_p: float = Field(default=0.9, gt=0, le=1)
    """Sample pitches from the likeliest values that together have this probability."""

    min_p: float = Field(default=0.0, ge=0, lt=1)
    """Sample pitches from values at least this fraction as likely as the likeliest one (0: no limit)."""

    top_k: int = Field(default=0, ge=0)
    """Sample pitches from this many likeliest values (0: no limit)."""

    guidance: float = Field(default=1.5, ge=0, le=10)
    """How strongly emotion and plan are followed: 1 as learnt, above 1 exaggerated (twice the work)."""

    device: Device = "cpu"
    """Where to compute; a single piece is fastest on the CPU."""

    precision: Literal["float32", "int8"] = "float32"
    """Type of the weights; with int8 a CPU composes up to 6 pieces of a base model twice as fast; they differ."""

    threads: int = Field(default=0, ge=0, le=1024)
    """CPU cores (0: one for a few pieces; for more, one fewer than there are, at most 3)."""


class Settings(Section):
    """All sections. Precedence: flags, environment, ./emogen.toml, user config, defaults (see ``load``)."""

    paths: PathsSettings = PathsSettings()
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    sample: SampleSettings = SampleSettings()


OPTIONS = {
    f"{section}.{name}": field
    for section, part in Settings.model_fields.items()
    for name, field in type(part.default).model_fields.items()
}
"""Every option under its full name, such as ``train.epochs``."""

REMOVED = {
    "sample.best_of": "it is no setting since 0.4.0: emogen generate --best-of 4 chooses by ear",
    "train.tensorboard": "curves.png and log.jsonl hold the same; it is gone since 0.4.0: take it out",
}
"""Options of earlier versions, with what became of them."""

TEST_DATA = "EMOGEN_TEST_DATA"
"""The one variable with this prefix that is not an option: where the tests find a corpus."""

LOCAL_CONFIG = Path("emogen.toml")
"""The configuration file of the working directory."""


def in_home(kind: Literal["cache", "config"]) -> Path:
    """The user's folder of a kind; a path from ``~``, which is not there, where the user has no home."""
    try:
        return {"cache": user_cache_path, "config": user_config_path}[kind]("emogen", appauthor=False)
    except RuntimeError:
        return Path("~", f".{kind}", "emogen")


def user_config() -> Path:
    """The user's own configuration file, whether or not it exists."""
    return in_home("config") / "emogen.toml"


def default_home() -> Path:
    """What ``paths.home`` means when it is not set: the user cache.

    Raises:
        UsageError: this user has no home.
    """
    path = in_home("cache")
    if not path.is_absolute():
        raise UsageError("this user has no home folder to keep prepared data in", "name a folder with --home")
    return path


def flag(option: str) -> str:
    """The command-line flag of an option: ``--epochs`` for ``train.epochs``."""
    extra = OPTIONS[option].json_schema_extra
    own = extra.get("flag") if isinstance(extra, dict) else None
    return str(own or "--" + option.partition(".")[2].replace("_", "-"))


def variable(option: str) -> str:
    """The environment variable of an option: ``EMOGEN_TRAIN__EPOCHS`` for ``train.epochs``."""
    return "EMOGEN_" + option.upper().replace(".", "__")


@dataclass(frozen=True)
class Loaded:
    """The settings, and where each value came from."""

    settings: Settings
    origin: dict[str, str]
    """By option: "flag --epochs", "environment EMOGEN_TRAIN__EPOCHS", a file's path, "default" or "size base"."""


Given = dict[str, tuple[Any, str]]
"""By option: an unchecked value, and where it was given."""


def load(flags: Mapping[str, Mapping[str, Any]] | None = None) -> Loaded:
    """The settings of this run: flags, else environment, ./emogen.toml, user config, defaults.

    Args:
        flags: the values given on the command line, by section.

    Raises:
        UsageError: an unknown option or a wrong value, with its place and the allowed values; a file that is not TOML.
    """
    given = _from_file(user_config()) | _from_file(LOCAL_CONFIG) | _from_environment() | _from_flags(flags or {})
    tree: dict[str, dict[str, Any]] = {}
    for option, (value, _) in given.items():
        section, _, name = option.partition(".")
        tree.setdefault(section, {})[name] = value
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise _refusal(error.errors()[0], given) from None

    origin = dict.fromkeys(OPTIONS, "default") | {option: where for option, (_, where) in given.items()}
    for name in SIZES[settings.model.size]:
        if not float(tree.get("model", {}).get(name, 0)):
            origin[f"model.{name}"] = f"size {settings.model.size}"
    return Loaded(settings, origin)


def _from_file(path: Path) -> Given:
    where = str(path) if path.is_absolute() else f"./{path}"
    if path.exists() and not path.is_file():
        raise UsageError(f"{where} is a folder, a pipe or a device, not a file", "`emogen config init` writes one")
    try:
        tables = tomllib.loads(path.read_text("utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except RecursionError:
        raise UsageError(f"{where}: tables are nested too deeply", "`emogen config init` writes a valid file") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise UsageError(f"{where}: {error}", "`emogen config init` writes a valid file") from None
    given: Given = {}
    for section, table in tables.items():
        if isinstance(table, dict) and (table or section in Settings.model_fields):
            given |= {f"{section}.{name}": (value, where) for name, value in table.items()}
        else:
            given[section] = (table, where)
    for option, (value, _) in given.items():
        _check_known(option, OPTIONS, where)
        if isinstance(value, int) and value.bit_length() > 63:  # as the format has it
            raise UsageError(f"{where}: {option} is larger than numbers may be")
    return given


def _from_environment() -> Given:
    option_of = {variable(option): option for option in OPTIONS} | {"EMOGEN_HOME": "paths.home"}
    given: Given = {}
    for name, value in sorted(os.environ.items()):  # sorted: EMOGEN_PATHS__HOME comes after, and wins over, EMOGEN_HOME
        if name.startswith("EMOGEN_") and name != TEST_DATA and value:
            _check_known(name, option_of, "environment")
            given[option_of[name]] = (value, f"environment {name}")
    return given


def _from_flags(flags: Mapping[str, Mapping[str, Any]]) -> Given:
    given: Given = {}
    for section, part in flags.items():
        for name, value in part.items():
            option = f"{section}.{name}"
            _check_known(option, OPTIONS, "flags")
            given[option] = (value, f"flag {flag(option)}")
    return given


def _check_known(name: str, known: Mapping[str, object], where: str) -> None:
    if name not in known:
        removed = next((hint for option, hint in REMOVED.items() if name in (option, variable(option))), "")
        last = name.lower().replace("__", ".").rpartition(".")[2]
        namesake = next((one for one in known if one.lower().replace("__", ".").endswith(f".{last}")), None)
        near = f"did you mean '{namesake}'?" if namesake else suggest(name, known)
        raise UsageError(
            f"{where}: unknown option '{name}'", removed or near or "`emogen config show` lists every option"
        )


def _refusal(error: ErrorDetails, given: Given) -> UsageError:
    """The error about a value that pydantic refused."""
    option = ".".join(map(str, error["loc"][:2]))
    rule = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if option not in given:  # options of a section that do not fit together
        involved = [where for name, (_, where) in given.items() if name.startswith(f"{option}.")]
        return UsageError(f"{', '.join(dict.fromkeys(involved))}: {rule}")
    value, where = given[option]
    choices = [choice for choice in get_args(OPTIONS[option].annotation) if isinstance(choice, str)]
    return UsageError(
        f"{where}: {option} = {value} {rule}", suggest(str(value), choices) or OPTIONS[option].description or ""
    )
