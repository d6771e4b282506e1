"""Opens a model that timm built, whichever family of the library names it."""

from __future__ import annotations

from typing import Any

from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva as TimmEva
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer

from backbones.base import Backbone
from backbones.eva import Eva
from backbones.names import UnsupportedModel
from backbones.swin import Swin
from backbones.swin2 import SwinV2
from backbones.vit import ViT


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
