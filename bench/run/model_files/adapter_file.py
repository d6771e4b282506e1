"""adapter.safetensors: what a cell trained, and what it was trained on top of.

An adapter strategy's file holds the adapters, the temporal embedding, the final norm and the head alone (44 MB for
AIM on ViT-B), and what was added and stayed frozen at its random start; the backbone stays where it came from. So the
file says which backbone that was, by name and by the hash of its weights, and loads onto no other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from adapters.heads import HEADS
from backbones.families import FAMILIES, resolve
from backbones.names import BadBackboneName, UnsupportedModel, WeightsError
from backbones.registry import UnknownName
from backbones.weights import digest
from bench.files import write_atomically
from bench.run.build import classifier
from bench.run.model_files.base import TrainedModel, wrong
from bench.run.provenance import sources
from bench.spec import Cell, problems_of
from bench.spec.source import Views

VERSION = "2"
_NEEDED = ("format_version", "cell", "classes", "weights_sha256")


def pack(
    model: VideoClassifier, cell: Cell, classes: Sequence[str], weights_sha256: str, *, merged: bool = False
) -> bytes:
    """A trained model as a file's content.

    Args:
        model: what was trained.
        cell: by what.
        classes: names, by label.
        weights_sha256: `digest` of the backbone before the training.
        merged: whether the model is one that `VideoClassifier.deployed` gave, all of which is written.
    """
    kept = model.named_parameters() if merged else model.stored()
    return content(dict(kept), cell, classes, weights_sha256, layout="merged" if merged else "")


def content(
    tensors: Mapping[str, Tensor], cell: Cell, classes: Sequence[str], weights_sha256: str, *, layout: str = ""
) -> bytes:
    """Tensors of a trained model as a file's content.

    The metadata are texts, JSON where they are not a plain word. `cell` says it all; the others say the most of it to
    whoever looks into the file without this package.

    Args:
        layout: "" as `VideoClassifier.stored` names them, "merged" or "peft".
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = {
        "format_version": VERSION,
        "backbone": cell.backbone,
        "weights": cell.weights,
        "weights_sha256": weights_sha256,
        "strategy": cell.strategy,
        "options": json.dumps(cell.options, sort_keys=True),
        "frames": str(cell.frames),
        "classes": json.dumps(list(classes)),
        "cell": cell.canonical(),
    }
    about |= {"layout": layout} if layout else {}
    return save(stored, metadata=about)


@dataclass(frozen=True)
class AdapterFile(TrainedModel):
    """A cell's checkpoint.

    Attributes:
        cell: what was trained, with the backbone that was asked for now.
        written: the backbone that it was trained on.
        weights_sha256: that one's hash.
        tensors: what was trained or added, by name; of a merged model all.
        names: whose the tensors' are: the model's own (""), the "merged" model's, or those of "peft".
    """

    layout: ClassVar[str] = "aim-bench"

    cell: Cell
    written: str
    weights_sha256: str
    tensors: Mapping[str, Tensor]
    names: str = ""

    @property
    def merged(self) -> bool:
        """Test that the model is stored as it is deployed."""
        return self.names == "merged"

    @property
    def views(self) -> Views:
        return self.cell.views

    def build(self, frames: int) -> tuple[VideoClassifier, list[str]]:
        cell = self.cell.model_copy(update={"frames": frames})
        try:
            STRATEGIES.get(cell.strategy)
            HEADS.get(cell.head)
            resolve(str(cell.backbone_name), "base")  # the file may say anything, a device for a file of weights too
            model = classifier(cell, self.classes)
        except UnknownName as error:
            raise self.wrong([f"{error}; what is your own comes with --plugin"]) from None
        except (BadBackboneName, UnsupportedModel, WeightsError) as error:
            raise self.wrong([f"the backbone {self.written} that it was trained on cannot be had: {error}"]) from error
        except ValueError as error:  # options that the strategy does not take any more
            raise self.wrong([f"its model cannot be built: {' '.join(str(error).split())}"]) from error
        found = digest(model.backbone)
        if found != self.weights_sha256:
            raise self.wrong(
                [
                    f"it was trained on {self.written} with weights of SHA-256 {self.weights_sha256[:12]}; "
                    f"{cell.backbone_name} has {found[:12]}: expected the same weights, which --backbone can name"
                ]
            )
        if self.merged:
            model = model.strategy.merge(model)
        return model.eval(), [*_other_code(cell), *_fill(self, model)]

    def resized(self, model: VideoClassifier, size: int | None) -> VideoClassifier:
        """See `TrainedModel.resized`. Frozen positions are those of the weights, interpolated once."""
        model = super().resized(model, size)
        if self.merged:  # nothing of it is interpolated but positions
            return model
        trained = dict(model.trained())
        found = classifier(self.cell.model_copy(update={"frames": model.frames, "input_size": size}), self.classes)
        expected = dict(found.trained())
        if bound := [name for name, parameter in expected.items() if parameter.shape != trained[name].shape]:
            raise self.wrong([f"{', '.join(bound[:3])} fits frames of the training's size alone"])
        with torch.no_grad():
            for name, parameter in expected.items():
                parameter.copy_(trained[name])
        return found.eval()

    def weights_sha256_of(self, model: VideoClassifier) -> str:
        return self.weights_sha256  # a trained final norm is the adapters', and in the file's own hash


def _other_code(cell: Cell) -> list[str]:
    """Notes on plugin files that are not what they were when they trained the cell."""
    code: dict[str, Any] = {
        "family": FAMILIES.get(cell.backbone_name.family),
        "strategy": STRATEGIES.get(cell.strategy),
        "head": HEADS.get(cell.head),
    }
    now = sources(cell.backbone_name, **code)
    return [
        f"the code of the {kind} is not that of the training: its plugin file was changed"
        for kind in code
        if cell.sources.get(kind) != now.get(kind)
    ]


def _fill(checkpoint: AdapterFile, model: VideoClassifier) -> list[str]:
    """Put the tensors into the model, all of them or none; what is odd about them."""
    expected = dict(model.named_parameters() if checkpoint.merged else model.stored())
    tensors = checkpoint.tensors
    if checkpoint.names == "peft":
        from bench.run.model_files.peft import converted

        try:
            tensors = converted(model, tensors)
        except ValueError as error:
            raise checkpoint.wrong([str(error)]) from error
    problems = []
    if missing := [name for name in expected if name not in tensors]:
        problems.append(f"missing: {', '.join(missing[:5])}")
    if surplus := [name for name in tensors if name not in expected]:
        problems.append(f"surplus: {', '.join(surplus[:5])}")
    problems += [
        f"misshapen: {name} is {tensors[name].dtype} {tuple(tensors[name].shape)}, expected {tuple(parameter.shape)}"
        for name, parameter in expected.items()
        if name in tensors and (tensors[name].shape != parameter.shape or not tensors[name].is_floating_point())
    ]
    if problems:
        raise checkpoint.wrong(problems)
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(tensors[name])
    odd = [name for name in expected if not torch.isfinite(tensors[name]).all()]
    return [f"the checkpoint holds values that are not finite numbers, in {', '.join(odd[:3])}"] if odd else []


def read(file: Path, sha256: str, backbone: str | None) -> AdapterFile | None:
    """A .safetensors file as a cell's checkpoint; None where it is something else.

    Args:
        file: a .safetensors file.
        sha256: of the file.
        backbone: the user's name for where the backbone's weights lie now.

    Raises:
        UserError: a damaged file, or another backbone than it was trained on.
    """
    try:
        with safe_open(file, "pt") as opened:
            about: dict[str, str] = opened.metadata() or {}
            if "cell" not in about and "strategy" not in about:
                return None
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is not a mapping)
    except Exception as error:  # whatever a file that is cut off or made up makes the library say
        raise wrong(file, [f"it cannot be read: {' '.join(str(error).split())}"]) from error
    if lacking := [name for name in _NEEDED if name not in about]:
        raise wrong(file, [f"its metadata lack {', '.join(lacking)}: it was written by an older version or changed"])
    if about["format_version"] == "1":
        tensors = {_since_version_2(name): tensor for name, tensor in tensors.items()}
    elif about["format_version"] != VERSION:
        raise wrong(file, [f"its format is version {about['format_version'][:20]!r}: expected 1 or {VERSION}"])
    try:
        cell = Cell.model_validate_json(about["cell"])
        names = json.loads(about["classes"])
    except ValidationError as error:
        what = "; ".join(problems_of(error, known=tuple(Cell.model_fields))[:3])
        raise wrong(file, [f"its metadata are damaged: {what}"]) from error
    except (ValueError, RecursionError) as error:
        raise wrong(file, [f"its metadata are damaged: {error}"]) from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise wrong(file, ["its metadata are damaged: expected the names of the classes"])
    written = str(cell.backbone_name)
    cell = _on(cell, backbone, file)
    strategy = STRATEGIES.get(cell.strategy) if cell.strategy in STRATEGIES else None
    return AdapterFile(
        file=file,
        sha256=sha256,
        backbone=cell.backbone_name,
        strategy=cell.strategy,
        options=cell.options,
        frames=cell.frames,
        input_size=cell.input_size,
        any_frames=strategy is not None and strategy.any_frames,
        classes=len(names),
        class_names=tuple(names),
        dataset=cell.dataset,
        data=cell.data,
        batch=cell.recipe.batch_size,
        cell=cell,
        written=written,
        weights_sha256=about["weights_sha256"],
        tensors=tensors,
        names=about.get("layout", ""),
    )


def write_merged(checkpoint: AdapterFile, file: Path) -> list[str]:
    """Write a cell's model as it is deployed, its backbone included.

    Returns:
        What a user of the file must know, a sentence each.

    Raises:
        UserError: the model cannot be built.
        OSError: the file cannot be written.
    """
    model, notes = checkpoint.build(checkpoint.cell.frames)
    if (deployed := model.deployed()) is model:
        notes.append(f"{checkpoint.strategy} adds nothing that folds into the backbone: the model is as it was trained")
    classes = checkpoint.class_names or ()
    packed = pack(deployed, checkpoint.cell, classes, checkpoint.weights_sha256, merged=True)
    write_atomically(file, lambda path: path.write_bytes(packed))
    return notes


def _since_version_2(name: str) -> str:
    """The name of a tensor of a file of version 1, in which a strategy's parts had no common prefix."""
    if name.startswith("head."):
        return name.replace("head.", "head.linear.")
    return name if name.startswith("backbone.") else f"body.{name}"


def _on(cell: Cell, backbone: str | None, file: Path) -> Cell:
    """The cell with its weights from where the user says they lie. Raises UserError for another architecture."""
    if backbone is None:
        return cell
    try:
        name = resolve(backbone, "tiny" if cell.backbone.endswith(":tiny") else "base")
    except BadBackboneName as error:
        raise wrong(file, [str(error)]) from None
    trained = cell.backbone_name
    family = FAMILIES.get(name.family)
    model, like = family.split_tag(name.model)
    if (name.family, model) != (trained.family, family.split_tag(trained.model)[0]):
        raise wrong(file, [f"it was trained on {trained} and does not fit {name}: expected {cell.backbone}"])
    if name.file is not None and like is None:
        name = family.moved(trained, name.weights)
    return cell.model_copy(update={"backbone": name.architecture, "weights": name.weights})
