"""The bottleneck that AIM adds to a frozen block."""

from __future__ import annotations

from torch import Tensor, nn

from backbones.base import Axis
from backbones.kernels.mlp import bottleneck


class Adapter(nn.Module):
    """x -> [x +] up(GELU(down(x))), D -> ratio * D -> D (AIM, section 3.2).

    `up` starts at zero, weight and bias: with the skip the adapter starts as the identity, without it as zero. `down`
    starts as any `nn.Linear` until `start_as_released`.

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

    def start_as_released(self) -> None:
        """Start `down` as AIM's released code does: a truncated normal of standard deviation 0.02, bias zero."""
        nn.init.trunc_normal_(self.down.weight, std=0.02)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        out = bottleneck(x, self.down, self.up)
        return x + out if self.skip else out


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A Linear that starts at zero, weight and bias."""
    linear = nn.Linear(inputs, outputs)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016): a residual branch is dropped at random, where it is kept it is scaled up.

    A sample of the paper is a clip here: dropping single frames of a branch that mixes frames would tear the clip
    apart. AIM's released code drops along other axes, see `Backbone.drop_axes`.

    Args:
        rate: probability that a branch is dropped.
        axes: those along which chance decides anew; along the others all share a draw.
    """

    def __init__(self, rate: float = 0.0, axes: tuple[Axis, ...] = ("clip",)) -> None:
        super().__init__()
        self.rate = rate
        self.axes = axes

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """x (B*T, ..., D) with T = frames; the axes between are the positions."""
        if not self.training or self.rate == 0.0:
            return x
        clips = x.unflatten(0, (-1, frames))
        of_axis = {"clip": clips.shape[:1], "frame": clips.shape[1:2], "position": clips.shape[2:-1]}
        shape = [size if axis in self.axes else 1 for axis, sizes in of_axis.items() for size in sizes]
        keep = x.new_empty(*shape, 1).bernoulli_(1 - self.rate) / (1 - self.rate)
        return (clips * keep).flatten(0, 1)

    def extra_repr(self) -> str:
        return f"rate={self.rate}, axes={self.axes}"
