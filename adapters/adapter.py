"""The bottleneck that AIM adds to a frozen block."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Adapter(nn.Module):
    """x -> [x +] up(GELU(down(x))), D -> ratio * D -> D (AIM, section 3.2).

    `up` starts at zero, weight and bias: with the skip the adapter starts as the identity, without it as zero.

    Args:
        width: D.
        ratio: of the bottleneck to D; at least one unit is kept.
        skip: whether x itself is added.
    """

    def __init__(self, width: int, ratio: float = 0.25, *, skip: bool) -> None:
        super().__init__()
        hidden = max(1, int(width * ratio))
        self.skip = skip
        self.down = nn.Linear(width, hidden)
        self.up = zero_linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        out = self.up(F.gelu(self.down(x)))
        return x + out if self.skip else out


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A Linear that starts at zero, weight and bias."""
    linear = nn.Linear(inputs, outputs)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016): a residual branch is dropped for whole clips, the others are scaled up.

    The clip is the sample here: dropping single frames of a branch that mixes frames would tear the clip apart.

    Args:
        rate: probability that a clip's branch is dropped.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """x (B*T, ..., D) with T = frames."""
        if not self.training or self.rate == 0.0:
            return x
        keep = torch.empty(len(x) // frames, device=x.device, dtype=x.dtype).bernoulli_(1 - self.rate)
        keep = keep.repeat_interleave(frames).view(-1, *(1 for _ in x.shape[1:]))
        return x * keep / (1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
