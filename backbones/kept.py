"""What a tensor can be worked out from again, so that a trained product need not keep it for its gradient.

An adapter's first product keeps its input for the weight's gradient. Where that input is a norm's or a frozen product's
result, the norm's own input or the product's is kept anyway: `origin_of` tells the adapter so.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Origin(Protocol):
    """How x, rows of numbers, came to be.

    Attributes:
        tensors: from which it is worked out; an operation before has kept them.
    """

    tensors: tuple[Tensor, ...]

    def outer(self, left: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
        """left^T x, (M, H) and (M, D) -> (H, D), of tensors such as `self.tensors`."""
        ...


class FromProduct:
    """x = a W^T + b with W and b frozen: left^T x = (left^T a) W^T + (sum of left's rows) b^T."""

    def __init__(self, a: Tensor, weight: Tensor, bias: Tensor) -> None:
        self.tensors: tuple[Tensor, ...] = (a.detach(), weight, bias)

    def outer(self, left: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
        a, weight, bias = tensors
        rows = left.t() @ a.flatten(0, -2).to(left.dtype)
        return torch.addmm(torch.outer(left.sum(0), bias.to(left.dtype)), rows, weight.to(left.dtype).t())


class FromNorm:
    """x, a layer norm of y over its last axis."""

    def __init__(self, y: Tensor, weight: Tensor, bias: Tensor, eps: float) -> None:
        self.tensors: tuple[Tensor, ...] = (y, weight, bias)
        self.eps = eps

    def outer(self, left: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
        y, weight, bias = tensors
        y = y if y.device.type == "cpu" else y.float()  # a CPU's kernel alone mixes half precision and float32
        again = F.layer_norm(y, y.shape[-1:], weight, bias, self.eps).to(left.dtype)
        return left.t() @ again.flatten(0, -2)


def remember(x: Tensor, origin: Origin) -> Tensor:
    """The tensor, its origin noted on it. Whatever is computed from it is another tensor, without one."""
    x.origin = origin  # type: ignore[attr-defined]
    return x


def origin_of(x: Tensor) -> Origin | None:
    return getattr(x, "origin", None)
