"""Settings that weights were trained with and no tensor tells: activation, epsilon of norms, statistics of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from open_clip.transformer import QuickGELU
from torch import nn

from backbones.base import Backbone
from backbones.names import WeightsError
from backbones.weight_files import WeightFiles, read_json

# by transformers' names of them
ACTIVATIONS: dict[str, Any] = {
    "gelu": nn.GELU,
    "gelu_pytorch_tanh": partial(nn.GELU, approximate="tanh"),
    "quick_gelu": QuickGELU,
}
# modules whose norms have their library's epsilon, whatever the configuration says (Swin)
_OWN_EPSILON = ("patch_embed", "downsample")


@dataclass(frozen=True)
class Settings:
    """Settings of a pretrained model; None and () where nothing is known of them.

    Attributes:
        kind: whose model it is, for messages.
        stages: (blocks, width, heads) of those that are alike, from the first to the last.
        patch: side of a patch in pixels.
        activation: of the MLPs, a name in ACTIVATIONS.
        epsilon: of the norms.
        mean, std: of the pixels, RGB in 0..1.
        notes: what was assumed of the model, a sentence each.
        unnormalised: the sentence for where `mean` and `std` are missed and the user names no tag that has them.
    """

    kind: str = ""
    stages: tuple[tuple[int, int, int], ...] = ()
    patch: int | None = None
    activation: str | None = None
    epsilon: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    unnormalised: str = ""

    def check(self, backbone: Backbone, file: Path) -> None:
        """Raise WeightsError where the backbone that was named is of another shape than the file's model."""
        patch = next((module.kernel_size[0] for module in backbone.modules() if isinstance(module, nn.Conv2d)), None)
        alike = groupby((block.width, block.heads) for block in backbone.blocks)
        named = tuple((len(list(blocks)), *shape) for shape, blocks in alike)
        found, expected = [], []
        if self.stages not in ((), named):
            found.append(_listed(self.stages))
            expected.append(_listed(named))
        if self.patch not in (None, patch):
            found.append(f"patches of {self.patch} pixels")
            expected.append(f"patches of {patch}")
        if found:
            raise WeightsError(
                f"{file} holds {self.kind or 'a model'} with {' and '.join(found)}: expected {' and '.join(expected)}, "
                "as the named backbone has"
            )

    def apply(self, backbone: Backbone, tagged: bool = False) -> Backbone:
        """Make a backbone compute what the weights were trained for.

        Args:
            backbone: with the weights in it; it is changed.
            tagged: the user named a tag whose normalisation of pixels is meant.
        """
        if self.activation is not None:
            _activate(backbone, self.activation)
        if self.epsilon is not None:
            for name, module in backbone.named_modules():
                if isinstance(module, nn.LayerNorm) and not any(part in name for part in _OWN_EPSILON):
                    module.eps = self.epsilon
        backbone.notes = self.notes
        if self.mean and not tagged:
            backbone.mean, backbone.std = self.mean, self.std
        elif self.unnormalised and not tagged:
            backbone.notes += (self.unnormalised,)
        return backbone


def _activate(backbone: Backbone, name: str) -> None:
    """Put an activation where another kind of GELU is; gated MLPs have others, which stay."""
    for module in list(backbone.modules()):
        for place, child in list(module.named_children()):
            if _kind(child) not in (None, name):
                setattr(module, place, ACTIVATIONS[name]())


def _kind(module: nn.Module) -> str | None:
    """The name in ACTIVATIONS of a library's module; None where it is something else."""
    if isinstance(module, nn.GELU):
        return "gelu_pytorch_tanh" if module.approximate == "tanh" else "gelu"
    known = {"GELU": "gelu", "GELUTanh": "gelu_pytorch_tanh", "QuickGELU": "quick_gelu"}
    return known.get(type(module).__name__)


def _listed(stages: tuple[tuple[int, int, int], ...]) -> str:
    return ", ".join(f"{count} blocks of width {width} and {heads} heads" for count, width, heads in stages)


# model_type in config.json -> the layout that the tensors then have
TYPES = {
    "clip": "clip",
    "clip_vision_model": "clip",
    "siglip": "siglip",
    "siglip_vision_model": "siglip",
    "vit": "vit",
    "deit": "vit",
    "vit_mae": "vit",
    "vit_msn": "vit",
    "dinov2": "dinov2",
    "dinov2_with_registers": "dinov2",
    "swin": "swin",
    "swinv2": "swinv2",
}
# activation that transformers takes where config.json names none; of the other layouts that is GELU, as anywhere
DEFAULT_ACTIVATION = {"clip": "quick_gelu", "siglip": "gelu_pytorch_tanh"}
# other implementations of the same function
SAME_ACTIVATION = {
    "gelu_python": "gelu",
    "gelu_new": "gelu_pytorch_tanh",
    "gelu_fast": "gelu_pytorch_tanh",
    "gelu_accurate": "gelu_pytorch_tanh",
    "gelu_python_tanh": "gelu_pytorch_tanh",
}


def settings_beside(files: WeightFiles, layout: str, path: Path) -> Settings:
    """The settings beside tensors of one of transformers' layouts; what no file tells is transformers' default.

    Args:
        files: where they are.
        layout: one of the values in TYPES.
        path: what the user calls the weights.

    Raises:
        WeightsError: a file that is broken, of another kind of model, or of one that no backbone here computes.
    """
    mean, std = _statistics(files.pixels)
    unnormalised = (
        f"no image_mean and image_std in a file beside {path.name}: pixels are normalised for the architecture"
    )
    known = Settings(kind=f"a {layout} model of transformers", mean=mean, std=std, unnormalised=unnormalised)
    default = DEFAULT_ACTIVATION.get(layout, "gelu")
    if files.config is None:
        if layout not in DEFAULT_ACTIVATION:
            return known
        assumed = f"no config.json beside {path.name}: {default} is taken for its activation, transformers' default"
        return replace(known, activation=default, notes=(assumed,))
    config = read_json(files.config)
    kind = config.get("model_type")
    if not isinstance(kind, str) or TYPES.get(kind) != layout:
        right = ", ".join(name for name, one in TYPES.items() if one == layout)
        raise WeightsError(
            f"{files.config} has the model_type {kind!r} and {path} the tensors of a {layout}: expected {right}"
        )
    vision = config.get("vision_config", config)
    if not isinstance(vision, dict):
        raise WeightsError(f"{files.config} has the vision_config {vision!r}: expected a JSON object")
    activation = vision.get("hidden_act", default)
    known_as = SAME_ACTIVATION.get(activation, activation) if isinstance(activation, str) else ""
    if known_as not in ACTIVATIONS:
        raise WeightsError(
            f"{files.config} has the hidden_act {activation!r}, which no backbone here computes: expected "
            f"{', '.join(ACTIVATIONS)}"
        )
    try:
        stages = _stages(vision)
        epsilon = None if (value := vision.get("layer_norm_eps")) is None else float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise WeightsError(f"{files.config} does not describe a {kind} model: {error}") from error
    return replace(known, stages=stages, activation=known_as, epsilon=epsilon)


def settings_of_others(files: WeightFiles) -> Settings:
    """The settings beside tensors by other names: statistics of pixels from timm's config.json, a kind from another's.

    Raises:
        WeightsError: timm's config.json has no three numbers where they are due.
    """
    try:
        config = read_json(files.config) if files.config is not None else {}
    except WeightsError:  # it need not have to do with these weights
        return Settings()
    if isinstance(told := config.get("pretrained_cfg"), dict) and files.config is not None:
        mean, std = _pair(told, "", files.config)
        return Settings(mean=mean, std=std)
    if not isinstance(kind := config.get("model_type"), str):
        return Settings()
    expected = "" if kind in TYPES else f", where a model of {', '.join(dict.fromkeys(TYPES.values()))} is expected"
    return Settings(kind=f"a {kind} by its config.json{expected}")


def _stages(config: Mapping[str, Any]) -> tuple[tuple[int, int, int], ...]:
    """(blocks, width, heads) of each stage; () where the configuration leaves them to transformers' defaults."""
    if {"depths", "num_heads", "embed_dim"} <= config.keys():
        stages = enumerate(zip(config["depths"], config["num_heads"], strict=True))
        return tuple((int(depth), int(config["embed_dim"]) * 2**stage, int(heads)) for stage, (depth, heads) in stages)
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads")
    depth, width, heads = (config.get(name) for name in names)
    return () if depth is None or width is None or heads is None else ((int(depth), int(width), int(heads)),)


def _statistics(file: Path | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pixels; () where the file does not tell. Raises WeightsError."""
    if file is None:
        return (), ()
    config = read_json(file)
    inner = config.get("image_processor")  # where a processor of texts and images was saved
    config = inner if isinstance(inner, dict) else config
    if config.get("do_normalize") is False:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return _pair(config, "image_", file)


def _pair(config: Mapping[str, Any], prefix: str, file: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, or () and () where one of them is not told."""
    mean, std = (_numbers(config, f"{prefix}{name}", file) for name in ("mean", "std"))
    return (mean, std) if mean and std else ((), ())


def _numbers(config: Mapping[str, Any], name: str, file: Path) -> tuple[float, ...]:
    values = config.get(name, ())
    least = 0 if name.endswith("std") else -1
    right = isinstance(values, list | tuple) and all(isinstance(v, int | float) and least < v < 1000 for v in values)
    if not right or len(values) not in (0, 3):
        raise WeightsError(f"{file} has the {name} {values!r}: expected three numbers")
    return tuple(float(value) for value in values)
