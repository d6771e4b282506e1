"""ZeroI2V (Li and Wang, ECCV 2024): keys and values shifted in time, and linear adapters that fold away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from adapters.base import Options, register_strategy
from adapters.blockwise import BlockwiseStrategy
from adapters.lora import ROLES, without_places

if TYPE_CHECKING:
    from torch import nn

    from adapters.classifier import VideoClassifier
    from backbones.base import Backbone, Block


class ZeroI2VOptions(Options):
    ratio: float = Field(0.25, gt=0, le=4, description="width of an adapter's bottleneck / width of the block")
    scale: float = Field(0.5, ge=0, le=10, description="s of what an adapter adds")
    dropout: float = Field(0.1, ge=0, lt=1, description="inside what is added, as published")
    shifts: str = Field(
        "1,-1", description="frames back that each D / 12 channels of keys and values come from (SSv2: 1,-1,2)"
    )

    @field_validator("shifts", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        parts = [part.strip() for part in str(value).split(",")]
        if not 1 <= len(parts) <= 12 or not all(part.lstrip("-").isdigit() and len(part) < 4 for part in parts):
            raise ValueError("expected up to twelve whole numbers, such as 1,-1")
        return ",".join(parts)


@register_strategy
class ZeroI2V(BlockwiseStrategy):
    """The final norm and a temporal embedding train beside the adapters.

    In a Swin keys and values come from the same window of other frames.
    An adapter behind a matrix stands on what the matrix gives, before a layer scale, so that it folds into it.
    """

    name = "zeroi2v"
    summary = "ZeroI2V: keys and values shifted in time, linear adapters folded away for inference"
    options: ClassVar[type[ZeroI2VOptions]] = ZeroI2VOptions
    order_aware = True
    any_frames = False
    of_field = True

    def refuses(self, backbone: Backbone) -> str | None:
        return without_places(backbone, ROLES)

    def adapt(self, block: Block, index: int, depth: int, frames: int, options: Any, drop_path: float) -> nn.Module:
        from adapters.shifted import ShiftedBlock

        shifts = [int(part) for part in options.shifts.split(",")]
        return ShiftedBlock(block, shifts, max(1, int(block.width * options.ratio)), options.scale, options.dropout)

    def embeds_time(self, options: Any) -> bool:
        return True

    def trainable(self, model: VideoClassifier) -> Iterator[nn.Parameter]:
        yield from model.body.parameters()
        yield from model.backbone.final_norm.parameters()

    def merge(self, model: VideoClassifier) -> VideoClassifier:
        for block in model.body.blocks:  # type: ignore[union-attr]
            block.fold()
        return model
