"""The families of backbones. Nothing here imports a model library until a model is named or built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from backbones.names import (
    BackboneName,
    BadBackboneName,
    BadInputSize,
    UnsupportedModel,
    WeightsError,
    is_file,
    split,
)
from backbones.registry import Registry, UnknownName, did_you_mean
from backbones.weight_files import find

if TYPE_CHECKING:
    from backbones.base import Backbone


class Family(ABC):
    """A family of image models that open in the same way.

    Attributes:
        name: as on the command line.
        summary: one line for `bench list backbones`.
        base: the model (and tag) that the bare family name means on real data.
        tiny_weights: the weights of the family's tiny model where none are named.
        tubelet, released_freezing: of its backbones, see `Backbone`.
        resizable: whether `build` takes another input size than the model's own.
    """

    name: str
    summary: str
    base: str
    tiny_weights: str = "none"
    tubelet: int = 1
    released_freezing: bool = False
    resizable: bool = False

    @abstractmethod
    def models(self) -> tuple[str, ...]:
        """Names of the architectures, without the tiny one. May import the library."""

    @abstractmethod
    def tags(self, model: str) -> tuple[str, ...]:
        """Tags of pretrained weights for an architecture, the default one first; empty where there are none."""

    @abstractmethod
    def build(self, name: BackboneName, size: int | None = None) -> Backbone:
        """Build the model and load its weights. Raises UnsupportedModel and WeightsError.

        Args:
            name: in full.
            size: of the input, in pixels, where it is not the name's own; never given to a family that is not
                `resizable`.
        """

    def examine(self, name: BackboneName) -> Backbone:
        """Open the model without its weights; a family may know a cheaper way than building it, with fewer blocks.

        Raises UnsupportedModel where the model does not fit.
        """
        return self.build(name)

    def no_text(self, name: BackboneName) -> str | None:
        """Return the reason why no text tower belongs to a name, where another name of its architecture has one."""
        return None

    def split_tag(self, model: str) -> tuple[str, str | None]:
        """A library's own way to write the tag into the model's name; here there is none."""
        return model, None

    def moved(self, name: BackboneName, file: str) -> BackboneName:
        """The same model, its weights in a file now."""
        return replace(name, weights=file)


class TimmFamily(Family):
    """Families whose models are timm's; `modules` are the files of timm.models that define them."""

    modules: tuple[str, ...]
    resizable = True

    def split_tag(self, model: str) -> tuple[str, str | None]:
        architecture, _, tag = model.partition(".")
        return architecture, tag or None

    def moved(self, name: BackboneName, file: str) -> BackboneName:
        # the tag goes on telling how pixels are normalised
        tagged = name.file is None and name.weights in self.tags(name.model)
        return replace(name, model=f"{name.model}.{name.weights}" if tagged else name.model, weights=file)

    def models(self) -> tuple[str, ...]:
        from backbones.timm_models import architectures

        return architectures(self.modules)

    def tags(self, model: str) -> tuple[str, ...]:
        from backbones.timm_models import tags

        return tags(model)

    def build(self, name: BackboneName, size: int | None = None) -> Backbone:
        from backbones.timm_models import build

        return build(name, size)

    def examine(self, name: BackboneName) -> Backbone:
        from backbones.timm_models import examine

        return examine(name)


FAMILIES: Registry[Family] = Registry("backbone", "aim_bench.backbones", ("backbones.families",))


def register_backbone(family: type[Family]) -> type[Family]:
    """Class decorator: make a family of backbones known under its `name`."""
    FAMILIES.add(family.name, family())
    return family


@register_backbone
class ViTFamily(TimmFamily):
    name = "vit"
    summary = "any timm VisionTransformer or Eva: ViT, DeiT, DINO, SigLIP, EVA-02"
    base = "vit_base_patch16_224.augreg_in21k"
    tiny_weights = "bundled"
    modules = ("vision_transformer", "deit", "eva", "vision_transformer_hybrid", "vitamin")


@register_backbone
class CLIPFamily(Family):
    name = "clip"
    summary = "the image tower of any open_clip model that is a ViT"
    base = "ViT-B-16@openai"
    tiny_weights = "bundled"
    resizable = True

    def models(self) -> tuple[str, ...]:
        from backbones.clip import architectures

        return architectures()

    def tags(self, model: str) -> tuple[str, ...]:
        from backbones.clip import tags

        return tags(model)

    def no_text(self, name: BackboneName) -> str | None:
        from backbones.clip_text import why_no_text

        return why_no_text(name)

    def build(self, name: BackboneName, size: int | None = None) -> Backbone:
        from backbones.clip import build

        return build(name, size)

    def examine(self, name: BackboneName) -> Backbone:
        from backbones.clip import examine

        return examine(name)


@register_backbone
class SwinFamily(TimmFamily):
    name = "swin"
    summary = "any timm SwinTransformer or SwinTransformerV2"
    base = "swin_base_patch4_window7_224.ms_in22k"
    tiny_weights = "bundled"
    modules = ("swin_transformer", "swin_transformer_v2")
    tubelet = 2
    released_freezing = True


def resolve(text: str, size: str) -> BackboneName:
    """The full name behind what a user wrote.

    Args:
        text: `family[:model][@weights]`.
        size: what a bare family name means: "tiny" or "base".

    Raises:
        BadBackboneName: the text does not follow the grammar, or names a model, tag, file or folder that is not there.
        UnknownName: no such family.
    """
    family_name, model, weights = split(text)
    try:
        family = FAMILIES.get(family_name)
    except UnknownName as error:
        raise BadBackboneName(str(error)) from None
    if model is None:
        model, _, default = ("tiny" if size == "tiny" else family.base).partition("@")
        model, tag = family.split_tag(model)
        weights, tag = weights or default or tag, None
    else:
        model, tag = family.split_tag(model)
    like = None  # the tag whose pixel statistics a file's weights share
    if tag and weights and tag != weights:
        if not is_file(weights):
            raise BadBackboneName(f"backbone {text!r} names two weights, {tag!r} and {weights!r}: expected one")
        like = tag
    weights = weights or tag
    if model == "tiny":
        weights = weights or family.tiny_weights
        own = tuple(dict.fromkeys((family.tiny_weights, "none")))
        if weights not in own and not is_file(weights):
            raise BadBackboneName(
                f"backbone {text!r}: {family_name}:tiny has no weights {weights!r}, expected {', '.join(own)} or a file"
                f"{did_you_mean(weights, own)}"
            )
    elif model not in (known := family.models()):
        raise BadBackboneName(
            f"backbone {text!r}: {family_name} has no model {model!r}, expected {family.summary}"
            f"{did_you_mean(model, ('tiny', *known))}"
        )
    elif weights is None:
        if not (tags := family.tags(model)):
            raise BadBackboneName(
                f"backbone {text!r}: {model} has no pretrained weights; name a file ({family_name}:{model}@FILE) "
                f"or ask for random ones ({family_name}:{model}@none)"
            )
        weights = tags[0]
    else:
        named = like if is_file(weights) else None if weights == "none" else weights
        if named is not None and named not in (tags := family.tags(model)):
            known_tags = ", ".join(tags) or "none of its own"
            raise BadBackboneName(
                f"backbone {text!r}: {model} has no weights {named!r}, expected a file, none, or one of: {known_tags}"
                f"{did_you_mean(named, tags)}"
            )
    name = BackboneName(family_name, model if like is None else f"{model}.{like}", weights)
    if name.file is not None:
        try:
            find(name.file)
        except WeightsError as error:
            raise BadBackboneName(f"backbone {text!r}: {error}") from None
    return name


def matching(pattern: str) -> list[tuple[str, str]]:
    """Family and model of every architecture that fits a pattern, whether it can be built or not.

    Args:
        pattern: with shell wildcards, of `family:model` or of the model alone; without any, a part of one of them.
            Case makes no difference.
    """
    # a family that is named by its whole name spares the others' libraries
    only = pattern.partition(":")[0].lower()
    pattern = pattern.lower() if any(sign in pattern for sign in "*?[") else f"*{pattern.lower()}*"
    return [
        (name, model)
        for name in ((only,) if only in FAMILIES and ":" in pattern else FAMILIES.names())
        for model in FAMILIES.get(name).models()
        if fnmatchcase(model.lower(), pattern) or fnmatchcase(f"{name}:{model}".lower(), pattern)
    ]


@lru_cache(maxsize=16)
def _outline(family: str, model: str) -> Backbone:
    """A model without numbers, perhaps with fewer blocks than it has. Takes no memory. Raises UnsupportedModel."""
    import torch

    name, chosen = BackboneName(family, model, "none"), FAMILIES.get(family)
    with torch.device("meta"):
        return chosen.build(name) if model == "tiny" else chosen.examine(name)


@cache
def why_unsupported(family: str, model: str) -> str | None:
    """Return the reason why a model does not fit the Backbone contract; None where it does. Takes no memory."""
    try:
        _outline(family, model)
    except UnsupportedModel as error:
        return str(error).replace("@none", "")
    return None


def own_size(name: BackboneName) -> int | None:
    """The name's own input size, in pixels; None where its family does not tell before the model is built."""
    return _outline(name.family, name.model).input_size if FAMILIES.get(name.family).resizable else None


def another_size(name: BackboneName, size: int | None) -> int | None:
    """The input size that is asked for where it is another one than the name's own; else None.

    Raises BadInputSize where the model does not take it.
    """
    if size is None or size == (own := own_size(name)):
        return None
    unit = _outline(name.family, name.model).size_unit if FAMILIES.get(name.family).resizable else None
    if unit is None:
        raise BadInputSize(f"input_size is {size}: {name.architecture} takes no other size than its own, expected none")
    if size % unit:
        near = [str(one) for one in (size // unit * unit, (size // unit + 1) * unit) if one]
        takes = f"multiples of {unit}" + (f" and its own {own}" if own is not None and own % unit else "")
        raise BadInputSize(f"input_size is {size}: {name.architecture} takes {takes}, expected {' or '.join(near)}")
    return size


def build(name: BackboneName, size: int | None = None) -> Backbone:
    """Build a fully named backbone with its weights.

    Args:
        name: in full.
        size: of the input, in pixels, where it is not the name's own.

    Raises UnsupportedModel (BadInputSize among them) and WeightsError.
    """
    family = FAMILIES.get(name.family)
    if (another := another_size(name, size)) is None:
        return family.build(name)
    return family.build(name, another)
