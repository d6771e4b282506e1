"""Matrix and Request: the cells that one command asks for, and how to run them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from backbones.kernels.switch import Kernels
from bench.errors import UserError
from bench.spec.fields import (
    MATRIX,
    RECIPE,
    RUNNING,
    Cache,
    CacheLimit,
    Decoder,
    Flag,
    Fractions,
    FrameCounts,
    FrozenModel,
    InputSize,
    LoaderWorkers,
    Names,
    Pixels,
    Plugins,
    Seeds,
    Trackers,
    UserPath,
    Workers,
    device_name,
    problems_of,
)
from bench.spec.recipe import Recipe
from bench.spec.recipe_entries import RecipeEntry
from bench.spec.source import DataOptions, TestViews


class DeviceOptions(FrozenModel):
    """Fields of every request that builds a model."""

    device: Annotated[str, AfterValidator(device_name), Flag(RUNNING)] = Field(
        "auto", description="auto, cpu, cuda, cuda:N or mps"
    )
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], Flag(RUNNING)] = Field(
        "auto", description="Number format of the arithmetic"
    )
    kernels: Annotated[Kernels, Flag(RUNNING, metavar="fast|plain")] = Field(
        "fast",
        description="fast, or plain: PyTorch's own operations in place of what is written by hand for speed, to debug "
        "it or to measure what it gives",
    )


class PluginOptions(FrozenModel):
    """Field of every request whose backbones, strategies or data sets may be a user's own."""

    plugins: Annotated[Plugins, Flag(RUNNING, name="plugin", repeated=True)] = Field(
        (), description="A Python file or module that registers backbones, strategies or data sets"
    )


class PixelOptions(FrozenModel):
    """Fields of every request that reads videos and on which the pixels depend."""

    decoder: Annotated[Decoder, Flag(RUNNING)] = Field(
        "auto",
        description="auto (decord, and PyAV where decord cannot or would misread), decord, pyav or torchcodec",
    )
    cache_format: Annotated[Literal["raw", "jpeg"], Flag(RUNNING)] = Field(
        "raw", description="Format of cached frames: raw, or jpeg: smaller, other pixels, and a footnote"
    )


class RankOptions(FrozenModel):
    """Field of every request whose cells may be executed by several processes each."""

    processes_per_cell: Annotated[int, Flag(RUNNING)] = Field(
        1,
        ge=1,
        le=256,
        description="Processes that train and evaluate each cell together, each on a GPU of its own or with its share "
        "of a CPU's threads: the same batches, clips and recipe",
    )


class ReadingOptions(PixelOptions):
    """Fields of every request that reads videos."""

    loader_workers: Annotated[LoaderWorkers, Flag(RUNNING, metavar="INTEGER|auto")] = Field(
        "auto",
        description="Decoding processes of each cell, which cells side by side share, as many as cores at most; "
        "0 decodes without them, and without a limit in seconds; auto: the cores divided among the cells that run side "
        "by side, at most 16, none for the embedded data set",
    )
    decode_timeout: Annotated[float, Flag(RUNNING, metavar="SECONDS")] = Field(
        60.0, gt=0, le=86400, description="Seconds after which a clip's video counts as broken"
    )
    strict: Annotated[bool, Flag(RUNNING)] = Field(
        False,
        description="A video that cannot be read is an error: its cell fails. So is a class without a training video: "
        "nothing runs",
    )
    cache: Annotated[Cache, Flag(RUNNING)] = Field(
        "auto",
        description="Store of decoded frames for other epochs, cells and workers: ram, disk, off, or auto: what "
        "`bench data prepare` left on the disk, else ram where all fit",
    )
    cache_limit: Annotated[CacheLimit, Flag(RUNNING, metavar="SIZE", default="a share of what is free")] = Field(
        None, description="Size of the cache at most, such as 20GB or 1.5GiB"
    )


class Matrix(DataOptions, PixelOptions, DeviceOptions):
    """Axes of one command, and what holds for all cells. `bench.run.matrix.expand` makes the cells."""

    backbones: Annotated[Names, Flag(MATRIX)] = Field(
        ("clip", "vit"),
        description="Comma list of family[:model][@weights], such as clip,vit:vit_base_patch16_224.augreg_in21k, or "
        "all",
    )
    strategies: Annotated[Names, Flag(MATRIX)] = Field(
        ("all",), description="Comma list of strategies; all: those of AIM's paper; field: other papers' as well"
    )
    heads: Annotated[Names, Flag(MATRIX)] = Field(("linear",), description="Comma list of heads, or all")
    datasets: Annotated[Names, Flag(MATRIX, name="dataset")] = Field(("motion",), description="Comma list of data sets")
    frames: Annotated[FrameCounts, Flag(MATRIX, default="the data set's")] = Field(
        (), description="Comma list of frames a clip"
    )
    input_size: Annotated[InputSize, Flag(MATRIX, metavar="PIXELS", default="each backbone's own")] = Field(
        None,
        description="Side of the models' frames in pixels, where it is not the backbones' own: positions are "
        "interpolated, a Swin keeps its windows",
    )
    seeds: Annotated[Seeds, Flag(MATRIX)] = Field((0,), description="Comma list of seeds, one training each")
    train_fractions: Annotated[Fractions, Flag(MATRIX, name="train-fraction")] = Field(
        (1.0,),
        description="Comma list of shares of the training videos, such as 0.01,0.1,1: the same share of each class, at "
        "least one video; the smaller subsets lie in the larger ones",
    )
    views: Annotated[TestViews, Flag(MATRIX, metavar="CxK[@S]", default="the data set's")] = Field(
        None,
        description="Views of a test, clips x crops, such as 3x1; 1x1@256 takes the crop from a short side of 256 "
        "pixels",
    )
    options: Annotated[dict[str, Any], Flag(MATRIX, name="option", short="o")] = Field(
        default_factory=dict,
        description="A strategy's option, name=value, such as ratio=0.5; `bench list strategies` names them",
    )
    recipe: Annotated[dict[str, Any], Flag(RECIPE, members=Recipe)] = Field(
        default_factory=dict, description="Any other part of the recipe, name=value"
    )
    recipe_by_strategy: Annotated[dict[str, dict[str, Any]], Flag(hidden=True)] = Field(
        default_factory=dict, description="Changes to the recipe of single strategies, by name"
    )
    recipes: Annotated[dict[str, RecipeEntry], Flag(hidden=True)] = Field(
        default_factory=dict, description="Entries as in bench/recipes, which win over those; see bench list recipes"
    )
    matrices: Annotated[dict[str, dict[str, Any]], Flag(hidden=True)] = Field(
        default_factory=dict,
        description="Several matrices in place of one, by name: of each the fields that differ from those beside",
    )
    tune: Annotated[int, Flag(RECIPE, metavar="N", default="")] = Field(
        0,
        ge=0,
        le=10_000,
        description="Trials of the recipe of each row, the same number for all, before it trains with the best on the "
        "validation videos; 0: none",
    )
    tune_epochs: Annotated[int | None, Flag(RECIPE, default="the training's")] = Field(
        None, ge=1, description="Epochs of a trial"
    )
    tune_space: Annotated[dict[str, Any], Flag(RECIPE, metavar="NAME=RANGE")] = Field(
        default_factory=dict,
        description="Values that trials try, such as lr=1e-4..1e-2, drop_path=fixed or ratio=[0.125,0.25,0.5]; an "
        "option's declared are those that its strategy names",
    )
    tune_seed: Annotated[int, Flag(RECIPE)] = Field(0, ge=0, lt=2**31, description="Seed of the trials' sampler")
    cache_features: Annotated[bool, Flag(RUNNING, one_way=True)] = Field(
        False,
        description="Train what sits on a frozen backbone, such as frozen and evl, on features of one fixed clip a "
        "video, computed once and kept in the frame cache's place: other numbers, and a footnote; the recipe must "
        "augment nothing",
    )
    compile: Annotated[bool | None, Flag(RUNNING, default="large models on a GPU and real data")] = Field(
        None, description="Compile each model's step with torch.compile"
    )
    checkpoint_activations: Annotated[bool, Flag(RUNNING)] = Field(
        False,
        description="Compute each block once more for its gradients: less memory, more time, the same numbers",
    )
    order_test: Annotated[bool, Flag(RUNNING)] = Field(
        True, description="Also evaluate with the frames reversed and shuffled"
    )

    def parts(self) -> list[Matrix]:
        """Return the matrices that it stands for: each of `matrices` over the fields beside it, else itself alone.

        Names and values of a mapping, such as `options`, are laid over those beside it.

        Raises:
            UserError: what is wrong with each.
        """
        base = {name: getattr(self, name) for name in Matrix.model_fields if name != "matrices"}
        if not self.matrices:
            return [Matrix(**base)]
        found: list[Matrix] = []
        problems: list[str] = []
        for name, changes in self.matrices.items():
            problems += [
                f"matrices.{name}.{field} is {value!r}: expected it beside matrices, as all rows get the same effort"
                for field, value in changes.items()
                if field.startswith("tune") and field in base
            ]
            inner = {
                field: {**base[field], **value}
                if isinstance(value, dict) and isinstance(base.get(field), dict)
                else value
                for field, value in changes.items()
            }
            try:
                found.append(Matrix(**{**base, **inner}))
            except ValidationError as error:
                problems += problems_of(error, f"matrices.{name}", tuple(base))
        if problems:
            raise UserError(problems)
        return found


class Request(Matrix, RankOptions, ReadingOptions, PluginOptions):
    """A matrix and how to run it: the fields of `bench run` and of its YAML file."""

    engine: Annotated[str, Flag(RUNNING, metavar="NAME")] = Field(
        "local",
        description="What executes the cells: local, the worker processes of this machine; ray, the tasks of a Ray "
        "cluster; slurm, jobs of a Slurm cluster; or one that a plugin brings",
    )
    ray_address: Annotated[str | None, Flag(RUNNING, metavar="HOST:PORT", default="$RAY_ADDRESS, else local")] = Field(
        None,
        description="Ray cluster: its head, auto for the one of this machine, local for one that ends with the run",
    )
    storage: Annotated[str | None, Flag(RUNNING, metavar="URL", default="the run's folder, through Ray")] = Field(
        None,
        description="Folder or URL (s3://..., gs://...) that all nodes of the engine ray reach, for the checkpoints of "
        "trainings",
    )
    slurm: Annotated[dict[str, Any], Flag(RUNNING)] = Field(
        default_factory=dict,
        description="Of --engine slurm: what its jobs ask for, such as partition=gpu,time=720,gpus_per_node=1",
    )
    cells_per_job: Annotated[int, Flag(RUNNING)] = Field(
        1, ge=1, le=100_000, description="Of --engine slurm: cells of one job; those that share a pass count as one"
    )
    detach: Annotated[bool, Flag(RUNNING, one_way=True)] = Field(
        False, description="Of --engine slurm: leave once the jobs are submitted; `bench status` shows how far they are"
    )
    checkpoint_minutes: Annotated[float, Flag(RUNNING, metavar="MINUTES")] = Field(
        10.0,
        gt=0,
        le=10080,
        description="Time between two checkpoints of a training, from which the same command goes on; one more is "
        "written after each epoch",
    )
    workers: Annotated[Workers, Flag(RUNNING, metavar="INTEGER|auto")] = Field(
        "auto", description="Processes that run cells side by side, or auto: one a GPU, one a core"
    )
    share_pass: Annotated[bool, Flag(RUNNING)] = Field(
        True,
        description="Train cells and trials on the same clips and the same frozen backbone from one forward pass, in "
        "one process: the same numbers in less time; a training's time is then that of all",
    )
    track: Annotated[Trackers, Flag(RUNNING)] = Field(
        (), description="Comma list of trackers that follow the trainings: tensorboard, wandb, mlflow, trackio"
    )
    out: Annotated[UserPath | None, Flag(RUNNING, default="results/DATASET-KEY")] = Field(
        None, description="Folder of the run"
    )

    @property
    def matrix(self) -> Matrix:
        return Matrix(**{name: getattr(self, name) for name in Matrix.model_fields})


class ProfileRequest(DeviceOptions, PluginOptions):
    """Fields of `bench profile`: models, each measured without a data set and without a training."""

    backbones: Annotated[Names, Flag(name="backbone", argument=True)] = Field(
        ("all",), description="Comma list of family[:model][@weights], such as vit or clip:ViT-L-14@none, or all"
    )
    strategies: Annotated[Names, Flag(name="strategy", argument=True)] = Field(
        ("all",), description="Comma list of strategies; all: those of AIM's paper; field: other papers' as well"
    )
    whole: Annotated[bool, Flag(name="all", default="", one_way=True)] = Field(
        False,
        description="The table of every family's base model (or BACKBONE's) with every strategy (or STRATEGY's), in "
        "their published frames and views and with random weights, which change no speed; it goes on where it stopped",
    )
    frames: Annotated[FrameCounts, Flag(default="8, a Swin's 32 with --all")] = Field(
        (), description="Comma list of frames a clip"
    )
    input_size: Annotated[InputSize, Flag(metavar="PIXELS", default="each backbone's own")] = Field(
        None, description="Side of the frames in pixels"
    )
    classes: int = Field(400, ge=1, le=1_000_000, description="Classes of the head")
    views: Annotated[TestViews, Flag(metavar="CxK", default="3x1, a Swin's 4x3 with --all")] = Field(
        None, description="Views of a test, clips x crops"
    )
    options: Annotated[dict[str, Any], Flag(name="option", short="o")] = Field(
        default_factory=dict,
        description="A strategy's option, name=value, such as ratio=0.5; `bench list strategies` names them",
    )
    timing: bool = Field(True, description="Measure speed and memory too; without it no weights are loaded")
    batch_size: Annotated[int | None, Flag(default="8, on a CPU 1")] = Field(
        None, ge=1, description="Clips of a timed step"
    )
    compile: bool = Field(False, description="Compile the step with torch.compile")
    checkpoint_activations: bool = Field(
        False, description="Compute each block once more for its gradients: less memory, more time"
    )


class EvaluationRequest(DataOptions, RankOptions, ReadingOptions, DeviceOptions, PluginOptions):
    """Fields of `bench eval`; what is not set is as the model file or the data set has it."""

    checkpoint: Annotated[str, Flag(metavar="FILE")] = Field(
        description="A cell's adapter.safetensors, its folder or RUN/CELL; or a .pth file of AIM's released code"
    )
    dataset: Annotated[str | None, Flag(default="the training's")] = Field(None, description="Name of the data set")
    backbone: Annotated[str | None, Flag(default="the file's")] = Field(
        None, description="Place of the cell's backbone now, or the architecture of a released file"
    )
    strategy: Annotated[str | None, Flag(default="the file's")] = Field(
        None, description="Strategy that the file must hold"
    )
    scale: Annotated[float | None, Flag(default="as published")] = Field(
        None, description="s of the joint adapter, which a released file does not tell"
    )
    frames: Annotated[int | None, Flag(default="the training's")] = Field(None, ge=1, description="Frames of a clip")
    input_size: Annotated[InputSize, Flag(metavar="PIXELS", default="the training's")] = Field(
        None, description="Side of the model's frames in pixels"
    )
    clips: Annotated[int | None, Flag(default="the data set's")] = Field(
        None, ge=1, description="Test clips of a video"
    )
    crops: Annotated[int | None, Flag(default="the data set's")] = Field(None, ge=1, description="1 or 3")
    views: Annotated[TestViews, Flag(metavar="CxK[@S]", default="the data set's")] = Field(
        None,
        description="Clips x crops in one, such as 3x1; 1x1@256 takes the crop from a short side of 256 pixels",
    )
    pixels: Pixels = Field(
        "own", description="Resizing of frames: own, with antialiasing, or released, as AIM's released code does"
    )
    split: Literal["test", "val"] = Field("test", description="List that is evaluated")
    order_test: bool = Field(True, description="Also evaluate with the frames reversed and shuffled")


class PredictionRequest(DeviceOptions, PluginOptions):
    """Fields of `bench predict`; what is not set is as the cell's training has it."""

    cell: Annotated[str, Flag(argument=True, metavar="RUN/CELL")] = Field(
        description="RUN/CELL, the cell's folder or its adapter.safetensors; the key's first digits do for CELL"
    )
    videos: Annotated[tuple[str, ...], Flag(argument=True, repeated=True, metavar="VIDEO")] = Field(
        min_length=1, description="Video files, and folders that are looked through for videos"
    )
    top: int = Field(5, ge=1, description="Classes that are told of each video, the likeliest first")
    batch_size: Annotated[int | None, Flag(RUNNING, default="the training's")] = Field(
        None, ge=1, description="Views computed at once"
    )
    backbone: Annotated[str | None, Flag(default="the file's")] = Field(
        None, description="Place of the cell's backbone now"
    )
    decoder: Annotated[Decoder, Flag(RUNNING)] = Field("auto", description="auto, decord, pyav or torchcodec")
    loader_workers: Annotated[LoaderWorkers, Flag(RUNNING, metavar="INTEGER|auto")] = Field(
        "auto", description="Decoding processes; 0 decodes without them, and without a limit in seconds"
    )
    decode_timeout: Annotated[float, Flag(RUNNING, metavar="SECONDS")] = Field(
        60.0, gt=0, le=86400, description="Seconds after which a video counts as broken"
    )
