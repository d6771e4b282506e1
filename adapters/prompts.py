"""Learned tokens among those of a frame."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.block import AdaptedBlock
from adapters.body import BlockwiseBody
from backbones.base import Backbone, Block


class PromptedBlock(AdaptedBlock):
    """A block that sees learned tokens between a frame's CLS and its patches, and drops them behind it (VPT-deep).

    Args:
        block: of the backbone.
        prompts: (p, D), the same for every frame.
        prefix: tokens that stand before the patches.
        dropout: of the prompts, of each frame by itself.
    """

    def __init__(self, block: Block, prompts: Tensor, prefix: int, dropout: float) -> None:
        super().__init__(block)
        self.prompts = nn.Parameter(prompts)
        self.prefix = prefix
        self.dropout = dropout

    def forward(self, x: Tensor, frames: int) -> Tensor:
        prompts = F.dropout(self.prompts.expand(len(x), -1, -1), self.dropout, self.training)
        x = super().forward(inserted(x, prompts, self.prefix), frames)
        return removed(x, len(self.prompts), self.prefix)


def inserted(x: Tensor, prompts: Tensor, prefix: int) -> Tensor:
    """Tokens (B*T, N, D) with prompts (p, D), or (B*T, p, D), behind the first `prefix`."""
    return torch.cat([x[:, :prefix], prompts.to(x.dtype).expand(len(x), -1, -1), x[:, prefix:]], dim=1)


def removed(x: Tensor, count: int, prefix: int) -> Tensor:
    """Tokens (B*T, N + p, D) without the `count` behind the first `prefix`."""
    return torch.cat([x[:, :prefix], x[:, prefix + count :]], dim=1)


class ShallowPromptBody(BlockwiseBody):
    """Prompts join the tokens before the first block, go through all of them and leave behind the last (VPT-shallow).

    Args:
        backbone, blocks, frames: see `BlockwiseBody`.
        prompts: (p, D).
        prefix: tokens that stand before the patches.
    """

    def __init__(
        self, backbone: Backbone, blocks: Iterable[nn.Module], frames: int, *, prompts: Tensor, prefix: int
    ) -> None:
        super().__init__(backbone, blocks, frames)
        self.prompts = nn.Parameter(prompts)
        self.prefix = prefix

    def embed(self, clips: Tensor) -> Tensor:
        return inserted(super().embed(clips), self.prompts, self.prefix)

    def tokens(self, clips: Tensor) -> Tensor:
        return removed(super().tokens(clips), len(self.prompts), self.prefix)
