"""Batches of stills with what they show, as numbers; every batch is drawn from (seed, index) alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.data.transforms import TestTransform
from bench.pretrain.captions import caption, tokenise
from bench.pretrain.stills import ATTRIBUTES, Still, draw_still


@dataclass(frozen=True)
class StillBatch:
    """B stills.

    Attributes:
        pictures: uint8 (B, 3, S, S).
        shown: attribute -> float (B, values): 1 for each value that some shape of the still has.
        captions: int64 (B, CONTEXT).
    """

    pictures: Tensor
    shown: dict[str, Tensor]
    captions: Tensor


def attributes_of(stills: list[Still]) -> dict[str, Tensor]:
    """Attribute -> float (B, values): 1 for each value that some shape of the still has; no row of `count` is empty."""
    shown = {name: torch.zeros(len(stills), len(words)) for name, words in ATTRIBUTES.items()}
    for row, still in enumerate(stills):
        shown["count"][row, len(still.shapes)] = 1
        for shape in still.shapes:
            for name, value in shape.values.items():
                shown[name][row, value] = 1
    return shown


class StillBatches(Dataset[StillBatch]):
    """`count` batches of `size` stills.

    Args:
        stream: a number that keeps training ("0") and held-out stills apart.
        side: S, of the backbone's input.
    """

    def __init__(self, count: int, size: int, side: int, seed: int, stream: int) -> None:
        self.count, self.size, self.seed, self.stream = count, size, seed, stream
        # what a test does to the frames of a clip: resize to the backbone's side
        self.resize = TestTransform(side)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> StillBatch:
        rng = np.random.default_rng((self.stream, self.seed, index))
        stills = [draw_still(rng) for _ in range(self.size)]
        pictures = torch.from_numpy(np.stack([still.picture for still in stills])).permute(0, 3, 1, 2)
        texts = tokenise([caption(still, rng) for still in stills])
        return StillBatch(self.resize(pictures)[0], attributes_of(stills), texts)

    def drawn(self, processes: int) -> Iterator[StillBatch]:
        """The batches in order, drawn ahead by `processes` processes beside this one (0: none)."""
        return iter(DataLoader(self, batch_size=None, num_workers=processes))
