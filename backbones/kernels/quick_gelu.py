"""The MLP of OpenAI's CLIP, whose activation is x sigmoid(1.702 x)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.kernels.switch import is_fast

_SLOPE = 1.702


def quick_gelu_mlp(x: Tensor, up: nn.Linear, down: nn.Linear) -> Tensor:
    """down(h sigmoid(1.702 h)) with h = up(x), (..., D) -> (..., D), as silu(1.702 h) / 1.702.

    Both factors are taken into the products, so that one pass over the wide numbers is left, and one kept copy of them
    for the gradients, in place of three and two.
    """
    if not is_fast():
        hidden = up(x)
        return down(hidden * torch.sigmoid(_SLOPE * hidden))
    rows = x.flatten(0, -2)
    wide = torch.addmm(up.bias, rows, up.weight.t(), beta=_SLOPE, alpha=_SLOPE)
    narrow = torch.addmm(down.bias, F.silu(wide), down.weight.t(), alpha=1 / _SLOPE)
    return narrow.view(*x.shape[:-1], -1)
