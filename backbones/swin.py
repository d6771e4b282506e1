"""timm's SwinTransformer and SwinTransformerV2 behind the Backbone contract."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from math import lcm
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn

from backbones.base import Backbone, check_size, over_time
from backbones.input_size import resize
from backbones.kernels.attention import among_frames, among_windows, projected
from backbones.kernels.norm import normed
from backbones.kernels.switch import is_plain_module
from backbones.projections import Projection, Role, third, whole

# about 0.5 M parameters on 32x32 frames: 8x8 tokens of 4x4 pixels, then 4x4 tokens; windows of 4
TINY = {
    "img_size": 32,
    "patch_size": 4,
    "embed_dim": 64,
    "depths": (2, 2),
    "num_heads": (2, 4),
    "window_size": 4,
}


class SwinBlock:
    """timm's Swin block; tokens are (B*T, H, W, D). `merge` is the patch merging before the first block of a stage."""

    time_bias = True

    def __init__(self, module: Any, merge: nn.Module | None, shifted: bool) -> None:
        self.module: Any = module
        self.merge = merge
        self.shifted = shifted
        self.attends_time = not shifted
        self.heads: int = module.attn.num_heads
        self.width: int = module.norm1.normalized_shape[0]

    def enter(self, x: Tensor) -> Tensor:
        return x if self.merge is None else self.merge(x)

    def norm1(self, x: Tensor) -> Tensor:
        return normed(x, self.module.norm1)

    def attend(self, x: Tensor) -> Tensor:
        module = self.module
        attention, (tall, wide), shift = module.attn, module.window_size, module.shift_size
        # which fills up the last windows, and calls an attention that a strategy has put there
        if x.shape[1] % tall or x.shape[2] % wide or not is_plain_module(attention, WindowAttention):
            return module._attn(x)
        bias = attention._get_rel_pos_bias()
        mask = module.get_attn_mask(x) if getattr(module, "dynamic_mask", False) else module.attn_mask
        if mask is not None:
            bias = bias + mask[:, None]
        if any(shift):
            x = torch.roll(x, (-shift[0], -shift[1]), (1, 2))
        attended = among_windows(attention.qkv(x), (tall, wide), self.heads, bias)
        if any(shift):
            attended = torch.roll(attended, tuple(shift), (1, 2))
        return projected(attended, attention.proj)

    def attend_time(self, x: Tensor, frames: int, bias: Tensor | None = None) -> Tensor:
        attention = self.module.attn
        return projected(among_frames(attention.qkv(x), frames, self.heads, bias), attention.proj)

    def norm2(self, x: Tensor) -> Tensor:
        return normed(x, self.module.norm2)

    def mlp(self, x: Tensor) -> Tensor:
        return self.module.mlp(x)

    def linear(self, role: Role) -> Projection | None:
        attention, mlp = self.module.attn, self.module.mlp
        if role in ("up", "down"):
            return whole(mlp.fc1 if role == "up" else mlp.fc2)
        return whole(attention.proj) if role == "output" else third(attention.qkv, role)

    def copy_attention(self) -> SwinBlock:
        owner: Any = nn.Module()
        attention: Any = nn.Module()
        owner.add_module("norm1", copy.deepcopy(self.module.norm1))
        # the position bias over a window has no meaning over time and would never get a gradient: it stays behind
        for part in ("qkv", "proj"):
            attention.add_module(part, copy.deepcopy(getattr(self.module.attn, part)))
        attention.num_heads = self.heads
        owner.add_module("attn", attention)
        return SwinBlock(owner, None, self.shifted)


class Swin(Backbone):
    """A timm SwinTransformer without its classifier; features are the mean over the last stage's tokens."""

    tubelet = 2
    time_drop_axes = ("clip", "position")
    released_freezing = True
    windowed = True
    kind: type[SwinBlock] = SwinBlock

    def __init__(self, model: Any, pretrained: str) -> None:
        super().__init__()
        self.model: Any = model
        self.blocks = tuple(
            self.kind(block, stage.downsample if stage_index and not index else None, shifted=index % 2 == 1)
            for stage_index, stage in enumerate(model.layers)
            for index, block in enumerate(stage.blocks)
        )
        self.width = model.num_features
        self.input_size = min(model.patch_embed.img_size)
        # of what a window sees, in each stage: every stage's grid is then a whole number of windows
        patch = lcm(*model.patch_embed.patch_size)
        self.size_unit = lcm(
            *(patch * 2**index * lcm(*stage.blocks[0].window_size) for index, stage in enumerate(model.layers))
        )
        self.mean, self.std = tuple(model.pretrained_cfg["mean"]), tuple(model.pretrained_cfg["std"])
        self.pretrained = pretrained

    def resize(self, size: int) -> None:
        resize(self.model, size)
        self.input_size = size

    def tokens(self, frames: Tensor, tubelet: int = 1) -> Tensor:
        embed = self.model.patch_embed
        check_size(frames, embed.img_size if embed.strict_img_size else None, embed.patch_size)
        if tubelet == 1:
            return embed(frames)
        if tubelet != self.tubelet:
            raise ValueError(f"tubelet is {tubelet}: expected 1 or {self.tubelet}")
        # the released video patch (2, 4, 4) frame by frame: its weight is the 2-D one, repeated over time and halved
        projected = embed.proj(frames).unflatten(0, (-1, tubelet)).mean(dim=1)
        return embed.norm(projected.permute(0, 2, 3, 1))

    @property
    def grid(self) -> tuple[int, int]:
        rows, columns = self.model.patch_embed.grid_size
        return rows, columns

    def sequence(self, tokens: Tensor) -> Tensor:
        return self.model.norm(tokens).flatten(1, 2)

    def pool(self, sequence: Tensor) -> Tensor:
        return self.model.forward_head(sequence[:, :, None], pre_logits=True)

    @property
    def final_norm(self) -> nn.Module:
        return self.model.norm

    def embeddings(self) -> Iterator[nn.Parameter]:
        for stage in self.model.layers:
            for block in stage.blocks:
                yield block.attn.relative_position_bias_table


class SwinV2Block(SwinBlock):
    """timm's block with the norms behind and cosine attention (Liu et al., 2022, sections 3.2 and 3.3).

    x + norm1(attn(x)), then x + norm2(mlp(x)): the norms are part of what is added to x; nothing is normed before.
    """

    def norm1(self, x: Tensor) -> Tensor:
        return x

    def attend(self, x: Tensor) -> Tensor:
        return self.module.norm1(self.module._attn(x))

    def attend_time(self, x: Tensor, frames: int, bias: Tensor | None = None) -> Tensor:
        return self.module.norm1(over_time(lambda grouped: self._cosine(grouped, bias), x, frames))

    def _cosine(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """softmax(cos(q, k) tau + bias) v, head by head, tau at most 100: (G, T, D) -> (G, T, D)."""
        attention = self.module.attn
        shift = None if attention.q_bias is None else torch.cat((attention.q_bias, attention.k_bias, attention.v_bias))
        qkv = F.linear(x, attention.qkv.weight, shift)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        scale = attention.logit_scale.exp().clamp(max=100)
        q, k = (F.normalize(q, dim=-1) * scale).to(v.dtype), F.normalize(k, dim=-1).to(v.dtype)
        mask = None if bias is None else bias.to(v.dtype)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
        return attention.proj(out.transpose(1, 2).flatten(2))

    def norm2(self, x: Tensor) -> Tensor:
        return x

    def mlp(self, x: Tensor) -> Tensor:
        return self.module.norm2(self.module.mlp(x))

    def linear(self, role: Role) -> Projection | None:
        # timm's cosine attention uses the joint matrix with biases of its own and calls no module
        return None if role in ("query", "key", "value") else super().linear(role)

    def copy_attention(self) -> SwinV2Block:
        owner: Any = nn.Module()
        owner.add_module("norm1", copy.deepcopy(self.module.norm1))
        # see SwinBlock: what makes the bias over a window stays behind
        attention: Any = copy.deepcopy(self.module.attn)
        del attention.cpb_mlp, attention.relative_coords_table, attention.relative_position_index
        owner.add_module("attn", attention)
        return SwinV2Block(owner, None, self.shifted)


class SwinV2(Swin):
    """A timm SwinTransformerV2 without its classifier; features are the mean over the last stage's tokens."""

    kind = SwinV2Block

    def embeddings(self) -> Iterator[nn.Parameter]:
        for stage in self.model.layers:
            for block in stage.blocks:
                # no decay either for the cosines' temperature (Swin V2's recipe)
                yield from (*block.attn.cpb_mlp.parameters(), block.attn.logit_scale)
