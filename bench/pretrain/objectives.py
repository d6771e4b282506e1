"""Objectives that a backbone is pretrained on: the attributes of stills as labels, or their captions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.pretrain.batches import StillBatch
from bench.pretrain.captions import CONTEXT, VOCABULARY
from bench.pretrain.stills import ATTRIBUTES


def split(logits: Tensor) -> dict[str, Tensor]:
    """(B, values of all attributes) -> attribute -> (B, values)."""
    sizes = [len(words) for words in ATTRIBUTES.values()]
    return dict(zip(ATTRIBUTES, logits.split(sizes, dim=1), strict=True))


LOGITS = sum(len(words) for words in ATTRIBUTES.values())


def attribute_loss(logits: dict[str, Tensor], shown: dict[str, Tensor]) -> Tensor:
    """Sum over the attributes of the mean cross-entropy, the target spread evenly over the values that are shown.

    Stills that show no value of an attribute (the angle of a circle) do not count for it.
    """
    total = torch.zeros((), device=next(iter(logits.values())).device)
    for name, target in shown.items():
        values = target.sum(1, keepdim=True)
        has = values[:, 0] > 0
        if has.any():
            total = total + F.cross_entropy(logits[name][has], (target / values.clamp(min=1))[has])
    return total


class Attributes(nn.Module):
    """A linear classifier for each attribute (vit, swin)."""

    name = "supervised attributes"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.Linear(width, LOGITS)

    def forward(self, features: Tensor, batch: StillBatch) -> Tensor:
        return attribute_loss(split(self.heads(features)), batch.shown)


class Captions(nn.Module):
    """Image-text contrast (Radford et al., 2021) with open_clip's text tower and loss.

    The image's features are compared with the text's as they are: behind a projection of their own, what tells few
    pairs apart would stay small in them, and a linear head would find it slowly.
    """

    name = "image-text contrastive, captions"

    def __init__(self, width: int) -> None:
        super().__init__()
        from open_clip.loss import ClipLoss
        from open_clip.transformer import TextTransformer

        self.text = TextTransformer(
            context_length=CONTEXT, vocab_size=VOCABULARY, width=64, heads=4, layers=2, output_dim=width
        )
        self.scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.loss = ClipLoss()

    def forward(self, features: Tensor, batch: StillBatch) -> Tensor:
        image = F.normalize(features, dim=1)
        text = F.normalize(self.text(batch.captions), dim=1)
        loss: Tensor = self.loss(image, text, self.scale.clamp(max=4.6).exp())
        return loss
