"""timm's VisionTransformer behind the Backbone contract: ViT, DeiT, DINOv2, SigLIP and their like."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from math import lcm
from typing import Any

from timm.layers import Attention, Mlp
from torch import Tensor, nn

from backbones.base import Backbone, check_size, only_single, over_time
from backbones.input_size import resize
from backbones.kernels.attention import among_frames, multi_head, projected
from backbones.kernels.norm import normed
from backbones.names import UnsupportedModel
from backbones.projections import Projection, Role, third, whole

# about 0.46 M parameters on 32x32 frames: 16 patches of 8x8 and CLS
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 4}

# blocks of timm's that the contract cannot hold, and why
REFUSED = {
    "ParallelScalingBlock": "attention and MLP stand side by side behind one norm, and the MLP never sees what the "
    "attention gave",
    "DiffParallelScalingBlock": "attention and MLP stand side by side behind one norm, and the MLP never sees what the "
    "attention gave",
    "ParallelThingsBlock": "several attentions, each with a norm of its own, stand side by side",
}


class ViTBlock:
    """timm's pre-norm block: x + ls1(attn(norm1(x))), then x + ls2(mlp(norm2(x))).

    Args:
        module: timm's block.
        width: D.
    """

    attends_time = True
    time_bias = False
    # what attention needs of the module
    parts: tuple[str, ...] = ("norm1", "attn", "ls1")

    def __init__(self, module: Any, width: int) -> None:
        self.module: Any = module
        self.heads: int = module.attn.num_heads
        self.width = width

    def enter(self, x: Tensor) -> Tensor:
        return x

    def norm1(self, x: Tensor) -> Tensor:
        return normed(x, self.module.norm1)

    def attend(self, x: Tensor) -> Tensor:
        if not is_plain(self.module.attn):
            return self._attention(x)
        return self._behind(projected(multi_head(self.module.attn.qkv(x), self.heads), self.module.attn.proj))

    def attend_time(self, x: Tensor, frames: int, bias: Tensor | None = None) -> Tensor:
        if not is_plain(self.module.attn):
            return over_time(lambda grouped: self._attention(grouped, bias), x, frames)
        attention = self.module.attn
        return self._behind(projected(among_frames(attention.qkv(x), frames, self.heads, bias), attention.proj))

    def _attention(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return self._behind(self.module.attn(x, attn_mask=bias))

    def _behind(self, attended: Tensor) -> Tensor:
        """Apply the operations between the attention and its addition to x."""
        return self.module.ls1(attended)

    def norm2(self, x: Tensor) -> Tensor:
        return normed(x, self.module.norm2)

    def mlp(self, x: Tensor) -> Tensor:
        return self.module.ls2(self.module.mlp(x))

    def linear(self, role: Role) -> Projection | None:
        attention, mlp = self.module.attn, self.module.mlp
        if role == "output":
            return whole(attention.proj)
        if role in ("up", "down"):  # of a gated MLP the matrix before the activation is two
            return whole(mlp.fc1 if role == "up" else mlp.fc2) if type(mlp) is Mlp else None
        if isinstance(separate := getattr(attention, f"{role[0]}_proj", None), nn.Linear):
            return whole(separate)
        return third(attention.qkv, role) if self._calls_joint() else None

    def _calls_joint(self) -> bool:
        """Return whether attention calls its joint Linear of query, key and value, rather than uses its matrix."""
        attention = self.module.attn
        return getattr(attention, "q_bias", None) is None or bool(getattr(attention, "qkv_bias_separate", False))

    def copy_attention(self) -> ViTBlock:
        owner = nn.Module()
        for part in self.parts:
            owner.add_module(part, copy.deepcopy(getattr(self.module, part)))
        return type(self)(owner, self.width)


class PostNormViTBlock(ViTBlock):
    """timm's block with the norms behind: x + norm1(attn(x)), then x + norm2(mlp(x)).

    The norms are part of what is added to x; nothing is normed before.
    """

    parts = ("norm1", "attn")

    def norm1(self, x: Tensor) -> Tensor:
        return x

    def _behind(self, attended: Tensor) -> Tensor:
        return self.module.norm1(attended)

    def norm2(self, x: Tensor) -> Tensor:
        return x

    def mlp(self, x: Tensor) -> Tensor:
        return self.module.norm2(self.module.mlp(x))


def is_plain(attention: Any) -> bool:
    """Return whether timm's attention is projections and products alone, without norms, gates or dropout of its own."""
    if type(attention) is not Attention or getattr(attention, "gate", None) is not None:
        return False
    norms = (attention.q_norm, attention.k_norm, getattr(attention, "norm", None))
    return all(norm is None or isinstance(norm, nn.Identity) for norm in norms)


BLOCKS = {"Block": ViTBlock, "ResPostBlock": PostNormViTBlock}


class ViT(Backbone):
    """A timm VisionTransformer without its classifier. Pooling (CLS, mean, attention) is the model's own.

    Args:
        model: timm's.
        label: its name, for messages.
        pretrained: tag of its weights.

    Raises:
        UnsupportedModel: a part of the model does not fit the Block contract.
    """

    def __init__(self, model: Any, label: str, pretrained: str) -> None:
        super().__init__()
        self.model: Any = model
        kinds = [type(block).__name__ for block in model.blocks]
        check_parts(model, kinds, BLOCKS, label)
        self.blocks = tuple(
            BLOCKS[kind](block, model.embed_dim) for kind, block in zip(kinds, model.blocks, strict=True)
        )
        self._describe(model, pretrained)

    def _describe(self, model: Any, pretrained: str) -> None:
        self.width = model.num_features
        self.input_size = min(model.patch_embed.img_size)
        self.size_unit = lcm(*self._patch)
        self.prefix_tokens = model.num_prefix_tokens
        self.takes_tokens = getattr(model, "rope", None) is None
        self.mean, self.std = tuple(model.pretrained_cfg["mean"]), tuple(model.pretrained_cfg["std"])
        self.pretrained = pretrained

    def train(self, mode: bool = True) -> ViT:
        """Batch norms (of a convolutional stem) keep their statistics, which belong to the weights."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    @property
    def _patch(self) -> tuple[int, int]:
        """(H, W) of which a frame holds a whole number; (1, 1) where its rest is filled up."""
        embed = self.model.patch_embed
        padded = getattr(embed, "dynamic_img_pad", False)
        return (1, 1) if padded else tuple(embed.feat_ratio(as_scalar=False))

    def resize(self, size: int) -> None:
        resize(self.model, size)
        self.input_size = size

    def _check(self, frames: Tensor) -> None:
        free = self.model.dynamic_img_size
        check_size(frames, None if free else self.model.patch_embed.img_size, self._patch)

    def tokens(self, frames: Tensor, tubelet: int = 1) -> Tensor:
        only_single(tubelet)
        self._check(frames)
        return self.model._pos_embed(self.model.patch_embed(frames))

    def settle(self, tokens: Tensor) -> Tensor:
        # patches are never dropped: a position must be there in every frame for attention over time
        return self.model.norm_pre(tokens)

    @property
    def grid(self) -> tuple[int, int]:
        rows, columns = self.model.patch_embed.grid_size
        return rows, columns

    def sequence(self, tokens: Tensor) -> Tensor:
        return self.model.norm(tokens)

    def pool(self, sequence: Tensor) -> Tensor:
        return self.model.forward_head(sequence, pre_logits=True)

    @property
    def final_norm(self) -> nn.Module:
        return self.model.norm if not isinstance(self.model.norm, nn.Identity) else self.model.fc_norm

    def embeddings(self) -> Iterator[nn.Parameter]:
        owners = (self.model, getattr(self.model, "attn_pool", None), getattr(self.model, "rope", None))
        for owner in owners:
            for name in ("cls_token", "dist_token", "reg_token", "pos_embed", "latent", "freqs"):
                if isinstance(parameter := getattr(owner, name, None), nn.Parameter):
                    yield parameter


def check_parts(model: Any, kinds: list[str], known: dict[str, Any], label: str) -> None:
    """Raise UnsupportedModel where a timm model's blocks are not of the known kinds or it gives no one vector."""
    for kind in kinds:
        if kind not in known:
            why = REFUSED.get(kind, f"expected {' or '.join(known)}")
            raise UnsupportedModel(f"{label} is built of {kind}: {why}")
    if not model.global_pool:
        raise UnsupportedModel(f"{label} gives one vector a token: expected a model that pools them")
