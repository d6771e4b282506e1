"""Recipe, Cell and Matrix: what is trained and measured, validated, frozen and hashable."""

from __future__ import annotations

import hashlib
import json
import os
import re
import reprlib
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from backbones.names import BackboneName
from backbones.registry import did_you_mean
from bench.data.decode.names import Decoder
from bench.data.source import DataSource, Fold
from bench.frozen import Spec as Spec
from bench.sizes import parse as parse_size

Precision = Literal["fp32", "bf16", "fp16"]
MAX_FRAMES = 1024  # of a clip


class Recipe(Spec):
    """Optimiser, schedule, augmentation and sampling of a cell. Defaults are AIM's on Kinetics-400 (released code)."""

    epochs: int = Field(30, ge=1)
    batch_size: int = Field(64, ge=1, description="clips a step; the rate is not scaled with it")
    lr: float = Field(3e-4, gt=0, le=10, description="peak rate of everything but the head")
    head_lr: float = Field(3e-4, gt=0, le=10, description="peak rate of the head")
    time_lr: float | None = Field(
        None, gt=0, le=10, description="peak rate of the temporal embedding; as lr if not set"
    )
    time_init: float = Field(
        0.0,
        ge=0,
        le=10,
        description="start of the temporal embedding: sinusoids of this share of the tokens' root mean square; 0: zero",
    )
    weight_decay: float = Field(0.05, ge=0, le=10, description="none on norms, CLS tokens, position embeddings")
    betas: tuple[float, float] = Field((0.9, 0.999), description="of AdamW, each in 0..1")
    warmup_epochs: float = Field(2.5, ge=0)
    warmup_start: float = Field(0.1, gt=0, le=1, description="first rate of the linear warm-up / peak rate")
    schedule: Literal["epoch", "step"] = Field("epoch", description="how often the cosine to 0 is stepped")
    drop_path: float = Field(0.2, ge=0, lt=1, description="of the last block, linear from 0 at the first")
    drop_path_mode: Literal["clip", "released"] = Field(
        "clip",
        description="what loses a branch at once: a clip; released: as in AIM's code, of CLIP a token position in the "
        "whole batch, of ViT a frame, of Swin a frame, over time a token position of a clip",
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="before the head")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    crop_area: tuple[float, float] = Field((0.08, 1.0), description="range of the random crop's area / frame's area")
    flip: bool = Field(True, description="horizontal flips in training")
    colour: float = Field(
        0.0, ge=0, le=1, description="jitter of brightness, contrast, saturation; the hue's is a fifth"
    )
    pca_noise: float = Field(
        0.0, ge=0, le=10, description="AlexNet's lighting noise: standard deviation of the alphas, one draw a clip"
    )
    rand_augment: tuple[Annotated[int, Field(ge=1, le=20)], Annotated[int, Field(ge=0, le=30)]] | None = Field(
        None, description="operations a clip, their magnitude of 0 to 30; none if not set"
    )
    erase: float = Field(0.0, ge=0, le=1, description="share of clips of which a box is erased")
    mixup: float = Field(0.0, ge=0, le=10, description="alpha; 0: off. Beside cutmix, each batch gets one of the two")
    cutmix: float = Field(0.0, ge=0, le=10, description="alpha; 0: off")
    augment_on: Literal["cpu", "device"] = Field(
        "cpu",
        description="where colour, pca_noise, rand_augment and erase are computed: beside decoding, or on the device",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: Any, info: ValidationInfo) -> Any:
        values = value if isinstance(value, list | tuple) else (value,)
        if info.field_name != "flip" and any(isinstance(item, bool) for item in values):
            raise ValueError("expected no true or false")  # pydantic alone takes True for 1
        return value

    @model_validator(mode="after")
    def _ranges(self) -> Recipe:
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_area is {[low, high]}: expected 0 < low <= high <= 1")
        for name, alpha in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            if alpha and self.batch_size == 1:
                raise ValueError(f"{name} is {alpha:g}: expected 0 beside a batch_size of 1, which has nothing to mix")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas is {list(self.betas)}: expected two numbers from 0 to below 1")
        return self


class Cell(Spec):
    """One fully specified training and its measurements."""

    backbone: str = Field(description="family:model")
    weights: str = Field(description="a tag, a file, or none (random)")
    strategy: str
    options: dict[str, Any] = Field(default_factory=dict, description="of the strategy, all of them")
    dataset: str
    data: DataSource = Field(default_factory=DataSource, description="where the data set lies")
    frames: int = Field(ge=1, le=MAX_FRAMES)
    clips: int = Field(ge=1, description="test clips a video")
    crops: Literal[1, 3]
    seed: int = Field(ge=0, lt=2**31)
    recipe: Recipe
    device: str = Field(description="type of the device: cpu, cuda or mps")
    precision: Precision
    decoder: Decoder = Field("auto", description="which library decodes the videos")
    order_test: bool = Field(True, description="also evaluate with the frames reversed and shuffled")
    cache_format: Literal["raw", "jpeg"] = Field("raw", description="jpeg: every frame went through a JPEG picture")
    compile: bool = Field(False, description="the step goes through torch.compile")
    checkpoint_activations: bool = Field(False, description="blocks are computed again for their gradients")
    sources: dict[str, str] = Field(
        default_factory=dict, description="hashes of weight, list and plugin files and of rendered videos"
    )

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
        return self.backbone_name.weights_label

    @property
    def protocol(self) -> str:
        """Frames x clips x crops of a tested video, as papers write it: 8x3x1."""
        return f"{self.frames}x{self.clips}x{self.crops}"

    @property
    def label(self) -> str:
        """What a person calls the cell: backbone, strategy, frames and seed."""
        return f"{self.backbone}@{self.weights_label} {self.strategy} {self.frames}f seed {self.seed}"

    @property
    def folder(self) -> str:
        """`<name>-<key>`, the cell's folder in a run."""
        name = f"{self.backbone}-{self.weights_label}-{self.strategy}-{self.dataset}-{self.frames}f-s{self.seed}"
        return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[:80]}-{self.key}"

    def model_key(self) -> str:
        """Equal for cells whose trained model and batch are built alike: what speed, memory and counts depend on."""
        reading = {"decoder", "cache_format"}
        shape = self.model_dump(mode="json", exclude={"seed", "clips", "crops", "order_test", "recipe", *reading})
        shape["recipe"] = self.recipe.model_dump(include={"batch_size", "drop_path", "drop_path_mode"})
        return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:10]


def _listed(value: Any) -> Any:
    """A comma list, a single value or a list -> a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()] or _refuse("expected at least one")
    if isinstance(value, bool | int | float):
        value = [value]
    if not isinstance(value, list | tuple):
        _refuse("expected a comma list or a list")
    if any(isinstance(item, bool) for item in value):
        _refuse("expected no true or false in it")
    return list(value)


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


def _place(value: Path | None) -> Path | None:
    """A path as the shell would have it: `~` is the home folder."""
    if value is None:
        return None
    if "\0" in str(value):
        _refuse("expected no null character in it")
    return Path(os.path.expanduser(value))


def device_name(value: str) -> str:
    if re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?|mps", value) is None:
        _refuse(f"expected auto, cpu, cuda, cuda:N or mps{did_you_mean(value, ('auto', 'cpu', 'cuda', 'mps'))}")
    return value


def checked_device(value: str, problems: list[str]) -> str:
    """A device's name; where it is none, that is told and the name is `auto`."""
    try:
        return device_name(value)
    except ValueError as error:
        problems.append(f"device is {value!r}: {error}")
        return "auto"


def _workers(value: Any, least: int = 1) -> Any:
    number = int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value.strip()) else value
    if number == "auto" or (isinstance(number, int) and not isinstance(number, bool) and least <= number <= 256):
        return number
    return _refuse(f"expected auto or a whole number from {least} to 256")


def _loader_workers(value: Any) -> Any:
    return _workers(value, least=0)


def _off(value: Any) -> Any:
    return "off" if value is False else value  # which YAML makes of it


def _cache(value: str, info: ValidationInfo) -> str:
    if value == "off" and info.data.get("cache_format") == "jpeg":
        _refuse("cache_format jpeg needs a cache, expected auto, disk or ram")
    return value


def _limit(value: Any) -> Any:
    return None if value is None else parse_size(str(value))


def _refuse(expected: str) -> NoReturn:
    """End a validator; `problems_of` puts the field and its value before the text."""
    raise ValueError(expected)


_Seed = Annotated[int, Field(ge=0, lt=2**31)]
_Frames = Annotated[int, Field(ge=1, le=MAX_FRAMES)]
_List = (BeforeValidator(_listed), AfterValidator(_once))

Names = Annotated[tuple[str, ...], *_List, Field(min_length=1)]
Seeds = Annotated[tuple[_Seed, ...], *_List, Field(min_length=1)]
FrameCounts = Annotated[tuple[_Frames, ...], *_List]
Plugins = Annotated[tuple[str, ...], *_List]
Place = Annotated[Path, AfterValidator(_place)]
Cache = Annotated[Literal["auto", "ram", "disk", "off"], BeforeValidator(_off), AfterValidator(_cache)]
CacheLimit = Annotated[int | None, BeforeValidator(_limit)]


class Matrix(Spec):
    """What one command asks for: the axes, and what holds for all cells. `bench.matrix.expand` makes the cells."""

    backbones: Names = Field(("clip", "vit"), description="family[:model][@weights], or all")
    strategies: Names = Field(("all",), description="names of strategies, or all")
    datasets: Names = Field(("motion",), description="names of data sets, or all")
    frames: FrameCounts = Field((), description="frames of a clip; empty: the data set's own")
    seeds: Seeds = Field((0,), description="one training each")
    data_root: Place | None = Field(None, description="folder of the videos")
    train_list: Place | None = Field(None, description="list of the training videos; else found under data_root")
    val_list: Place | None = Field(None, description="list of the validation videos; else found under data_root")
    test_list: Place | None = Field(None, description="list of the test videos; else the validation's")
    class_names: Place | None = Field(None, description="file of the classes' names")
    fold: Fold | None = Field(None, description="which of the three official splits of ucf101 and hmdb51")
    recipe: dict[str, Any] = Field(default_factory=dict, description="changes to the recipe, for every cell")
    recipe_by_strategy: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="changes to the recipe of single strategies, by name"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="options of the strategies that take them")
    device: Annotated[str, AfterValidator(device_name)] = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    decoder: Decoder = Field("auto", description="auto, decord, pyav or torchcodec")
    order_test: bool = True
    cache_format: Literal["raw", "jpeg"] = Field("raw", description="how the cache keeps frames; jpeg changes pixels")
    compile: bool | None = Field(None, description="torch.compile; not set: where it saves more than it costs")
    checkpoint_activations: bool = Field(False, description="less memory, more time, the same numbers")

    @property
    def source(self) -> DataSource:
        """Where the data sets lie."""
        return DataSource.of(
            root=self.data_root,
            train_list=self.train_list,
            val_list=self.val_list,
            test_list=self.test_list,
            class_names=self.class_names,
            fold=self.fold,
        )


class Request(Matrix):
    """A matrix and how to run it: the fields of `bench run` and of its YAML file."""

    out: Place | None = Field(None, description="folder of the run")
    workers: Annotated[int | Literal["auto"], BeforeValidator(_workers)] = "auto"
    loader_workers: Annotated[int | Literal["auto"], BeforeValidator(_loader_workers)] = Field(
        "auto", description="decoding processes of each cell"
    )
    decode_timeout: float = Field(60.0, gt=0, le=86400, description="seconds after which a clip counts as broken")
    strict: bool = Field(False, description="a video that cannot be read is an error")
    cache: Cache = Field("auto", description="where decoded frames are kept: auto, ram, disk or off")
    cache_limit: CacheLimit = Field(None, description="bytes, such as 20GB or 1.5GiB")
    plugins: Plugins = Field((), description="Python files or modules that register backbones or strategies")

    @property
    def matrix(self) -> Matrix:
        return Matrix(**{name: getattr(self, name) for name in Matrix.model_fields})


# pydantic's kinds of errors, in the words of someone who types on a command line
_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "path_type": "a path",
    "dict_type": "names and values",
    "tuple_type": "a list",
    "list_type": "a list",
    "missing": "one value more",
}
_SHORTENED = reprlib.Repr()
_SHORTENED.maxlevel, _SHORTENED.maxlist, _SHORTENED.maxdict, _SHORTENED.maxstring = 4, 20, 20, 80
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def problems_of(error: ValidationError, where: str = "", known: tuple[str, ...] = ()) -> list[str]:
    """A pydantic error as sentences with the bad value and what was expected.

    Args:
        error: what pydantic found.
        where: put before the field's name ("recipe").
        known: valid field names, for "did you mean".
    """
    return [_sentence(found, where, known) for found in error.errors()]


def _sentence(found: ErrorDetails, where: str, known: tuple[str, ...]) -> str:
    kind, message = found["type"], found["msg"].removeprefix("Value error, ")
    loc = [str(part) for part in found["loc"] if not isinstance(part, int)]
    name = ".".join([*([where] if where else []), *loc])
    if kind == "extra_forbidden":
        return f"unknown name {name!r}: expected one of {', '.join(known)}{did_you_mean('.'.join(loc), known)}"
    if not loc:  # of the values together: the validator names them
        return f"{where}.{message}" if where else message
    if kind == "missing" and len(loc) == len(found["loc"]):
        return f"{name} is missing"
    inside = len(loc) < len(found["loc"]) and kind != "missing"
    return f"{name} {'holds' if inside else 'is'} {_shown(found['input'])}: {_expectation(found, message)}"


def _expectation(found: ErrorDetails, message: str) -> str:
    kind, context = found["type"], found.get("ctx", {})
    if kind == "value_error":
        return message
    if kind in ("too_short", "too_long"):
        if kind == "too_short":
            return "expected at least one"
        return f"expected at most {context['max_length']} values"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        given = found["input"][:80] if isinstance(found["input"], str) else ""
        return f"expected {context['expected'].replace(chr(39), '')}{did_you_mean(given, choices)}"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}"
    for limit, words in _LIMITS.items():
        if limit in context:
            bound = context[limit]
            return f"expected {words} {f'{bound:g}' if isinstance(bound, float) else bound}"
    return f"expected {message.removeprefix('Input should be ')}"


def _shown(value: Any) -> str:
    """A value for a message, short enough for one."""
    value = str(value) if isinstance(value, PurePath) else list(value) if isinstance(value, tuple) else value
    # what came out of a file may be too deep or too large for `repr`
    text = _SHORTENED.repr(value) if isinstance(value, list | dict) else repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."
