"""Checkpoints in the layout of AIM's released code: theirs, and ours that were exported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import safe_open
from torch import Tensor

from adapters.aim_checkpoint import ReleasedModel, describe, load, save
from adapters.aim_names import BadCheckpoint
from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from backbones.base import Backbone
from backbones.families import FAMILIES, build, own_size, resolve
from backbones.names import BackboneName, BadBackboneName, UnsupportedModel
from backbones.stored_weights import check_inflation, unnested, unwrapped
from backbones.torchscript import is_torchscript
from backbones.weights import digest
from bench.files import write_atomically
from bench.run.model_files.adapter_file import AdapterFile
from bench.run.model_files.base import TrainedModel, wrong
from bench.run.selection import chosen_size
from bench.spec import FrozenModel, problems_of
from bench.text import counted

# family, width, depths, patch, side of the input (Swin: of a window) -> the architecture of that shape
_ARCHITECTURES = {
    ("clip", 768, (12,), 16, 224): "ViT-B-16-quickgelu",
    ("clip", 768, (12,), 32, 224): "ViT-B-32-quickgelu",
    ("clip", 1024, (24,), 14, 224): "ViT-L-14-quickgelu",
    ("clip", 1024, (24,), 14, 336): "ViT-L-14-336-quickgelu",
    ("clip", 96, (4,), 8, 32): "tiny",
    ("vit", 192, (12,), 16, 224): "vit_tiny_patch16_224",
    ("vit", 384, (12,), 16, 224): "vit_small_patch16_224",
    ("vit", 768, (12,), 16, 224): "vit_base_patch16_224",
    ("vit", 1024, (24,), 16, 224): "vit_large_patch16_224",
    ("vit", 96, (4,), 8, 32): "tiny",
    ("swin", 96, (2, 2, 6, 2), 4, 7): "swin_tiny_patch4_window7_224",
    ("swin", 96, (2, 2, 18, 2), 4, 7): "swin_small_patch4_window7_224",
    ("swin", 128, (2, 2, 18, 2), 4, 7): "swin_base_patch4_window7_224",
    ("swin", 192, (2, 2, 18, 2), 4, 7): "swin_large_patch4_window7_224",
    ("swin", 64, (2, 2), 4, 4): "tiny",
}
_QUICK = "-quickgelu"
_SSV2 = 174  # classes of Something-Something V2


class About(FrozenModel):
    """Facts of an exported file that no tensor tells, under meta / aim_bench."""

    version: Literal[1] = 1
    backbone: str
    weights: str
    weights_sha256: str
    strategy: str
    options: dict[str, Any]
    frames: int
    classes: tuple[str, ...]
    dataset: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    input_size: int | None = None


@dataclass(frozen=True)
class ReleasedFile(TrainedModel):
    """A checkpoint with the released code's names, the backbone's weights among them.

    Attributes:
        tensors: by released name.
        description: what they are a model of.
        about: of a file that we exported.
        notes: what was assumed of it.
    """

    layout: ClassVar[str] = "released"

    tensors: Mapping[str, Tensor]
    description: ReleasedModel
    about: About | None
    notes: tuple[str, ...]

    def build(self, frames: int) -> tuple[VideoClassifier, list[str]]:
        strategy = STRATEGIES.get(self.strategy)
        try:
            backbone = build(self.backbone, self.input_size)
            model = VideoClassifier(
                backbone, strategy, strategy.options(**self.options), classes=self.classes, frames=frames
            )
            odd = load(model, self.tensors, self.description)
        except UnsupportedModel as error:
            raise self.wrong([str(error)]) from error
        except BadCheckpoint as error:
            raise self.wrong(f"{problem} ({self.backbone.architecture})" for problem in error.problems) from error
        except ValueError as error:  # frames and tubelets that do not go together
            raise self.wrong([str(error)]) from error
        if self.about is not None:
            backbone.mean, backbone.std = self.about.mean, self.about.std
        elif self.backbone.family != "clip":
            # whatever the image model was pretrained with: the released configurations have ImageNet's
            from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

            backbone.mean, backbone.std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
        return model.eval(), [*self.notes, *(f"the checkpoint holds {one}" for one in odd)]

    def weights_sha256_of(self, model: VideoClassifier) -> str:
        return digest(model.backbone)


def read(file: Path, sha256: str, backbone: str | None, strategy: str | None, scale: float | None) -> ReleasedFile:
    """A file in the released layout.

    Args:
        file: .pth, .pt, .bin or .safetensors; pickles are read without running their code.
        sha256: of the file.
        backbone: the user's name of the architecture, where the shapes do not tell it.
        strategy: what a model without adapters is taken for, `frozen` or `full`.
        scale: s of the joint adapter, which no tensor tells.

    Raises:
        UserError: a file that is damaged, could run code, or holds something else.
    """
    tensors, about = _content(file)
    try:
        description = describe(tensors)
    except BadCheckpoint as error:
        raise wrong(file, error.problems) from error
    problems: list[str] = []
    notes: list[str] = []
    options = dict(description.options)
    name = strategy if description.strategy == "full" and strategy == "frozen" else description.strategy
    if name == "joint":
        options["scale"] = _scale(description, about, scale, notes)
    if about is not None and "released_freezing" in about.options:
        options["released_freezing"] = about.options["released_freezing"]  # of a Swin's norm no tensor tells
    try:
        STRATEGIES.get(name).options(**options)
    except ValidationError as error:
        problems += problems_of(error, "option")
    built_on = _architecture(description, about, backbone, problems, notes)
    if about is not None and (told := (about.strategy, len(about.classes))) != (now := (name, description.classes)):
        # `frozen` and `full` have the same tensors
        if not (description.strategy == "full" and about.strategy in ("frozen", "full")) or told[1] != now[1]:
            classes = counted(told[1], "class", "classes")
            problems.append(f"it says that it is {told[0]} with {classes}, its tensors {now[0]} with {now[1]}")
        else:
            name = about.strategy
    size = None if built_on is None else _size(built_on, description, about, problems)
    if problems or built_on is None:
        raise wrong(file, problems)
    if size is not None:
        notes.append(f"its frames are of {size} pixels, not the {own_size(built_on)} that are {built_on.model}'s own")
    return ReleasedFile(
        file=file,
        sha256=sha256,
        backbone=built_on,
        strategy=name,
        options=options,
        frames=description.frames or (about.frames if about else None),
        input_size=size,
        any_frames=description.frames is None,
        classes=description.classes,
        class_names=about.classes if about else None,
        dataset=about.dataset if about else None,
        data=None,
        batch=None,
        tensors=tensors,
        description=description,
        about=about,
        notes=tuple(notes),
    )


def _scale(description: ReleasedModel, about: About | None, scale: float | None, notes: list[str]) -> Any:
    """s as asked for, as an exported file says (which may be anything), or as published."""
    if scale is not None:
        return scale
    if about is not None and "scale" in about.options:
        return about.options["scale"]
    published, case = 0.5, "such a model"
    if description.layout.family == "swin":  # has 0.5 for every data set
        pass
    elif description.options["temporal_adapters"] == 2:
        published, case = 1.0, "two temporal adapters"
    elif description.classes == _SSV2:
        published, case = 1.0, f"one temporal adapter and {_SSV2} classes (ViT-L on Something-Something V2)"
    notes.append(f"scale is {published:g}, as published with {case}: the file does not tell, --scale can")
    return published


def _architecture(
    found: ReleasedModel, about: About | None, asked: str | None, problems: list[str], notes: list[str]
) -> BackboneName | None:
    """The image model of a file's shapes, without weights of its own; None where there is a problem."""
    family = found.layout.family
    side = found.window if found.size is None else found.size
    if asked is not None:
        try:
            name = resolve(asked, "base")
        except BadBackboneName as error:
            problems.append(str(error))
            return None
        if name.family != family:
            problems.append(f"its names are those of a {family}, not of {asked}")
            return None
        if asked.partition("@")[2] not in ("", "none"):
            problems.append(
                f"backbone {asked!r}: the checkpoint brings its own weights, expected {name.architecture} alone"
            )
            return None
        model = name.model
    elif about is not None:
        told, _, model = about.backbone.partition(":")
        if told != family or (model != "tiny" and model not in FAMILIES.get(family).models()):
            problems.append(f"it says that its backbone is {about.backbone!r}: expected a {family} that is known here")
            return None
    else:
        shape = (family, found.width, found.depths, found.patch, side)
        if shape not in _ARCHITECTURES and found.size is not None:
            # trained on frames of another size; the model's own is the first
            shape = next((known for known in _ARCHITECTURES if known[:4] == shape[:4]), shape)
        if shape not in _ARCHITECTURES:
            what = "windows" if found.size is None else "pixels"
            problems.append(
                f"its backbone is a {family} of width {found.width}, {'+'.join(map(str, found.depths))} blocks, "
                f"patches of {found.patch} and {side} {what}, none that AIM was released for: name it with --backbone"
            )
            return None
        model = _ARCHITECTURES[shape]
    if family == "clip" and about is None and not model.endswith(_QUICK):
        if model + _QUICK in FAMILIES.get(family).models():
            model += _QUICK
            notes.append(f"computed as {model}: the released code has OpenAI's activation")
        else:
            notes.append(f"{family}:{model} computes another activation than the released code's QuickGELU")
    return BackboneName(family, model, "none")


def _size(name: BackboneName, found: ReleasedModel, about: About | None, problems: list[str]) -> int | None:
    """The input size where it is not the model's own: a Swin's tensors do not tell it, an exported file does."""
    if found.size is not None:
        return chosen_size(name, found.size, [])  # of another patch: told when the model is filled
    return chosen_size(name, about.input_size if about is not None else None, problems)


def _content(file: Path) -> tuple[dict[str, Tensor], About | None]:
    """The state dict in a file, and what an exported one says of itself. Raises UserError."""
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, "pt") as opened:
                return unwrapped({name: opened.get_tensor(name) for name in opened.keys()}), None  # noqa: SIM118
        except Exception as error:  # see bench.run.model_files.adapter_file.read
            raise wrong(file, [f"it cannot be read: {' '.join(str(error).split())}"]) from error
    found = _unpickled(file)
    told = found.get("meta") if isinstance(found, dict) else None
    about = told.get("aim_bench") if isinstance(told, dict) else None
    found = unnested(found)
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found):
        raise wrong(file, [f"it holds {_kind(found)}: expected a state dict, or one under 'state_dict' or 'model'"])
    if other := [name for name, value in found.items() if not isinstance(value, Tensor)]:
        listed = ", ".join(map(repr, other[:3]))
        raise wrong(
            file, [f"expected names and tensors, or those under 'state_dict' or 'model'; no tensors are {listed}"]
        )
    found = unwrapped(found)
    try:
        return found, None if about is None else About.model_validate(about)
    except ValidationError as error:
        raise wrong(file, problems_of(error, "meta.aim_bench", tuple(About.model_fields))) from error


def _unpickled(file: Path) -> Any:
    """Load a pickle by torch's restricted reader: tensors and plain values, no code. Raises UserError."""
    number = np.float64(0)
    # a training's best accuracy, kept beside the weights, is often one of numpy's numbers
    plain: list[Any] = [np.dtype, *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64"))]
    plain += [(number.__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    try:
        check_inflation(file)
        if is_torchscript(file):
            raise ValueError("it is a TorchScript archive, expected a state dict")
        with torch.serialization.safe_globals(plain):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the reader raise anything
        if isinstance(error, UnpicklingError):
            raise wrong(file, ["it is not a plain file of tensors and could run code on loading: refused"]) from error
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no details"
        what = (
            first if isinstance(error, ValueError) else f"not a file of torch.save's ({type(error).__name__}: {first})"
        )
        raise wrong(file, [f"it cannot be read: {what}"]) from error


def _kind(found: Any) -> str:
    return "nothing" if isinstance(found, dict) and not found else f"a {type(found).__name__}"


def export(checkpoint: AdapterFile, file: Path) -> list[str]:
    """Write a cell's model, its backbone included, as the released code has it.

    Returns:
        What a user of the file must know, a sentence each.

    Raises:
        UserError: the model cannot be built, or the released code has no place for a part of it.
        OSError: the file cannot be written.
    """
    cell = checkpoint.cell
    model, notes = checkpoint.build(cell.frames)
    notes += model.backbone.notes
    try:
        tensors = save(model)
    except BadCheckpoint as error:
        raise checkpoint.wrong(error.problems) from error
    family = cell.backbone_name.family
    about = About(
        backbone=_rebuilt_as(cell.backbone_name, model, notes),
        weights=cell.weights_label,
        weights_sha256=checkpoint.weights_sha256,
        strategy=cell.strategy,
        options=dict(cell.options),
        frames=cell.frames,
        classes=checkpoint.class_names or (),
        dataset=cell.dataset,
        mean=tuple(model.backbone.mean),
        std=tuple(model.backbone.std),
        input_size=cell.input_size,
    )
    if family == "clip" and "QuickGELU" not in repr(model.backbone):
        notes.append("this CLIP computes GELU: the released code has QuickGELU and would compute something else")
    if family == "swin" and "backbone.temporal_embedding" in tensors:
        notes.append("the released Swin adds a temporal embedding only with t_relative=False")
    if cell.input_size is not None:
        notes.append(f"its frames are of {cell.input_size} pixels: the released configuration must say so")
    content = {"state_dict": tensors, "meta": {"aim_bench": about.model_dump(mode="json", exclude_none=True)}}
    write_atomically(file, lambda path: torch.save(content, path))
    return notes


def _rebuilt_as(name: BackboneName, model: VideoClassifier, notes: list[str]) -> str:
    """The architecture that, without a tag and its configuration, computes what this backbone does."""
    for candidate in (name.model, f"{name.model}{_QUICK}"):
        if candidate == name.model or candidate in FAMILIES.get(name.family).models():
            with torch.device("meta"):
                bare = build(BackboneName(name.family, candidate, "none"))
            if _computes(bare) == _computes(model.backbone):
                return f"{name.family}:{candidate}"
    notes.append(f"{name.architecture} without its tag is another model: `bench eval` would need --backbone")
    return name.architecture


def _computes(backbone: Backbone) -> str:
    """A text that is equal for models that compute the same: below 1e-5 the epsilon of a norm makes no difference."""
    return re.sub(r"eps=1e-(0[5-9]|1\d)\b", "eps", repr(backbone))
