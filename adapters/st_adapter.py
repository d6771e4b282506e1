"""ST-Adapter (Pan et al., NeurIPS 2022): bottlenecks with a convolution over space and time in a frozen model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from adapters.base import BodyConfig, Options, register_strategy
from adapters.blockwise import BlockwiseStrategy

if TYPE_CHECKING:
    from adapters.body import BlockwiseBody
    from backbones.base import Backbone


class STAdapterOptions(Options):
    bottleneck: int = Field(384, ge=1, le=4096, description="channels of the convolution")
    kernel: tuple[int, int, int] = Field((3, 1, 1), description="of the convolution, over T, H and W; odd numbers")
    per_block: Literal[1, 2] = Field(
        1, description="adapters a block: 1, before its MLP, as for Kinetics-400; 2, before its attention too, as for SSv2"
    )


@register_strategy
class STAdapter(BlockwiseStrategy):
    """The mean over the frames comes before the final norm, which stays frozen."""

    name = "st-adapter"
    summary = "bottlenecks with a convolution over space and time (Pan et al., 2022)"
    options: ClassVar[type[STAdapterOptions]] = STAdapterOptions
    order_aware = True

    def body(self, backbone: Backbone, config: BodyConfig, options: Any) -> BlockwiseBody:
        from adapters.space_time import MeanFirstBody, SpaceTimeAdapter, SpaceTimeBlock

        if any(side % 2 == 0 or side < 1 for side in options.kernel):
            raise ValueError(f"kernel is {options.kernel}: expected three odd numbers")

        def adapter(width: int) -> SpaceTimeAdapter:
            return SpaceTimeAdapter(
                width, options.bottleneck, options.kernel, backbone.prefix_tokens, backbone.grid
            )

        blocks = [
            SpaceTimeBlock(
                block, adapter(block.width) if options.per_block == 2 else None, before_mlp=adapter(block.width)
            )
            for block in backbone.blocks
        ]
        return MeanFirstBody(backbone, blocks, config.frames)
