"""timm's models by name: which there are, their tags, and building one with its weights."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva as TimmEva
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from backbones.base import Backbone
from backbones.eva import Eva
from backbones.input_size import resize
from backbones.names import BackboneName, UnsupportedModel, WeightsError
from backbones.settings import Settings
from backbones.stored_weights import StoredWeights, check_inflation, converted, load, part, read
from backbones.swin import TINY as TINY_SWIN
from backbones.swin import Swin, SwinV2
from backbones.vit import TINY as TINY_VIT
from backbones.vit import ViT
from backbones.weights import from_hub

# what a file may hold beside the model: classifiers, and what pretraining by masking throws away
SURPLUS = ("head.", "head_dist.", "fc.", "pre_logits.", "mask_token", "decoder")
# family -> the architecture whose builder makes the tiny size, and that builder's arguments
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_tiny_patch16_224", TINY_VIT),
    "swin": ("swin_tiny_patch4_window7_224", TINY_SWIN),
}


def architectures(modules: Iterable[str]) -> tuple[str, ...]:
    """Architectures that these files of timm.models define."""
    return tuple(timm.list_models(module=list(modules)))


def tags(model: str) -> tuple[str, ...]:
    """Pretrained tags of an architecture, timm's default first."""
    found = [name.partition(".")[2] for name in timm.list_models(f"{model}.*", pretrained=True)]
    default = timm.get_pretrained_cfg_value(model, "tag") if found else None
    return tuple(sorted(found, key=lambda tag: tag != default))


def build(name: BackboneName, size: int | None = None) -> Backbone:
    """Build the named model without its classifier.

    Args:
        name: in full.
        size: of the input, in pixels, where it is not the name's own.

    Raises UnsupportedModel and WeightsError.
    """
    model, settings = _create(name, size)
    return settings.apply(open_trunk(model, str(name), name.weights), tagged="." in name.model)


def examine(name: BackboneName) -> Backbone:
    """Open the named model with one block, as all are of one kind. Raises UnsupportedModel where it does not open."""
    shapes: tuple[dict[str, Any], ...] = ({"depth": 1}, {"depths": (1, 1, 1, 1)})
    for shape in shapes:
        try:
            model = timm.create_model(name.model, pretrained=False, num_classes=0, **shape)
        except (TypeError, AssertionError):  # not this builder's argument, or it wants one value for each block
            continue
        return open_trunk(model, name.architecture, name.weights)
    model = timm.create_model(name.model, pretrained=False, num_classes=0)
    return open_trunk(model, name.architecture, name.weights)


def _create(name: BackboneName, size: int | None) -> tuple[Any, Settings]:
    if name.model == "tiny":
        architecture, shape = TINY[name.family]
        model = timm.create_model(architecture, pretrained=False, num_classes=0, **shape)
    elif name.random or name.file is not None:
        model = timm.create_model(name.model, pretrained=False, num_classes=0)
    else:
        full = f"{name.model}.{name.weights}"
        model = from_hub(name, lambda: timm.create_model(full, pretrained=True, num_classes=0))
    if size is not None:
        # before a file is read, whose positions may have been made for this very size
        resize(model, size)
    return model, Settings() if (file := name.stored) is None else load_file(model, file)


def load_file(model: Any, file: Path) -> Settings:
    """Load a file's weights into a timm model: timm's own names, those of transformers, or a layout that timm converts
    (OpenAI's CLIP, DINOv2, Microsoft's Swin, Google's .npz); position embeddings and bias tables of another size are
    interpolated by timm.

    Returns:
        What the weights were trained with, which the model does not have yet.

    Raises:
        WeightsError: the weights cannot be read or do not fit.
    """
    if file.suffix == ".npz":
        _load_npz(model, file)
        return Settings()
    return load_weights(model, read(file))


def load_weights(model: Any, checkpoint: StoredWeights) -> Settings:
    """See `load_file`."""
    checkpoint.settings.check(open_trunk(model, "the model", ""), checkpoint.file)
    embed = "patch_embed.proj.weight"
    checkpoint = part(checkpoint, embed if embed in model.state_dict() else "pos_embed")
    if "class_embedding" in checkpoint.state:  # CLIP's image tower alone; timm knows it as part of the whole
        named = {f"visual.{name}": value for name, value in checkpoint.state.items()}
        checkpoint = replace(checkpoint, state=named)
    load(model, converted(checkpoint, partial(_converted, model)), SURPLUS)
    return checkpoint.settings


def _converted(model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict as timm's own loader converts it for this kind of model."""
    module = sys.modules[type(model).__module__]
    # Swin's conversion looks for the module of every table; those of blocks that are not there are left for `load`
    strangers = {
        name: value
        for name, value in state.items()
        if name.endswith(".relative_position_bias_table") and name not in model.state_dict()
    }
    state = {name: value for name, value in state.items() if name not in strangers}
    # DeiT III calls its layer scale gamma
    named = {"adapt_layer_scale": True} if module.__name__ == "timm.models.vision_transformer" else {}
    return {**module.checkpoint_filter_fn(state, model, **named), **strangers}


@torch.no_grad()
def _load_npz(model: Any, file: Path) -> None:
    """Google's releases of ViT and SigLIP in JAX's layout, by timm's own loader."""
    if not hasattr(model, "load_pretrained"):
        raise WeightsError(f"{file} is a .npz file, as Google releases ViTs: {type(model).__name__} is none of them")
    try:
        check_inflation(file)
        arrays = np.load(file, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array without a name")
        with arrays:
            depths = {int(found[1]) + 1 for name in arrays.files if (found := re.search(r"encoderblock_(\d+)/", name))}
            depths |= {len(arrays[name]) for name in arrays.files if "encoderblock/LayerNorm_0/scale" in name}
        if depths and max(depths) != len(model.blocks):
            raise ValueError(f"it has {max(depths)} blocks and the model {len(model.blocks)}")
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
        model.load_pretrained(str(file))
        if missing := [name for name, p in model.named_parameters() if not p.is_meta and p.isnan().any()]:
            raise ValueError(f"it has no {', '.join(missing[:5])}{' and others' if len(missing) > 5 else ''}")
    except Exception as error:  # timm takes for granted that the file fits
        text = str(error).strip()
        first = text.splitlines()[0] if text else "no details"
        raise WeightsError(f"cannot load {file} into the model: {type(error).__name__}: {first}") from error


def open_trunk(model: Any, label: str, pretrained: str) -> Backbone:
    """Open a built timm model.

    Args:
        model: without a classifier.
        label: its name, for messages.
        pretrained: tag of its weights.

    Raises:
        UnsupportedModel: the model, or a part of it, does not fit the contract.
    """
    kind = type(model)
    if kind in (VisionTransformer, VisionTransformerDistilled):
        return ViT(model, label, pretrained)
    if kind is TimmEva:
        return Eva(model, label, pretrained)
    if kind is SwinTransformer:
        return Swin(model, pretrained)
    if kind is SwinTransformerV2:
        return SwinV2(model, pretrained)
    raise UnsupportedModel(
        f"{label} is a {kind.__name__}, expected timm's VisionTransformer, Eva, SwinTransformer or SwinTransformerV2"
    )
