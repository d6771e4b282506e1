"""AdaptFormer (Chen et al., NeurIPS 2022): a scaled bottleneck beside each frozen MLP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from adapters.base import Options, register_strategy
from adapters.blockwise import BlockwiseStrategy

if TYPE_CHECKING:
    from torch import nn

    from backbones.base import Block


class AdaptFormerOptions(Options):
    bottleneck: int = Field(64, ge=1, le=4096, description="units of the layer beside the MLP")
    side_scale: float = Field(0.1, ge=0, le=10, description="s of the bottleneck's output")
    dropout: float = Field(0.1, ge=0, lt=1, description="inside what is added, as published")


@register_strategy
class AdaptFormer(BlockwiseStrategy):
    """x + MLP(LN2 x) + s up(ReLU(down x)), x the stream after attention, which is not normed (eq. 2 and 3)."""

    name = "adaptformer"
    summary = "AdaptFormer: a scaled bottleneck beside each frozen MLP"
    options: ClassVar[type[AdaptFormerOptions]] = AdaptFormerOptions
    of_field = True

    def adapt(self, block: Block, index: int, depth: int, frames: int, options: Any, drop_path: float) -> nn.Module:
        from adapters.block import SideBlock

        return SideBlock(block, options.bottleneck, options.side_scale, options.dropout)
