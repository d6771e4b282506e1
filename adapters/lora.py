"""LoRA (Hu et al., ICLR 2022): a low-rank update of frozen projections, which folds into them after training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from adapters.base import Options, register_strategy
from adapters.blockwise import BlockwiseStrategy
from backbones.registry import did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from adapters.classifier import VideoClassifier
    from backbones.base import Backbone, Block

ROLES = ("query", "key", "value", "output", "up", "down")


class LoRAOptions(Options):
    rank: int = Field(
        16, ge=1, le=1024, description="r of the update B A", json_schema_extra={"search": [4, 8, 16, 32]}
    )
    alpha: float = Field(16.0, gt=0, le=4096, description="alpha / r scales the update")
    projections: str = Field(
        "query,value", description="updated matrices: a comma list of query, key, value, output, up and down"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="inside what is added, as published")

    @field_validator("projections")
    @classmethod
    def _known(cls, text: str) -> str:
        roles = [part.strip() for part in text.split(",")]
        for role in roles:
            if role not in ROLES:
                raise ValueError(f"expected a comma list of {', '.join(ROLES)}{did_you_mean(role, ROLES)}")
        return ",".join(role for role in ROLES if role in roles)

    @property
    def roles(self) -> tuple[Any, ...]:
        """The projections, in the order of a block's computation."""
        return tuple(self.projections.split(","))


@register_strategy
class LoRA(BlockwiseStrategy):
    """W x + (alpha / r) B A x (section 4.1)."""

    name = "lora"
    summary = "LoRA: a low-rank update of frozen projections, folded into them for inference"
    options: ClassVar[type[LoRAOptions]] = LoRAOptions
    of_field = True

    def refuses(self, backbone: Backbone) -> str | None:
        return without_places(backbone, self.options().roles)

    def adapt(self, block: Block, index: int, depth: int, frames: int, options: Any, drop_path: float) -> nn.Module:
        from adapters.low_rank import LowRankBlock

        return LowRankBlock(block, options.roles, options.rank, options.alpha, options.dropout)

    def merge(self, model: VideoClassifier) -> VideoClassifier:
        for block in model.body.blocks:  # type: ignore[union-attr]
            block.fold()
        return model


def without_places(backbone: Backbone, roles: tuple[Any, ...]) -> str | None:
    """Return a sentence on the projections that no module of a backbone's blocks computes by itself; None without."""
    lacking = [role for role in roles if any(block.linear(role) is None for block in backbone.blocks)]
    return f"no module of its own computes the {' and '.join(lacking)} projections of its blocks" if lacking else None
