"""The baselines of AIM's Table 1: no adaptation, and finetuning with and without attention over time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from adapters.base import BodyConfig, register_strategy
from adapters.blockwise import BlockwiseStrategy

if TYPE_CHECKING:
    from torch import nn

    from adapters.body import BlockwiseBody
    from adapters.classifier import VideoClassifier
    from backbones.base import Backbone, Block


@register_strategy
class Frozen(BlockwiseStrategy):
    name = "frozen"
    summary = "space-only: a linear classifier on the frozen model's features, mean over frames"
    trains = "head"
    frozen_backbone = True

    def body(self, backbone: Backbone, config: BodyConfig, options: Any) -> BlockwiseBody:
        if not self.frozen_backbone:  # of a class derived from this one, which may adapt blocks
            return super().body(backbone, config, options)
        from adapters.block import AdaptedBlock
        from adapters.body import FrozenBody

        return FrozenBody(backbone, (AdaptedBlock(block) for block in backbone.blocks), config.frames)

    def trainable(self, model: VideoClassifier) -> Iterable[nn.Parameter]:
        return ()


@register_strategy
class Full(BlockwiseStrategy):
    name = "full"
    summary = "space-only: every parameter of the image model is finetuned, no attention over time"
    trains = "all"

    def adapt(self, block: Block, index: int, depth: int, frames: int, options: Any, drop_path: float) -> nn.Module:
        from adapters.block import AdaptedBlock

        return AdaptedBlock(block, drop_path=drop_path, drops_own=True)

    def trainable(self, model: VideoClassifier) -> Iterable[nn.Parameter]:
        return [*model.backbone.parameters(), *model.body.parameters()]


@register_strategy
class TimeSformer(Full):
    name = "timesformer"
    summary = "space-time: every parameter is finetuned, with attention over time of its own in each block"
    order_aware = True
    any_frames = False

    def adapt(self, block: Block, index: int, depth: int, frames: int, options: Any, drop_path: float) -> nn.Module:
        from adapters.adapter import zero_linear
        from adapters.block import AdaptedBlock, TimeBranch

        time = TimeBranch(block, frames, after=zero_linear(block.width, block.width), copy=True)
        return AdaptedBlock(block, time=time, drop_path=drop_path, drops_own=True)

    def embeds_time(self, options: Any) -> bool:
        return True
