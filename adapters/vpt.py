"""VPT (Jia et al., ECCV 2022): learned tokens among those of a frozen model."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from adapters.base import BodyConfig, Options, register_strategy
from adapters.blockwise import BlockwiseStrategy

if TYPE_CHECKING:
    from adapters.body import BlockwiseBody
    from backbones.base import Backbone


class VPTOptions(Options):
    tokens: int = Field(50, ge=1, le=1024, description="p, learned tokens of a frame")
    deep: bool = Field(True, description="p of its own for every block; else p before the first block")
    dropout: float = Field(0.1, ge=0, lt=1, description="inside what is added, as published")


@register_strategy
class VPT(BlockwiseStrategy):
    """Learned tokens behind CLS, the same in every frame; deep ones replace those of the block before (section 3.2).

    They start uniform in +-sqrt(6 / (3 P^2 + D)), P the side of a patch.
    """

    name = "vpt"
    summary = "VPT: learned tokens in every block, or before the first"
    options: ClassVar[type[VPTOptions]] = VPTOptions
    of_field = True

    def refuses(self, backbone: Backbone) -> str | None:
        if backbone.windowed:
            return "its windows have no place for tokens beside a frame's own"
        return None if backbone.takes_tokens else "its rotary positions have none for tokens beside a frame's own"

    def body(self, backbone: Backbone, config: BodyConfig, options: Any) -> BlockwiseBody:
        import torch

        from adapters.block import AdaptedBlock
        from adapters.body import BlockwiseBody
        from adapters.prompts import PromptedBlock, ShallowPromptBody

        side = backbone.patch_side
        width = backbone.blocks[0].width
        bound = sqrt(6 / (3 * side * side + width))

        def prompts() -> torch.Tensor:
            return torch.empty(options.tokens, width).uniform_(-bound, bound)

        prefix = backbone.prefix_tokens
        if not options.deep:
            blocks = [AdaptedBlock(block) for block in backbone.blocks]
            return ShallowPromptBody(backbone, blocks, config.frames, prompts=prompts(), prefix=prefix)
        deep = [PromptedBlock(block, prompts(), prefix, options.dropout) for block in backbone.blocks]
        return BlockwiseBody(backbone, deep, config.frames)
