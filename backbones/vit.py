"""timm's VisionTransformer behind the Backbone contract."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbones.base import Backbone, only_single, over_time
from backbones.names import BackboneName, UnsupportedModel
from backbones.timm_models import create

# about 0.46 M parameters on 32x32 frames: 16 patches of 8x8 and CLS
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 4}


class ViTBlock:
    """timm's pre-norm block: x + ls1(attn(norm1(x))), then x + ls2(mlp(norm2(x)))."""

    attends_time = True
    time_bias = False

    def __init__(self, module: Any) -> None:
        self.module: Any = module
        self.heads: int = module.attn.num_heads
        self.width: int = module.norm1.normalized_shape[0]

    def enter(self, x: Tensor) -> Tensor:
        return x

    def norm1(self, x: Tensor) -> Tensor:
        return self.module.norm1(x)

    def attend(self, x: Tensor) -> Tensor:
        return self.module.ls1(self.module.attn(x))

    def attend_time(self, x: Tensor, frames: int, bias: Tensor | None = None) -> Tensor:
        if bias is None:
            return over_time(self.attend, x, frames)
        return over_time(lambda grouped: self.module.ls1(self.module.attn(grouped, attn_mask=bias)), x, frames)

    def norm2(self, x: Tensor) -> Tensor:
        return self.module.norm2(x)

    def mlp(self, x: Tensor) -> Tensor:
        return self.module.ls2(self.module.mlp(x))

    def copy_attention(self) -> ViTBlock:
        owner = nn.Module()
        for part in ("norm1", "attn", "ls1"):
            owner.add_module(part, copy.deepcopy(getattr(self.module, part)))
        return ViTBlock(owner)


class ViT(Backbone):
    """A timm VisionTransformer without its classifier. Pooling (CLS or mean) is the model's own."""

    def __init__(self, model: VisionTransformer, pretrained: str) -> None:
        super().__init__()
        self.model: Any = model
        self.blocks = tuple(ViTBlock(block) for block in model.blocks)
        self.width = model.num_features
        self.input_size = model.patch_embed.img_size[0]
        self.mean, self.std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
        self.pretrained = pretrained

    def tokens(self, frames: Tensor, tubelet: int = 1) -> Tensor:
        only_single(tubelet)
        return self.model._pos_embed(self.model.patch_embed(frames))

    def settle(self, tokens: Tensor) -> Tensor:
        return self.model.norm_pre(self.model.patch_drop(tokens))

    def finish(self, tokens: Tensor) -> Tensor:
        return self.model.forward_head(self.model.norm(tokens), pre_logits=True)

    @property
    def final_norm(self) -> nn.Module:
        return self.model.norm if not isinstance(self.model.norm, nn.Identity) else self.model.fc_norm

    def embeddings(self) -> Iterator[nn.Parameter]:
        for name in ("cls_token", "reg_token", "pos_embed"):
            if isinstance(parameter := getattr(self.model, name, None), nn.Parameter):
                yield parameter


def open_vit(model: Any, label: str, pretrained: str) -> ViT:
    """Open a built VisionTransformer. Raises UnsupportedModel where a part of it does not fit the Block contract."""
    if type(model) is not VisionTransformer:
        raise UnsupportedModel(f"{label} is a {type(model).__name__}, expected timm's VisionTransformer")
    for block in model.blocks:
        if type(block) is not TimmBlock:
            raise UnsupportedModel(f"{label} is built of {type(block).__name__}, expected timm's pre-norm Block")
    return ViT(model, pretrained)


def build(name: BackboneName) -> ViT:
    """Build the named model. Raises UnsupportedModel and WeightsError."""
    model = create(name, "vit_tiny_patch16_224", TINY)
    return open_vit(model, str(name), name.weights)
