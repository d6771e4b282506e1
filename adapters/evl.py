"""EVL (Lin et al., ECCV 2022): a decoder that reads the last blocks of a frozen image model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from adapters.base import BodyConfig, Options, Strategy, register_strategy
from adapters.lora import without_places

if TYPE_CHECKING:
    from adapters.body import Body
    from backbones.base import Backbone


class EVLOptions(Options):
    layers: int = Field(4, ge=1, le=64, description="of the decoder, one for each of the last blocks")
    decoder_dropout: float = Field(0.5, ge=0, lt=1, description="in the MLPs of the decoder")


@register_strategy
class EVL(Strategy):
    """The image model runs without gradients and keeps no activations."""

    name = "evl"
    summary = "EVL: a decoder over the last blocks of the frozen model"
    options: ClassVar[type[EVLOptions]] = EVLOptions
    order_aware = True
    any_frames = False
    gives_sequence = False
    of_field = True
    frozen_backbone = True

    def refuses(self, backbone: Backbone) -> str | None:
        if backbone.windowed:
            return "its queries and keys meet within windows alone, and those of two frames must meet over all patches"
        if not backbone.takes_tokens:
            return "its queries and keys are rotated behind the projections"
        attention = getattr(backbone.blocks[-1].module, "attn", None)
        if hasattr(attention, "lambda_q1"):
            return "each of its heads is the difference of two attentions"
        if any(type(getattr(attention, norm, None)).__name__ not in ("NoneType", "Identity") for norm in _NORMS):
            return "its queries and keys are normed behind the projections"
        return without_places(backbone, ("query", "key"))

    def body(self, backbone: Backbone, config: BodyConfig, options: Any) -> Body:
        from adapters.decoder import DecoderBody

        depth = len(backbone.blocks)
        if options.layers > depth:
            raise ValueError(f"layers is {options.layers}: the backbone has {depth} blocks, expected at most {depth}")
        return DecoderBody(backbone, config.frames, options.layers, options.decoder_dropout)


_NORMS = ("q_norm", "k_norm", "ln_q", "ln_k")
