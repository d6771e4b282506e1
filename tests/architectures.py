"""One small member of every kind of image model that opens, built through its library's own arguments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import open_clip.transformer
import timm
import torch
from timm.layers import HybridEmbed
from timm.models.vision_transformer_hybrid import ConvStem
from torch import nn

from backbones.base import Backbone
from backbones.clip import CLIP
from backbones.timm_models import open_trunk

_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
_SWIN = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
_CLIP = {"image_size": 32, "patch_size": 8, "width": 48, "layers": 2, "heads": 3, "mlp_ratio": 2.0, "output_dim": 40}


def _timm(architecture: str, **shape: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(architecture, pretrained=False, num_classes=0, **shape)


def _clip(**more: Any) -> Callable[[], nn.Module]:
    return lambda: open_clip.transformer.VisionTransformer(**_CLIP, **more)


def _stem() -> nn.Module:
    """With batch norms, as MobileCLIP has."""
    stem = ConvStem(channels=(12, 24, 48), stride=(2, 2, 2), kernel_size=2, padding=0)
    embed = partial(HybridEmbed, backbone=stem, proj=False)
    return _timm("vit_base_mci_224", img_size=32, embed_dim=48, depth=2, num_heads=3, embed_layer=embed)()


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "registers and layer scale": _timm("vit_small_patch14_reg4_dinov2", **_VIT),
    "attention pooling": _timm("vit_base_patch16_siglip_224", **_VIT),
    "mean pooling": _timm("vit_base_patch16_siglip_gap_224", **_VIT),
    "normed queries": _timm("vit_tiny_patch16_224", qk_norm=True, scale_attn_norm=True, **_VIT),
    "differential attention": _timm("vit_dwee_patch16_reg1_gap_256", **_VIT | {"embed_dim": 64, "num_heads": 2}),
    "RMS norm and SwiGLU": _timm("aimv2_large_patch14_224", **_VIT),
    "distilled": _timm("deit_tiny_distilled_patch16_224", **_VIT),
    "DeiT III": _timm("deit3_small_patch16_224", **_VIT),
    "timm's CLIP": _timm("vit_base_patch16_clip_quickgelu_224", patch_drop_rate=0.5, **_VIT),
    "post-norm": _timm("vit_base_patch16_rpn_224", **_VIT),
    "convolutional stem": _stem,
    "residual stem": _timm("vit_tiny_r_s16_p8_224", **_VIT | {"patch_size": 2}),
    "ViTamin": _timm("vitamin_small_224", img_size=32, depth=2),
    "EVA": _timm("eva_giant_patch14_224", **_VIT),
    "EVA-02": _timm("eva02_tiny_patch14_224", patch_drop_rate=0.5, **_VIT),
    "post-norm EVA": _timm("eva02_enormous_patch14_clip_224", **_VIT),
    "DINOv3": _timm("vit_small_patch16_dinov3", **_VIT),
    "mixed RoPE": _timm("vit_small_patch16_rope_mixed_ape_224", **_VIT),
    "PE": _timm("vit_pe_core_tiny_patch16_384", **_VIT),
    "grouped queries": _timm(
        "vit_base_patch16_sapiens2", **_VIT | {"img_size": (32, 48), "embed_dim": 64, "num_heads": 4}, num_kv_heads=2
    ),
    "Swin": _timm("swin_tiny_patch4_window7_224", **_SWIN),
    "Swin V2": _timm("swinv2_tiny_window8_256", **_SWIN),
    "mean-pooled CLIP": _clip(no_ln_pre=True, pool_type="avg", final_ln_after_pool=True),
    "CoCa": _clip(attentional_pool=True, attn_pooler_queries=5, attn_pooler_heads=4, output_tokens=True),
    "custom CLIP blocks": _clip(
        qk_norm=True, scale_heads=True, scale_attn_inner=True, scale_attn=True, scale_fc=True, ls_init_value=0.1
    ),
    "patch dropout": _clip(patch_dropout=0.5, pos_embed_type="sin_cos_2d"),
}


def small(kind: str, seed: int = 0) -> Backbone:
    """A small image model of that kind, opened, every weight random: many norms and scales start at zero or one."""
    torch.manual_seed(seed)
    return opened(randomised(BUILDERS[kind](), seed), kind)


def opened(model: nn.Module, label: str = "the model") -> Backbone:
    """Open a built model as its family does."""
    if isinstance(model, open_clip.transformer.VisionTransformer):
        return CLIP(model, label, "none").eval()
    return open_trunk(model, label, "none").eval()


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model
