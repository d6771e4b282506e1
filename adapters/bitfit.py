"""BitFit (Ben Zaken et al., ACL 2022): the biases of the image model train, and nothing is added."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from adapters.base import register_strategy
from adapters.blockwise import BlockwiseStrategy

if TYPE_CHECKING:
    from torch import nn

    from adapters.classifier import VideoClassifier

# the names under which torch's and timm's modules keep what they add after a product or a norm
_BIASES = ("bias", "in_proj_bias", "q_bias", "v_bias")


@register_strategy
class BitFit(BlockwiseStrategy):
    """Of ViT-B/16: 11 D L of the blocks, D each of the patches, of the final norm and of CLIP's first norm."""

    name = "bitfit"
    summary = "BitFit: every bias of the image model trains, nothing is added"
    of_field = True

    def trainable(self, model: VideoClassifier) -> Iterator[nn.Parameter]:
        for module in model.backbone.modules():
            own = dict(module.named_parameters(recurse=False))
            yield from (own[name] for name in _BIASES if name in own)
