"""ST-Adapter (Pan et al., NeurIPS 2022): bottlenecks with a convolution over space and time in a frozen model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from adapters.base import BodyConfig, Options, register_strategy
from adapters.blockwise import BlockwiseStrategy

if TYPE_CHECKING:
    from adapters.body import BlockwiseBody
    from backbones.base import Backbone


class STAdapterOptions(Options):
    channels: int = Field(384, ge=1, le=4096, description="of the convolution")
    kernel: str = Field("3,1,1", description="of the convolution, over frames, rows and columns; odd numbers")
    per_block: Literal[1, 2] = Field(
        1, description="adapters a block: one before its MLP; 2: one before its attention too (ST-Adapter's SSv2 model)"
    )

    @field_validator("kernel")
    @classmethod
    def _odd(cls, text: str) -> str:
        sides = [side.strip() for side in text.split(",")]
        if len(sides) != 3 or not all(side in map(str, range(1, 32, 2)) for side in sides):
            raise ValueError("expected three odd numbers of at most 31, such as 3,1,1")
        return ",".join(sides)

    @property
    def sides(self) -> tuple[int, int, int]:
        """The kernel in frames, rows and columns."""
        frames, rows, columns = map(int, self.kernel.split(","))
        return frames, rows, columns


@register_strategy
class STAdapter(BlockwiseStrategy):
    """The mean over the frames comes before the final norm, which stays frozen."""

    name = "st-adapter"
    summary = "ST-Adapter: bottlenecks with a convolution over space and time"
    options: ClassVar[type[STAdapterOptions]] = STAdapterOptions
    of_field = True
    order_aware = True

    def body(self, backbone: Backbone, config: BodyConfig, options: Any) -> BlockwiseBody:
        from adapters.space_time import MeanFirstBody, SpaceTimeAdapter, SpaceTimeBlock

        def adapter(width: int) -> SpaceTimeAdapter:
            return SpaceTimeAdapter(width, options.channels, options.sides, backbone.prefix_tokens)

        blocks = [
            SpaceTimeBlock(block, adapter(block.width) if options.per_block == 2 else None, adapter(block.width))
            for block in backbone.blocks
        ]
        return MeanFirstBody(backbone, blocks, config.frames)
