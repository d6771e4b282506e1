"""Two products with an activation between them: an adapter's bottleneck, and the MLP of OpenAI's CLIP."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from backbones.kernels.precision import of_products
from backbones.kernels.recompute import Recompute, recompute_of
from backbones.kernels.switch import is_fast

_SLOPE = 1.702  # of QuickGELU, x sigmoid(1.702 x)


def bottleneck(x: Tensor, down: nn.Linear, up: nn.Linear) -> Tensor:
    """up(GELU(down(x))), (..., D) -> (..., D')."""
    # without gradients nothing is kept, and a compiler chooses what it keeps
    if is_fast() and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _Bottleneck.apply(x, down.weight, down.bias, up.weight, up.bias, recompute_of(x), of_products(x))
    return up(F.gelu(down(x)))


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
