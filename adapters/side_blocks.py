"""A block with a bottleneck beside its MLP."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from adapters.adapter import zero_linear
from adapters.block import AdaptedBlock
from backbones.base import Block


class SideBlock(AdaptedBlock):
    """x + MLP(LN2 x) + s up(dropout(ReLU(down x))) on the stream after attention (AdaptFormer, eq. 2 and 3).

    `down` starts as torch's Linear (Kaiming uniform, a = sqrt 5) without a bias, `up` at zero.

    Args:
        block: of the backbone.
        bottleneck: h.
        scale: s.
        dropout: between the two layers.
    """

    def __init__(self, block: Block, bottleneck: int, scale: float, dropout: float) -> None:
        super().__init__(block)
        self.down = nn.Linear(block.width, bottleneck)
        nn.init.zeros_(self.down.bias)
        self.up = zero_linear(bottleneck, block.width)
        self.side_scale = scale
        self.dropout = dropout

    def feed_forward(self, x: Tensor, frames: int) -> Tensor:
        side = self.up(F.dropout(F.relu(self.down(x)), self.dropout, self.training))
        return super().feed_forward(x, frames) + self.side_scale * side
