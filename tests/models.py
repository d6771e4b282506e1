"""The models that the tests share: every family at its tiny size, every strategy."""

from __future__ import annotations

import torch
from torch import nn

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from backbones.base import Backbone
from backbones.families import build, resolve

FAMILIES = ("vit", "clip", "swin")
NAMES = ("frozen", "full", "timesformer", "spatial", "temporal", "joint")
CLASSES, FRAMES = 10, 4


def backbone(family: str, seed: int = 0) -> Backbone:
    """The family's tiny backbone with random weights."""
    torch.manual_seed(seed)
    return build(resolve(f"{family}:tiny@none", "tiny")).eval()


def model(family: str, strategy: str, *, frames: int = FRAMES, seed: int = 0, **options: object) -> VideoClassifier:
    """A tiny video model, dropout off."""
    chosen = STRATEGIES.get(strategy)
    return VideoClassifier(
        backbone(family, seed),
        chosen,
        chosen.options(**options),
        classes=CLASSES,
        frames=frames,
        dropout=0.0,
    )


def clips(batch: int = 2, frames: int = FRAMES, seed: int = 1) -> torch.Tensor:
    """Random clips (B, T, 3, 32, 32)."""
    return torch.randn(batch, frames, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def awaken(module: nn.Module, seed: int = 2) -> None:
    """Give every trained parameter random values: what starts at zero would hide what it is multiplied with."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def without_numbers(name: str, strategy: str, frames: int, classes: int, **options: object) -> VideoClassifier:
    """A video model of any size on torch's meta device: shapes alone."""
    chosen = STRATEGIES.get(strategy)
    with torch.device("meta"):
        return VideoClassifier(
            build(resolve(name, "base")), chosen, chosen.options(**options), classes=classes, frames=frames
        )


def image_features(adapted: VideoClassifier, x: torch.Tensor) -> torch.Tensor:
    """Features of single frames by the image model, their mean; of a patch over two frames, of the frames' mean."""
    single = x.unflatten(1, (-1, adapted.body.tubelet)).mean(dim=2)
    return adapted.backbone(single.flatten(0, 1)).view(*single.shape[:2], -1).mean(1)
