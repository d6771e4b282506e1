"""Mixup and cutmix: every clip of a batch is mixed with its neighbour, and so are their labels.

mixup: https://arxiv.org/abs/1710.09412, x = l x_i + (1 - l) x_j; cutmix: https://arxiv.org/abs/1905.04899, a box of x_j
put into x_i, with l the share of the picture that is left of x_i; in both y = l y_i + (1 - l) y_j. One draw a batch, as
timm has it by default; where both are on, each batch gets one of them at even odds.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2


class MixupCutmix:
    """A batch, mixed. Which way and how much follows from (seed, epoch, step) alone.

    It takes the whole batch: a part of it would find other neighbours.

    Args:
        mixup, cutmix: alpha of the Beta(alpha, alpha) distribution from which l comes; 0 for off. At least one is on.
        classes: C, of the data set.
        seed: 0 or more.
    """

    def __init__(self, mixup: float, cutmix: float, classes: int, seed: int) -> None:
        if not mixup and not cutmix:
            raise ValueError("mixup and cutmix are both 0: expected one above 0")
        kinds: list[torch.nn.Module] = []
        if mixup:
            kinds.append(v2.MixUp(alpha=mixup, num_classes=classes))
        if cutmix:
            kinds.append(v2.CutMix(alpha=cutmix, num_classes=classes))
        self._mix = v2.RandomChoice(kinds)
        self._seed = seed

    def __call__(self, clips: Tensor, labels: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Clips (B, T, 3, H, W) uint8 and labels (B,) -> clips of the same shape, in bytes, and labels (B, C).

        A label's entries are shares of 0 to 1 whose sum is 1.
        """
        draw = int(np.random.default_rng((2, self._seed, epoch, step)).integers(2**63))
        mixed = torch.empty_like(clips)
        with torch.random.fork_rng(devices=[]):
            # frame by frame, each with the same draw: a whole batch as floats would take four times its memory
            for frame in range(clips.shape[1]):
                torch.default_generator.manual_seed(draw)
                pictures, shares = self._mix(clips[:, frame].float(), labels)
                mixed[:, frame] = pictures.round_()
        return mixed, shares
