"""open_clip's image towers behind the Backbone contract."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from backbones.attention import multi_head
from backbones.base import Backbone, only_single, over_time
from backbones.names import BackboneName, UnsupportedModel
from backbones.vit import ViT, open_vit
from backbones.weights import from_hub, load_file

# about 0.47 M parameters on 32x32 frames: 16 patches of 8x8 and CLS
TINY = {
    "image_size": 32,
    "patch_size": 8,
    "width": 96,
    "layers": 4,
    "heads": 4,
    "mlp_ratio": 4.0,
    "output_dim": 96,
}


class CLIPBlock:
    """open_clip's residual attention block: x + ls_1(attn(ln_1(x))), then x + ls_2(mlp(ln_2(x)))."""

    attends_time = True
    time_bias = False

    def __init__(self, module: Any) -> None:
        self.module: Any = module
        self.heads: int = module.attn.num_heads
        self.width: int = module.attn.embed_dim

    def enter(self, x: Tensor) -> Tensor:
        return x

    def norm1(self, x: Tensor) -> Tensor:
        return self.module.ln_1(x)

    def _attention(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        # nn.MultiheadAttention computes differently in training, in evaluation and under autocast (its "fast path");
        # its weights are used directly so that what is trained is what is evaluated and counted
        attention = self.module.attn
        qkv = nn.functional.linear(x, attention.in_proj_weight, attention.in_proj_bias)
        out = nn.functional.linear(
            multi_head(qkv, self.heads, bias), attention.out_proj.weight, attention.out_proj.bias
        )
        return self.module.ls_1(out)

    def attend(self, x: Tensor) -> Tensor:
        return self._attention(x)

    def attend_time(self, x: Tensor, frames: int, bias: Tensor | None = None) -> Tensor:
        return over_time(lambda grouped: self._attention(grouped, bias), x, frames)

    def norm2(self, x: Tensor) -> Tensor:
        return self.module.ln_2(x)

    def mlp(self, x: Tensor) -> Tensor:
        return self.module.ls_2(self.module.mlp(x))

    def copy_attention(self) -> CLIPBlock:
        owner = nn.Module()
        for part in ("ln_1", "attn", "ls_1"):
            owner.add_module(part, copy.deepcopy(getattr(self.module, part)))
        return CLIPBlock(owner)


class CLIP(Backbone):
    """An open_clip VisionTransformer up to its last norm, without the projection into the space shared with text."""

    def __init__(self, visual: VisionTransformer, pretrained: str) -> None:
        super().__init__()
        self.model: Any = visual
        self.blocks = tuple(CLIPBlock(block) for block in visual.transformer.resblocks)
        self.width = visual.ln_post.normalized_shape[0]
        self.input_size = visual.image_size[0]
        self.mean, self.std = mean_std(visual)
        self.pretrained = pretrained

    def tokens(self, frames: Tensor, tubelet: int = 1) -> Tensor:
        only_single(tubelet)
        patches = self.model.conv1(frames).flatten(2).transpose(1, 2)
        cls = self.model.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        return torch.cat([cls, patches], dim=1) + self.model.positional_embedding.to(patches.dtype)

    def settle(self, tokens: Tensor) -> Tensor:
        return self.model.ln_pre(self.model.patch_dropout(tokens))

    def finish(self, tokens: Tensor) -> Tensor:
        return self.model._pool(tokens)[0]

    @property
    def final_norm(self) -> nn.Module:
        return self.model.ln_post

    def embeddings(self) -> Iterator[nn.Parameter]:
        yield self.model.class_embedding
        yield self.model.positional_embedding


def mean_std(visual: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Pixel statistics that the tower was pretrained with; OpenAI's where the tower names none."""
    config = getattr(visual, "preprocess_cfg", None) or {}
    return tuple(config.get("mean", OPENAI_DATASET_MEAN)), tuple(config.get("std", OPENAI_DATASET_STD))


def architectures() -> tuple[str, ...]:
    """open_clip's models by name, those whose image tower is a convolutional network included."""
    return tuple(open_clip.list_models())


def tags(model: str) -> tuple[str, ...]:
    """open_clip's pretrained tags of a model, OpenAI's first where there is one."""
    return tuple(sorted(open_clip.list_pretrained_tags_by_model(model), key=lambda tag: tag != "openai"))


def _create(name: BackboneName) -> Any:
    """The image tower of a named open_clip model with its weights. Raises WeightsError."""
    if name.model == "tiny":
        visual: Any = VisionTransformer(**TINY)
    elif name.random or name.file is not None:
        # on the default device, so that a model can be built for its counts alone on "meta"
        visual = open_clip.create_model(
            name.model, load_weights=False, pretrained_text=False, device=torch.get_default_device()
        ).visual
    else:
        # open_clip only warns where a tag was trained with QuickGELU and the model's configuration says GELU
        config = open_clip.get_pretrained_cfg(name.model, name.weights)
        quick = bool(config.get("quick_gelu", False))
        visual = from_hub(
            name,
            lambda: open_clip.create_model(name.model, pretrained=name.weights, force_quick_gelu=quick).visual,
        )
    if isinstance(visual, VisionTransformer):
        # AIM classifies ln_post's CLS token; a projection that nothing reads would be counted and never get a gradient
        visual.proj = None
    if (file := name.stored) is not None:
        load_file(visual, file, prefix="visual.", ignored=("proj",))
    return visual


def build(name: BackboneName) -> Backbone:
    """Build the named tower; SigLIP's and its like, which are timm models inside, open as a ViT.

    Raises UnsupportedModel and WeightsError.
    """
    visual = _create(name)
    if isinstance(visual, TimmModel):
        vit: ViT = open_vit(visual.trunk, str(name), name.weights)
        vit.mean, vit.std = mean_std(visual)
        return vit
    if type(visual) is not VisionTransformer:
        raise UnsupportedModel(f"the image tower of {name} is a {type(visual).__name__}, expected a vision transformer")
    for block in visual.transformer.resblocks:
        if type(block) is not ResidualAttentionBlock:
            raise UnsupportedModel(
                f"the image tower of {name} is built of {type(block).__name__}, expected ResidualAttentionBlock"
            )
    return CLIP(visual, name.weights)
