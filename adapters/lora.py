"""LoRA (Hu et al., ICLR 2022): a low-rank update of frozen projections, which folds into them after training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from adapters.base import Options, register_strategy
from adapters.blockwise import BlockwiseStrategy

if TYPE_CHECKING:
    from torch import nn

    from adapters.classifier import VideoClassifier
    from backbones.base import Backbone, Block

Role = Literal["query", "key", "value", "output", "up", "down"]


class LoRAOptions(Options):
    rank: int = Field(16, ge=1, le=1024, description="r of the update B A")
    alpha: float = Field(16.0, gt=0, le=4096, description="the update is scaled by alpha / r")
    projections: tuple[Role, ...] = Field(
        ("query", "value"), min_length=1, description="updated matrices: query, key, value, output, up, down"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="of the update's input")

    @field_validator("projections", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


@register_strategy
class LoRA(BlockwiseStrategy):
    """W x + (alpha / r) B A x (section 4.1): A as torch starts a Linear (Kaiming uniform), B zero."""

    name = "lora"
    summary = "a low-rank update of frozen projections, folded into them at inference (Hu et al., 2022)"
    options: ClassVar[type[LoRAOptions]] = LoRAOptions

    def refuses(self, backbone: Backbone) -> str | None:
        lacking = [role for role in self.options().projections if backbone.blocks[0].linear(role) is None]
        if not lacking:
            return None
        return f"no module of its own computes the {' and '.join(lacking)} projections of its blocks"

    def adapt(self, block: Block, index: int, depth: int, frames: int, options: Any, drop_path: float) -> nn.Module:
        from adapters.low_rank import LowRankBlock

        return LowRankBlock(block, options.projections, options.rank, options.alpha, options.dropout)

    def merge(self, model: VideoClassifier) -> VideoClassifier:
        for block in model.body.blocks:
            block.fold()
        return model
