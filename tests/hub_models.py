"""Small models of transformers and the backbones here that they belong to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FRAMES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
# the tiny models' shape, in transformers' words and in timm's
_SHAPE = {
    "hidden_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 384,
    "image_size": 32,
    "patch_size": 8,
}
_DINO = {name: value for name, value in _SHAPE.items() if name != "intermediate_size"}
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 4}
_SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 64, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
_TIMM_SWIN = {"img_size": 32, "patch_size": 4, "embed_dim": 64, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
_DECODER = {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
_TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}


def _cls(model: Any) -> Tensor:
    return model(FRAMES).last_hidden_state[:, 0]


def _pooled(model: Any) -> Tensor:
    return model(FRAMES).pooler_output


@dataclass(frozen=True)
class Kind:
    """A model of transformers' and the backbone that it belongs to.

    Attributes:
        model: transformers' class.
        config: the arguments of its configuration.
        features: what our features are there.
        name: of the backbone.
        built: timm's architecture and arguments in the place of the tiny model's.
    """

    model: str
    config: dict[str, Any]
    features: Callable[[Any], Tensor]
    name: str = "vit:tiny"
    built: tuple[str, dict[str, Any]] | None = None


def _of_both(**vision: Any) -> dict[str, Any]:
    return {"text_config": _TEXT, "vision_config": {**_SHAPE, **vision}}


_SIGLIP = ("vit_base_patch16_siglip_224", VIT)
KINDS = {
    "CLIP": Kind("CLIPModel", _of_both(hidden_act="gelu"), lambda m: _pooled(m.vision_model), "clip:tiny"),
    "CLIP with GELU": Kind("CLIPVisionModel", {**_SHAPE, "hidden_act": "gelu"}, _pooled, "clip:tiny"),
    "CLIP with tanh": Kind("CLIPVisionModel", {**_SHAPE, "hidden_act": "gelu_new"}, _pooled, "clip:tiny"),
    "CLIP, projected": Kind("CLIPVisionModelWithProjection", _SHAPE, lambda m: _pooled(m.vision_model), "clip:tiny"),
    "CLIP in timm": Kind(
        "CLIPVisionModel", _SHAPE, _pooled, built=("vit_base_patch16_clip_224", {**VIT, "pre_norm": True})
    ),
    "ViT": Kind("ViTModel", _SHAPE, _cls),
    "ViT, coarse norms": Kind("ViTModel", {**_SHAPE, "layer_norm_eps": 0.1}, _cls),
    "ViT with a classifier": Kind("ViTForImageClassification", _SHAPE, lambda m: _cls(m.vit)),
    "DeiT": Kind(
        "DeiTForImageClassificationWithTeacher",
        _SHAPE,
        lambda m: m.deit(FRAMES).last_hidden_state[:, :2].mean(1),
        built=("deit_tiny_distilled_patch16_224", VIT),
    ),
    "MAE": Kind("ViTMAEForPreTraining", {**_SHAPE, **_DECODER, "mask_ratio": 0.0}, lambda m: _cls(m.vit)),
    "MSN": Kind("ViTMSNModel", _SHAPE, _cls),
    "DINOv2": Kind("Dinov2Model", _DINO, _pooled, built=("vit_small_patch14_dinov2", VIT)),
    "DINOv2, gated": Kind(
        "Dinov2Model", {**_DINO, "use_swiglu_ffn": True}, _pooled, built=("vit_giant_patch14_dinov2", VIT)
    ),
    "DINOv2 with registers": Kind(
        "Dinov2WithRegistersForImageClassification",
        _DINO,
        lambda m: _pooled(m.dinov2_with_registers),
        built=("vit_small_patch14_reg4_dinov2", VIT),
    ),
    "SigLIP": Kind("SiglipModel", _of_both(), lambda m: _pooled(m.vision_model), built=_SIGLIP),
    "SigLIP, image tower": Kind("SiglipVisionModel", _SHAPE, _pooled, built=_SIGLIP),
    "Swin": Kind("SwinModel", _SWIN, _pooled, "swin:tiny"),
    "Swin, coarse norms": Kind("SwinModel", {**_SWIN, "layer_norm_eps": 0.1}, _pooled, "swin:tiny"),
    "Swin with a classifier": Kind("SwinForImageClassification", _SWIN, lambda m: _pooled(m.swin), "swin:tiny"),
    "Swin V2": Kind("Swinv2Model", _SWIN, _pooled, "swin:tiny", ("swinv2_tiny_window8_256", _TIMM_SWIN)),
}
