"""timm's SwinTransformerV2 behind the Backbone contract."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import over_time
from backbones.projections import Projection, Role
from backbones.swin import Swin, SwinBlock


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
