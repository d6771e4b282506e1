"""Recipe, Cell and Matrix: what is trained and measured, validated, frozen and hashable."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from backbones.names import BackboneName
from backbones.registry import did_you_mean

Precision = Literal["fp32", "bf16", "fp16"]


class Spec(BaseModel):
    """Frozen, and strict about names: an unknown field is an error, not a silent nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Recipe(Spec):
    """Optimiser, schedule, augmentation and sampling of a cell. Defaults are AIM's on Kinetics-400 (released code)."""

    epochs: int = Field(30, ge=1)
    batch_size: int = Field(64, ge=1, description="clips a step; the rate is not scaled with it")
    lr: float = Field(3e-4, gt=0, le=10, description="peak rate of everything but the head")
    head_lr: float = Field(3e-4, gt=0, le=10, description="peak rate of the head")
    time_lr: float | None = Field(
        None, gt=0, le=10, description="peak rate of the temporal embedding; as lr if not set"
    )
    weight_decay: float = Field(0.05, ge=0, le=10, description="none on norms, CLS tokens, position embeddings")
    betas: tuple[float, float] = Field((0.9, 0.999), description="of AdamW, each in 0..1")
    warmup_epochs: float = Field(2.5, ge=0)
    warmup_start: float = Field(0.1, gt=0, le=1, description="first rate of the linear warm-up / peak rate")
    schedule: Literal["epoch", "step"] = Field("epoch", description="how often the cosine to 0 is stepped")
    drop_path: float = Field(0.2, ge=0, lt=1, description="of the last block, linear from 0 at the first")
    dropout: float = Field(0.5, ge=0, lt=1, description="before the head")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    crop_area: tuple[float, float] = Field((0.08, 1.0), description="range of the random crop's area / frame's area")
    flip: bool = Field(True, description="horizontal flips in training")

    @model_validator(mode="after")
    def _ranges(self) -> Recipe:
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_area is {low:g}, {high:g}: expected 0 < low <= high <= 1")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {self.betas}: expected two numbers in 0..1, 1 excluded")
        return self


class Cell(Spec):
    """One fully specified training and its measurements."""

    backbone: str = Field(description="family:model")
    weights: str = Field(description="a tag, a file, or none (random)")
    strategy: str
    options: dict[str, Any] = Field(default_factory=dict, description="of the strategy, all of them")
    dataset: str
    data_root: str | None = None
    frames: int = Field(ge=1)
    clips: int = Field(ge=1, description="test clips a video")
    crops: Literal[1, 3]
    seed: int = Field(ge=0, lt=2**31)
    recipe: Recipe
    device: str = Field(description="type of the device: cpu, cuda or mps")
    precision: Precision
    order_test: bool = Field(True, description="also evaluate with the frames reversed and shuffled")

    def canonical(self) -> str:
        """The cell as JSON with sorted keys and no spaces: equal cells, equal text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    @property
    def key(self) -> str:
        """First 10 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:10]

    @property
    def backbone_name(self) -> BackboneName:
        family, _, model = self.backbone.partition(":")
        return BackboneName(family, model, self.weights)

    @property
    def weights_label(self) -> str:
        """The weights as tables show them: a tag, or a file's name without its folders."""
        file = self.backbone_name.file
        return self.weights if file is None else file.name

    @property
    def label(self) -> str:
        """What a person calls the cell: backbone, strategy, frames and seed."""
        return f"{self.backbone}@{self.weights_label} {self.strategy} {self.frames}f seed {self.seed}"

    @property
    def folder(self) -> str:
        """`<name>-<key>`, the cell's folder in a run."""
        name = f"{self.backbone}-{self.weights_label}-{self.strategy}-{self.dataset}-{self.frames}f-s{self.seed}"
        return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[:80]}-{self.key}"

    def __hash__(self) -> int:
        return hash(self.canonical())

    def model_key(self) -> str:
        """Equal for cells whose trained model and batch are built alike: what speed, memory and counts depend on."""
        shape = self.model_dump(mode="json", exclude={"seed", "clips", "crops", "order_test", "recipe"})
        shape["recipe"] = {"batch_size": self.recipe.batch_size, "drop_path": self.recipe.drop_path}
        return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:10]


def _listed(value: Any) -> Any:
    """A comma list, a single value or a list -> a list without repetitions."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    elif isinstance(value, int | float | bool):
        value = [value]
    return list(dict.fromkeys(value)) if isinstance(value, list | tuple) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], BeforeValidator(_listed), Field(min_length=1)]
FrameCounts = Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], BeforeValidator(_listed)]


class Matrix(Spec):
    """What one command asks for: the axes, and what holds for all cells. `bench.matrix.expand` makes the cells."""

    backbones: Names = Field(("clip", "vit"), description="family[:model][@weights], or all")
    strategies: Names = Field(("all",), description="names of strategies, or all")
    datasets: Names = Field(("motion",), description="names of data sets")
    frames: FrameCounts = Field((), description="frames of a clip; empty: the data set's own")
    seeds: Seeds = Field((0,), description="one training each")
    data_root: Path | None = Field(None, description="folder of the videos")
    recipe: dict[str, Any] = Field(default_factory=dict, description="changes to the recipe, for every cell")
    recipe_by_strategy: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="changes to the recipe of single strategies, by name"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="options of the strategies that take them")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$", description="auto, cpu, cuda, cuda:N or mps")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    order_test: bool = True


class Request(Matrix):
    """A matrix and how to run it: the fields of `bench run` and of its YAML file."""

    out: Path | None = Field(None, description="folder of the run")
    workers: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    loader_workers: int = Field(0, ge=0, le=256, description="decoding processes of each cell's loader")
    plugins: Names | tuple[()] = Field((), description="Python files or modules that register backbones or strategies")

    @property
    def matrix(self) -> Matrix:
        return Matrix(**{name: getattr(self, name) for name in Matrix.model_fields})


def problems_of(error: ValidationError, where: str = "", known: tuple[str, ...] = ()) -> list[str]:
    """A pydantic error as sentences with the bad value and what was expected.

    Args:
        error: what pydantic found.
        where: put before the field's name ("recipe").
        known: valid field names, for "did you mean".
    """
    sentences = []
    for found in error.errors():
        path = ".".join(str(part) for part in found["loc"] if not str(part).startswith(("function-", "constrained")))
        name = ".".join(part for part in (where, path) if part)
        if found["type"] == "extra_forbidden":
            listed = ", ".join(known)
            sentences.append(f"unknown name {name!r}: expected one of {listed}{did_you_mean(path, known)}")
        elif found["type"] == "value_error":
            sentences.append(f"{where + ': ' if where else ''}{found['msg'].removeprefix('Value error, ')}")
        else:
            reason = found["msg"].removeprefix("Input should be ").replace("Input should have", "expected")
            sentences.append(f"{name} is {found['input']!r}: expected {reason}")
    return sentences
