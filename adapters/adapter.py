"""The bottleneck that AIM adds to a frozen block."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from backbones.base import Axis
from backbones.kernels.precision import of_products
from backbones.kernels.recompute import Recompute, recompute_of


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
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # a compiler chooses what it keeps
            out = _Bottleneck.apply(
                x, self.down.weight, self.down.bias, self.up.weight, self.up.bias, recompute_of(x), of_products(x)
            )
        else:
            out = self.up(F.gelu(self.down(x)))
        return x + out if self.skip else out


class _Bottleneck(torch.autograd.Function):
    """up(GELU(down(x))), which keeps for its gradients the bottleneck before the GELU, and x where that has no origin.

    Left to themselves the operations keep the bottleneck after the GELU as well, and x in any case.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, down: Tensor, down_bias: Tensor, up: Tensor, up_bias: Tensor, origin: Recompute | None,
        dtype: torch.dtype,
    ) -> Tensor:  # fmt: skip
        x, down, up = x.to(dtype), down.to(dtype), up.to(dtype)
        hidden = F.linear(x, down, down_bias.to(dtype))
        ctx.outer = None if origin is None else origin.outer
        ctx.save_for_backward(hidden, down, up, *((x,) if origin is None else origin.tensors))
        return F.linear(F.gelu(hidden), up, up_bias.to(dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, down, up, *source = ctx.saved_tensors
        rows, narrow = gradient.flatten(0, -2), hidden.flatten(0, -2)
        of_up = rows.t() @ F.gelu(narrow)
        of_narrow = torch.ops.aten.gelu_backward(rows @ up, narrow)
        of_down = ctx.outer(of_narrow, tuple(source)) if ctx.outer else of_narrow.t() @ source[0].flatten(0, -2)
        of_x = (of_narrow @ down).view(*hidden.shape[:-1], -1) if ctx.needs_input_grad[0] else None
        return of_x, of_down, of_narrow.sum(0), of_up, rows.sum(0), None, None


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
