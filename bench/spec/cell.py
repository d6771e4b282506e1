"""Cell: one fully specified training and its measurements, and the key that it is known by."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache, cached_property
from typing import Any, Literal, Self

from pydantic import Field

from backbones.kernels.switch import Kernels
from backbones.names import BackboneName
from bench.spec.fields import MAX_FRAMES, MAX_SIDE, Decoder, FrozenModel, Pixels, Precision
from bench.spec.recipe import Recipe
from bench.spec.source import DataSource, Views
from bench.spec.tuning import Trial, Tuning

# fields that came after cells were keyed: the keys of cells that do not set them stay what they were
_LATER = {
    "input_size",
    "kernels",
    "head",
    "stages",
    "classes",
    "model_file",
    "split",
    "pixels",
    "train_fraction",
    "head_options",
    "trial",
    "tuning",
    "cache_features",
}

Stage = Literal["measure", "train", "evaluate"]
STAGES: tuple[Stage, ...] = ("measure", "train", "evaluate")


class ModelFile(FrozenModel):
    """The file that an evaluated model comes from.

    Attributes:
        path: where it lies, as it was found.
        sha256: of its content.
        layout: whose names its tensors have: aim-bench or released.
    """

    path: str
    sha256: str
    layout: str


class Cell(FrozenModel):
    """One fully specified model and what is done with it: by default a training and its measurements.

    A profile is a cell that stops after its measurements, an evaluation one without a training. Parameters and
    multiply-accumulates are counted in every case.
    """

    backbone: str = Field(description="family:model")
    weights: str = Field(description="a tag, a file, or none (random)")
    strategy: str
    options: dict[str, Any] = Field(default_factory=dict, description="of the strategy, all of them")
    head: str = Field("linear", description="what scores the classes")
    head_options: dict[str, Any] = Field(default_factory=dict, description="of the head, all of them")
    dataset: str = Field(description="its name; empty where no stage reads videos")
    data: DataSource = Field(default_factory=DataSource, description="where the data set lies")
    frames: int = Field(ge=1, le=MAX_FRAMES)
    input_size: int | None = Field(
        None, ge=1, le=MAX_SIDE, description="side of the model's frames, in pixels; not set: the backbone's own"
    )
    clips: int = Field(ge=1, description="test clips a video")
    crops: Literal[1, 3]
    view_side: int | None = Field(
        None, ge=1, description="pixels of the short side before the test's crop; the model's input if not set"
    )
    seed: int = Field(ge=0, lt=2**31)
    train_fraction: float = Field(
        1.0, gt=0, le=1, description="share of the training videos that it trains on; which ones follows from the seed"
    )
    recipe: Recipe
    device: str = Field(description="type of the device: cpu, cuda or mps")
    precision: Precision
    decoder: Decoder = Field("auto", description="which library decodes the videos")
    order_test: bool = Field(True, description="also evaluate with the frames reversed and shuffled")
    cache_format: Literal["raw", "jpeg"] = Field("raw", description="jpeg: every frame went through a JPEG picture")
    cache_features: bool = Field(
        False, description="trains on features of one fixed clip a video, computed once by the frozen backbone"
    )
    compile: bool = Field(False, description="the step goes through torch.compile")
    checkpoint_activations: bool = Field(False, description="blocks are computed again for their gradients")
    kernels: Kernels = Field("fast", description="plain: PyTorch's own operations in place of hand-written ones")
    sources: dict[str, str] = Field(
        default_factory=dict, description="hashes of weight, list and plugin files and of rendered videos"
    )

    stages: tuple[Stage, ...] = Field(STAGES, description="what is done, in this order; none: the model is counted")
    classes: int | None = Field(None, ge=1, description="of the head; not set: the data set's")
    model_file: ModelFile | None = Field(None, description="where the trained model is; not set: it is built anew")
    split: Literal["val", "test"] = Field("test", description="which list is evaluated")
    pixels: Pixels = Field("own", description="how frames are resized")
    trial: Trial | None = Field(None, description="of a search for a recipe; not set: a cell of the table")
    tuning: Tuning | None = Field(None, description="how its recipe was chosen; not set: it was not")

    @cached_property
    def key(self) -> str:
        """First 10 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:10]

    def __copy__(self) -> Self:
        return super().__copy__()._without_key()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return super().__deepcopy__(memo)._without_key()

    def _without_key(self) -> Self:
        """A copy whose key is not yet known: `model_copy` is about to give it other values."""
        self.__dict__.pop("key", None)
        return self

    @property
    def backbone_name(self) -> BackboneName:
        family, _, model = self.backbone.partition(":")
        return BackboneName(family, model, self.weights)

    @property
    def weights_label(self) -> str:
        return self.backbone_name.weights_label

    @property
    def backbone_label(self) -> str:
        """The backbone as tables show it: its weights, and its input size where that is not its own."""
        return sized_label(f"{self.backbone}@{self.weights_label}", self.input_size)

    @property
    def views(self) -> Views:
        """Views of a tested video."""
        return Views(self.clips, self.crops, self.view_side)

    @property
    def protocol(self) -> str:
        """Frames x clips x crops of a tested video, as papers write it: 8x3x1; 8x1x1@256 where crops are smaller."""
        return f"{self.frames}x{self.views}"

    @property
    def label(self) -> str:
        """Name of the cell for people: backbone, strategy, head if not the usual one, frames, a training's share of the
        videos if not all, and its seed; of a trial its number."""
        name = f"{self.backbone_label} {self.method} {self.frames}f"
        if self.train_fraction != 1:
            name += f" {self.train_percent}"
        if self.trial is not None:
            return f"{name} trial {self.trial.number}"
        return f"{name} seed {self.seed}" if "train" in self.stages else name

    @property
    def drawn_by(self) -> tuple[float, int]:
        """Fraction and seed that decide which of the training videos are taken; every seed takes all of them."""
        return self.train_fraction, 0 if self.train_fraction == 1 else self.seed

    @property
    def train_percent(self) -> str:
        """Share of the training videos as tables show it: 5 %."""
        return f"{100 * self.train_fraction:g} %"

    @property
    def method(self) -> str:
        """Strategy, and head where that is not the linear one."""
        return self.strategy if self.head == "linear" else f"{self.strategy}+{self.head}"

    @property
    def folder(self) -> str:
        """`<name>-<key>`, the cell's folder in a run."""
        part = "" if self.train_fraction == 1 else f"{100 * self.train_fraction:g}pct"
        which = f"s{self.seed}" if self.trial is None else f"trial{self.trial.number}"
        parts = (self.backbone_label, self.method, self.dataset, f"{self.frames}f", part, which)
        name = "-".join(part for part in parts if part)
        return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[:80]}-{self.key}"

    def _left_out(self) -> set[str]:
        return {name for name, default in _later_defaults().items() if getattr(self, name) == default}

    def model_key(self) -> str:
        """Return a key of what speed, memory and counts depend on: equal for cells that build model and batch alike."""
        testing = {"clips", "crops", "view_side", "order_test", "decoder", "cache_format", "cache_features"}
        # measurements that a run made before these were fields stay valid
        later = {"stages", "model_file", "split", "pixels", "train_fraction", "trial", "tuning"}
        later |= {name for name in ("kernels", "head", "head_options", "classes") if name in self._left_out()}
        shape = self.model_dump(mode="json", exclude={"seed", "recipe", *testing, *later})
        shape["recipe"] = self.recipe.model_dump(include={"batch_size", "drop_path", "drop_path_mode"})
        if (tuned := self.tuning or self.trial) is not None and "drop_path" in tuned.untuned:
            # another rate of dropping is as much work: all trials share their strategy's measurements
            shape["recipe"]["drop_path"] = tuned.untuned["drop_path"]
        return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:10]


@cache
def _later_defaults() -> dict[str, Any]:
    return {name: Cell.model_fields[name].get_default(call_default_factory=True) for name in _LATER}


def sized_label(label: str, size: int | None) -> str:
    """Return a backbone's label, with its input size where that is not its own."""
    return label if size is None else f"{label} {size}px"
