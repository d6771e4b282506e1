"""Swin's attention in windows and its patch merging, written from its equations (Liu et al., 2021, sections 3.1, 3.2).

On plain tensors; sides of a window and of its shift are (rows, columns).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tests.reference.aim_block import Affine, Weights, attention, norm

Pair = tuple[int, int]


def position_bias(table: Tensor, sides: Pair) -> Tensor:
    """Table ((2 rows - 1) (2 columns - 1), heads), a row for each distance of two tokens -> (heads, n, n)."""
    rows, columns = sides
    places = [(h, w) for h in range(rows) for w in range(columns)]
    at = [[(h - k + rows - 1) * (2 * columns - 1) + w - v + columns - 1 for k, v in places] for h, w in places]
    return torch.stack([torch.stack([table[row] for row in line]) for line in at]).permute(2, 0, 1)


def by_frame(x: Tensor, of: Weights, bias: Tensor) -> Tensor:
    """Attention in the same window of every frame, (T, n, D)."""
    return torch.stack([attention(tokens, of, bias) for tokens in x])


def windowed(
    x: Tensor,
    of: Weights,
    table: Tensor,
    sides: Pair,
    shift: Pair,
    attend: Callable[[Tensor, Weights, Tensor], Tensor] = by_frame,
) -> Tensor:
    """(T, H, W, D): tokens of a frame's window see each other; in a shifted one, those that were neighbours before."""
    _, height, width, _ = x.shape
    rows, columns = sides
    down, right = shift
    bias = position_bias(table, sides)
    found: list[dict[Pair, Tensor]] = [{} for _ in x]
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            moved = [(h + down, w + right) for h in range(top, top + rows) for w in range(left, left + columns)]
            # what comes in from the other border belongs to another part of the picture
            part = torch.tensor([2 * (h >= height) + (w >= width) for h, w in moved])
            hidden = bias.masked_fill(part[:, None] != part[None, :], -float("inf"))
            places = [(h % height, w % width) for h, w in moved]
            tokens = torch.stack([x[:, h, w] for h, w in places], dim=1)
            for attended, seen in zip(attend(tokens, of, hidden), found, strict=True):
                seen.update(zip(places, attended, strict=True))
    return torch.stack(
        [torch.stack([seen[h, w] for h in range(height) for w in range(width)]).view(x.shape[1:]) for seen in found]
    )


def merged(x: Tensor, of: Affine, reduction: Tensor) -> Tensor:
    """Each 2 x 2 tokens of (H, W, D) side by side, down the columns first, normed, then a Linear without bias:
    (H/2, W/2, 2 D)."""
    rows = [
        [torch.cat([x[h, w], x[h + 1, w], x[h, w + 1], x[h + 1, w + 1]]) for w in range(0, x.shape[1], 2)]
        for h in range(0, x.shape[0], 2)
    ]
    return norm(torch.stack([torch.stack(row) for row in rows]), of) @ reduction.T
