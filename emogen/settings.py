"""Every option of emogen, written once: its name, type, range, default and help text.

The tree is frozen. A field's docstring is its help text, its comment in ``emogen.toml`` and its flag's description.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(ge=0, lt=1)]
Device = Literal["auto", "cpu", "cuda", "mps"]

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"d_model": 128, "n_layers": 3, "n_heads": 4, "context_notes": 256},
    "small": {"d_model": 256, "n_layers": 6, "n_heads": 4, "context_notes": 512},
    "base": {"d_model": 512, "n_layers": 6, "n_heads": 8, "context_notes": 512},
}
"""The named sizes: about 0.8, 6 and 26 million parameters."""


class Section(BaseModel):
    """One part of the settings: frozen, and a key it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


class PathsSettings(Section):
    """Where things are kept."""

    home: Path | None = None
    """Folder for prepared data (default: the user cache; the variable EMOGEN_HOME sets it too)."""

    runs: Path = Path("runs")
    """Folder that holds one sub-folder a training run."""


class DataSettings(Section):
    """How a corpus is read and split."""

    split: Literal["song", "official"] = "song"
    """Stratified 70/15/15 by whole songs, or the split files that EMOPIA ships."""

    split_seed: Seed = 0
    """Seed of the split by song."""

    any_instrument: bool = False
    """Take files without a piano program too, all their pitched instruments merged."""

    workers: int = Field(default=0, ge=0, le=256)
    """Processes that read files (0: one a core)."""


class ModelSettings(Section):
    """The shape of the network. A number left out comes from the named size."""

    size: Literal["tiny", "small", "base"] = "base"
    """Named size: about 0.8, 6 or 26 million parameters."""

    d_model: int = Field(default=0, ge=0, le=8192)
    """Width of the network; a multiple of twice n_heads (0: by size)."""

    n_layers: int = Field(default=0, ge=0, le=128)
    """Transformer blocks (0: by size)."""

    n_heads: int = Field(default=0, ge=0, le=128)
    """Attention heads of each block (0: by size)."""

    context_notes: int = Field(default=0, ge=0, le=65536, json_schema_extra={"flag": "--max-seq-len"})
    """Longest stretch of music the network sees at once, in notes (0: by size)."""

    dropout: Share = 0.1
    """Share of activations dropped in training, on the residual stream and the embeddings."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_size(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        size = SIZES.get(values.get("size", "base"), {})
        return values | {name: number for name, number in size.items() if not values.get(name)}

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ModelSettings:
        if self.d_model % (2 * self.n_heads):
            raise ValueError(f"d_model {self.d_model} is not a multiple of twice n_heads {self.n_heads}")
        return self


class TrainSettings(Section):
    """How the network learns."""

    epochs: int = Field(default=50, ge=1)
    """Passes over the training windows."""

    batch_size: int = Field(default=8, ge=1)
    """Windows of music an optimizer step."""

    accumulate: int = Field(default=1, ge=1)
    """Parts that a batch is computed in, one after the other, to save memory; the result is that of the whole."""

    learning_rate: float = Field(default=1e-3, gt=0, lt=1)
    """Highest learning rate, reached after the warm-up; a cosine takes it down to a twentieth."""

    warmup_steps: int = Field(default=100, ge=0)
    """Steps over which the learning rate rises from zero."""

    weight_decay: float = Field(default=0.1, ge=0)
    """AdamW's decay of the weight matrices."""

    grad_clip: float = Field(default=1.0, gt=0)
    """Longest gradient (L2 norm) a step may use."""

    seed: Seed = 0
    """Seed of the weights, the order of the windows, augmentation and dropout."""

    device: Device = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""

    precision: Literal["auto", "bf16", "float32"] = "auto"
    """Arithmetic of the forward pass; auto takes bfloat16 where the device computes faster with it."""

    threads: int = Field(default=0, ge=0, le=1024)
    """CPU threads (0: one fewer than the cores, at most 3, so that a busy neighbour does not stall every step)."""

    patience: int = Field(default=0, ge=0)
    """Stop after so many epochs without a better valid loss (0: never)."""

    checkpoint_every: int = Field(default=5, ge=1)
    """Epochs between the periodic checkpoints."""

    keep_periodic: int = Field(default=2, ge=1)
    """Periodic checkpoints kept; older ones are removed."""

    keep_best: int = Field(default=3, ge=1)
    """Best checkpoints kept, by valid loss."""

    save_every_s: float = Field(default=15.0, gt=0)
    """Seconds between saves of 'last' within an epoch; a save that is slow is made less often."""

    tensorboard: bool = False
    """Also write TensorBoard events into the run folder (pip install 'emogen-piano[tensorboard]')."""

    key_semitones: int = Field(default=5, ge=0, le=12)
    """Augmentation: windows are moved up or down by at most so many semitones."""

    tempo_percent: int = Field(default=8, ge=0, le=30)
    """Augmentation: windows are played faster or slower by at most so many percent."""

    velocity_steps: int = Field(default=1, ge=0, le=8)
    """Augmentation: windows are made louder or softer by at most so many steps of four MIDI velocities."""

    drop_emotion: Share = 0.1
    """Share of windows whose emotion is hidden; guidance needs some."""

    drop_plan: Share = 0.5
    """Share of windows whose whole plan is hidden."""

    drop_plan_entry: Share = 0.2
    """Share of the single plan entries hidden in the other windows."""

    drop_remaining: Share = 0.1
    """Share of windows whose time remaining is hidden."""


class SampleSettings(Section):
    """How pieces are drawn from the network."""

    temperature: float = Field(default=1.0, gt=0, le=5)
    """Boldness in pitch, velocity and duration: below 1 safer, above 1 wilder. Onsets are always drawn at 1."""

    top_p: float = Field(default=0.95, gt=0, le=1)
    """Draw pitch, velocity and duration from the likeliest values that together hold this probability."""

    top_k: int = Field(default=0, ge=0)
    """Draw pitch, velocity and duration from so many likeliest values (0: no limit)."""

    guidance: float = Field(default=1.0, ge=0, le=10)
    """How strongly the emotion and plan are followed: 1 as learnt, above 1 exaggerated (twice the work)."""

    device: Device = "cpu"
    """Where to compute; one piece at a time is fastest on the CPU."""

    threads: int = Field(default=0, ge=0, le=1024)
    """CPU threads (0: one fewer than the cores, at most 3)."""


class Settings(Section):
    """All sections. Precedence: flags, environment, ./emogen.toml, user config, defaults (see ``load``)."""

    paths: PathsSettings = PathsSettings()
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    sample: SampleSettings = SampleSettings()
