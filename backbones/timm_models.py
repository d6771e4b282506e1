"""timm's models by name: which there are, their tags, and building one with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm

from backbones.names import BackboneName
from backbones.weights import from_hub, load_file


def architectures(module: str) -> tuple[str, ...]:
    """Architectures that the file `module` of timm.models defines."""
    return tuple(timm.list_models(module=module))


def tags(model: str) -> tuple[str, ...]:
    """Pretrained tags of an architecture, timm's default first."""
    found = [name.partition(".")[2] for name in timm.list_models(f"{model}.*", pretrained=True)]
    default = timm.get_pretrained_cfg_value(model, "tag") if found else None
    return tuple(sorted(found, key=lambda tag: tag != default))


def create(name: BackboneName, tiny_of: str, tiny: Mapping[str, Any]) -> Any:
    """Build a timm model without its classifier.

    Args:
        name: the model and its weights.
        tiny_of: the architecture whose builder makes the tiny size.
        tiny: that builder's arguments for it.

    Raises WeightsError.
    """
    if name.model == "tiny":
        model = timm.create_model(tiny_of, pretrained=False, num_classes=0, **tiny)
    elif name.random or name.file is not None:
        model = timm.create_model(name.model, pretrained=False, num_classes=0)
    else:
        full = f"{name.model}.{name.weights}"
        model = from_hub(name, lambda: timm.create_model(full, pretrained=True, num_classes=0))
    if (file := name.stored) is not None:
        load_file(model, file, ignored=("head.", "fc.", "head_dist."))
    return model
