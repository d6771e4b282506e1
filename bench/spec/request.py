"""Matrix and Request: the cells that one command asks for, and how to run them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from backbones.kernels.switch import Kernels
from bench.spec.fields import (
    Cache,
    CacheLimit,
    Decoder,
    FrameCounts,
    InputSize,
    LoaderWorkers,
    Names,
    Place,
    Plugins,
    Seeds,
    TestViews,
    Workers,
    device_name,
)
from bench.spec.frozen import FrozenModel
from bench.spec.recipe_entries import RecipeEntry
from bench.spec.source import DataSource, Fold, LabelsFrom


class Matrix(FrozenModel):
    """Request of one command: the axes, and what holds for all cells. `bench.run.matrix.expand` makes the cells."""

    backbones: Names = Field(("clip", "vit"), description="family[:model][@weights], or all")
    strategies: Names = Field(("all",), description="names of strategies, or all")
    heads: Names = Field(("linear",), description="names of heads, or all")
    datasets: Names = Field(("motion",), description="names of data sets, or all")
    frames: FrameCounts = Field((), description="frames of a clip; empty: the data set's own")
    input_size: InputSize = Field(
        None, description="side of the models' frames, in pixels; not set: each backbone's own"
    )
    seeds: Seeds = Field((0,), description="one training each")
    views: TestViews = Field(
        None, description="of the test, clips x crops, such as 3x1 or 1x1@256; not set: the data set's own"
    )
    data_root: Place | None = Field(None, description="folder of the videos")
    train_list: Place | None = Field(None, description="list of the training videos; else found under data_root")
    val_list: Place | None = Field(None, description="list of the validation videos; else found under data_root")
    test_list: Place | None = Field(None, description="list of the test videos; else the validation's")
    class_names: Place | None = Field(None, description="file of the classes' names")
    fold: Fold | None = Field(None, description="which of the three official splits of ucf101 and hmdb51")
    labels_from: LabelsFrom = Field(0, description="the first class's number in the lists")
    recipe: dict[str, Any] = Field(default_factory=dict, description="changes to the recipe, for every cell")
    recipe_by_strategy: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="changes to the recipe of single strategies, by name"
    )
    recipes: dict[str, RecipeEntry] = Field(
        default_factory=dict, description="entries as in bench/recipes, which win over those; see bench list recipes"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="options of the strategies that take them")
    device: Annotated[str, AfterValidator(device_name)] = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    decoder: Decoder = Field("auto", description="auto, decord, pyav or torchcodec")
    order_test: bool = True
    cache_format: Literal["raw", "jpeg"] = Field("raw", description="how the cache keeps frames; jpeg changes pixels")
    compile: bool | None = Field(None, description="torch.compile; not set: where it saves more than it costs")
    checkpoint_activations: bool = Field(False, description="less memory, more time, the same numbers")
    kernels: Kernels = Field("fast", description="plain: no hand-written kernels, for debugging and to measure them")

    @property
    def source(self) -> DataSource:
        """Place of the data sets."""
        return DataSource.of(
            root=self.data_root,
            train_list=self.train_list,
            val_list=self.val_list,
            test_list=self.test_list,
            class_names=self.class_names,
            fold=self.fold,
            labels_from=self.labels_from,
        )


class Request(Matrix):
    """A matrix and how to run it: the fields of `bench run` and of its YAML file."""

    out: Place | None = Field(None, description="folder of the run")
    engine: str = Field("local", description="what executes the cells; see bench.run.engines.base")
    workers: Workers = "auto"
    loader_workers: LoaderWorkers = Field("auto", description="decoding processes of each cell")
    decode_timeout: float = Field(60.0, gt=0, le=86400, description="seconds after which a clip counts as broken")
    strict: bool = Field(False, description="a video that cannot be read, or a class without one, is an error")
    cache: Cache = Field("auto", description="where decoded frames are kept: auto, ram, disk or off")
    cache_limit: CacheLimit = Field(None, description="bytes, such as 20GB or 1.5GiB")
    plugins: Plugins = Field((), description="Python files or modules that register backbones or strategies")

    @property
    def matrix(self) -> Matrix:
        return Matrix(**{name: getattr(self, name) for name in Matrix.model_fields})
