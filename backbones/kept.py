"""What a tensor can be worked out from again, so that a trained product need not keep it for its gradient.

An adapter's first product keeps its input for the weight's gradient. Where that input is a norm's or a frozen product's
result, the norm's own input or the product's is kept anyway: `origin_of` tells the adapter so.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Origin(Protocol):
    """How x, rows of numbers, came to be.

    Attributes:
        tensors: from which it is worked out; an operation before has kept them.
    """

    tensors: tuple[Tensor, ...]

    # of no instance, whose tensors whoever keeps it for a gradient would keep from being freed
    @staticmethod
    def outer(left: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
        """left^T x, (M, H) and (M, D) -> (H, D), of tensors such as `tensors`."""
        ...


class FromProduct:
    """x = a W^T + b with W and b frozen: left^T x = (left^T a) W^T + (sum of left's rows) b^T."""

    def __init__(self, a: Tensor, weight: Tensor, bias: Tensor) -> None:
        self.tensors: tuple[Tensor, ...] = (a.detach(), weight, bias)

    @staticmethod
    def outer(left: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
        a, weight, bias = tensors
        rows = left.t() @ a.flatten(0, -2).to(left.dtype)
        return torch.addmm(torch.outer(left.sum(0), bias.to(left.dtype)), rows, weight.to(left.dtype).t())


class FromNorm:
    """x = (y - mean) rstd w + b, a layer norm of y."""

    def __init__(self, y: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor) -> None:
        self.tensors: tuple[Tensor, ...] = (y, mean, rstd, weight, bias)

    @staticmethod
    def outer(left: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
        y, mean, rstd, weight, bias = tensors
        again = ((y - mean) * rstd * weight + bias).to(left.dtype)
        return left.t() @ again.flatten(0, -2)


def remember(x: Tensor, origin: Origin) -> Tensor:
    """The tensor, its origin noted on it. Whatever is computed from it is another tensor, without one."""
    x.origin = origin, x._version, x.shape  # type: ignore[attr-defined]
    return x


def origin_of(x: Tensor) -> Origin | None:
    """What was noted; None where nothing was, or where x was changed in place since."""
    origin, version, shape = getattr(x, "origin", (None, None, None))
    return origin if origin is not None and (version, shape) == (x._version, x.shape) else None
