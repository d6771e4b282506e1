"""Strategies that change an image model block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from adapters.base import BodyConfig, Strategy

if TYPE_CHECKING:
    from torch import nn

    from adapters.body import BlockwiseBody
    from backbones.base import Backbone, Block


class BlockwiseStrategy(Strategy):
    """Base of the strategies whose body is the image model's own loop over adapted blocks. Most give `adapt` alone."""

    def adapt(self, block: Block, index: int, depth: int, frames: int, options: Any, drop_path: float) -> nn.Module:
        """The block with what this strategy adds; called as module(x, frames).

        Blocks that `chosen` leaves out are not asked for: they stay as they are.

        Args:
            block: of the backbone.
            index: of the block, from 0.
            depth: number of blocks.
            frames: T, or T / tubelet where patches cover several frames.
            options: of the class `self.options`.
            drop_path: rate of this block.
        """
        from adapters.block import AdaptedBlock

        return AdaptedBlock(block)

    def chosen(self, blocks: Sequence[Block], options: Any) -> list[bool]:
        """Return for each block whether it is adapted."""
        return [True] * len(blocks)

    def tubelet(self, backbone: Backbone, frames: int, options: Any) -> int:
        """Frames that a patch covers: 1, as a strategy without attention over time must not see which are neighbours.

        Raises:
            ValueError: the frames or the backbone do not allow it.
        """
        return 1

    def embeds_time(self, options: Any) -> bool:
        """Return whether the tokens of each frame get a temporal embedding."""
        return False

    def body(self, backbone: Backbone, config: BodyConfig, options: Any) -> BlockwiseBody:
        import torch

        from adapters.adapter import Adapter
        from adapters.block import AdaptedBlock
        from adapters.body import BlockwiseBody

        tubelet = self.tubelet(backbone, config.frames, options)
        depth = len(backbone.blocks)
        rates = torch.linspace(0, config.drop_path, depth, device="cpu").tolist()
        picked = self.chosen(backbone.blocks, options)
        body = BlockwiseBody(
            backbone,
            (
                self.adapt(block, index, depth, config.frames // tubelet, options, rates[index])
                if picked[index]
                else AdaptedBlock(block)
                for index, block in enumerate(backbone.blocks)
            ),
            config.frames,
            tubelet=tubelet,
            temporal_embedding=self.embeds_time(options),
        )
        for module in body.blocks.modules():
            if isinstance(module, AdaptedBlock) and config.drop_path_mode == "released":
                module.drop_as_released(backbone)
            elif isinstance(module, Adapter) and config.adapter_init == "released":
                module.start_as_released()
        return body
