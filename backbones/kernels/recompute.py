"""Origins from which a tensor is recomputed, so that a trained product need not keep it for its gradient.

An adapter's first product keeps its input for the weight's gradient. Where that input is a norm's or a frozen product's
result, the norm's own input or the product's is kept anyway: `recompute_of` tells the adapter so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.kernels.switch import is_fast


class Recompute(NamedTuple):
    """Recomputation of x, rows of numbers.

    Attributes:
        tensors: from which it is worked out; an operation before has kept them.
        outer: of left (M, H) and such tensors: left^T x, (M, H) and (M, D) -> (H, D). It holds none of them itself, as
            whoever keeps it for a gradient would keep them from being freed.
    """

    tensors: tuple[Tensor, ...]
    outer: Callable[[Tensor, tuple[Tensor, ...]], Tensor]


def from_product(a: Tensor, weight: Tensor, bias: Tensor) -> Recompute:
    """x = a W^T + b with W and b frozen: left^T x = (left^T a) W^T + (sum of left's rows) b^T."""
    return Recompute((a.detach(), weight, bias), _outer_of_product)


def _outer_of_product(left: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
    a, weight, bias = tensors
    rows = left.t() @ a.flatten(0, -2).to(left.dtype)
    return torch.addmm(torch.outer(left.sum(0), bias.to(left.dtype)), rows, weight.to(left.dtype).t())


def from_norm(y: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Recompute:
    """x, a layer norm of y over its last axis."""
    return Recompute((y, weight, bias), partial(_outer_of_norm, eps))


def _outer_of_norm(eps: float, left: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
    y, weight, bias = tensors
    y = y if y.device.type == "cpu" else y.float()  # a CPU's kernel alone mixes half precision and float32
    again = F.layer_norm(y, y.shape[-1:], weight, bias, eps).to(left.dtype)
    return left.t() @ again.flatten(0, -2)


def remember(x: Tensor, origin: Recompute) -> Tensor:
    """The tensor, its origin noted on it. Whatever is computed from it is another tensor, without one.

    In the plain form nothing is noted, and whoever needs the tensor for a gradient keeps it.
    """
    if is_fast():
        x.origin = origin, x._version, x.shape  # type: ignore[attr-defined]
    return x


def recompute_of(x: Tensor) -> Recompute | None:
    """Return the noted recomputation; None where nothing was noted, or where x was changed in place since."""
    origin, version, shape = getattr(x, "origin", (None, None, None))
    return origin if origin is not None and (version, shape) == (x._version, x.shape) else None
