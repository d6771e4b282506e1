"""Swin's attention in windows and its patch merging, written from its equations (Liu et al., 2021, sections 3.1, 3.2).

One frame at a time, on plain tensors: x (H, W, D).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.reference.aim_block import Affine, Weights, attention, norm


def position_bias(table: Tensor, side: int) -> Tensor:
    """Table ((2 side - 1)^2, heads), a row for each distance of two tokens -> (heads, side^2, side^2)."""
    places = [(h, w) for h in range(side) for w in range(side)]
    rows = [[(h - k + side - 1) * (2 * side - 1) + w - v + side - 1 for k, v in places] for h, w in places]
    return torch.stack([torch.stack([table[row] for row in line]) for line in rows]).permute(2, 0, 1)


def windowed(x: Tensor, of: Weights, table: Tensor, side: int, shift: int) -> Tensor:
    """Tokens of a window see each other; in a shifted one, only those that lay side by side before the shift."""
    height, width, _ = x.shape
    moved = torch.roll(x, (-shift, -shift), (0, 1))
    out = torch.empty_like(moved)
    bias = position_bias(table, side)
    for top in range(0, height, side):
        for left in range(0, width, side):
            places = [(h, w) for h in range(top, top + side) for w in range(left, left + side)]
            # what was rolled in from the other border belongs to another part of the picture
            part = torch.tensor([2 * (h >= height - shift) + (w >= width - shift) for h, w in places])
            apart = (part[:, None] != part[None, :]) & (shift > 0)
            seen = attention(torch.stack([moved[h, w] for h, w in places]), of, bias.masked_fill(apart, -float("inf")))
            for token, (h, w) in zip(seen, places, strict=True):
                out[h, w] = token
    return torch.roll(out, (shift, shift), (0, 1))


def merged(x: Tensor, of: Affine, reduction: Tensor) -> Tensor:
    """Each 2 x 2 tokens side by side, down the columns first, normed, then a Linear without bias: (H/2, W/2, 2 D)."""
    rows = [
        [torch.cat([x[h, w], x[h + 1, w], x[h, w + 1], x[h + 1, w + 1]]) for w in range(0, x.shape[1], 2)]
        for h in range(0, x.shape[0], 2)
    ]
    return norm(torch.stack([torch.stack(row) for row in rows]), of) @ reduction.T
