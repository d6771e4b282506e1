"""Places of a block's matrices, so that a strategy can update one without knowing how a library stores it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

# query, key, value and output of the attention; up and down of the MLP
Role = Literal["query", "key", "value", "output", "up", "down"]
_THIRDS = ("query", "key", "value")
_LINEAR = (nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear)


@dataclass(frozen=True)
class Projection:
    """One matrix of a block: some rows, or all, of the matrix that a module multiplies its input with.

    Attributes:
        module: called with (..., D), gives (..., rows of the whole matrix); updates are added to what it gives.
        owner, weight_name, bias_name: the module that holds the matrix (rows, D) and the bias (rows,), and their names.
        rows: of the matrix.
    """

    module: nn.Module
    owner: nn.Module
    rows: slice
    weight_name: str = "weight"
    bias_name: str = "bias"

    @property
    def weight(self) -> Tensor:
        """(D_out, D_in), a view of the whole matrix."""
        return getattr(self.owner, self.weight_name)[self.rows]

    @property
    def bias(self) -> Tensor | None:
        """(D_out,), a view; None where there is none."""
        bias = getattr(self.owner, self.bias_name)
        return None if bias is None else bias[self.rows]

    def add(self, update: nn.Module) -> None:
        """Add `update(x)` (..., D_out) to this projection of x (..., D_in), wherever the block computes it.

        The module that calls it stays the owner of the update's parameters.
        """
        self.module.register_forward_hook(_Addition(update, self.rows))

    def change(self, change: nn.Module) -> None:
        """Let `change(y)`, of y's shape, take the place of what this projection gives, y (..., D_out).

        The module that calls it stays the owner of the change's parameters.
        """
        self.module.register_forward_hook(_Change(change, self.rows))

    def take_back(self, update: nn.Module) -> None:
        """Undo `add` or `change`."""
        hooks = self.module._forward_hooks
        for number, hook in list(hooks.items()):
            if isinstance(hook, _Hook) and hook.update is update and hook.rows == self.rows:
                del hooks[number]

    def fold(self, update: nn.Module, matrix: Tensor) -> None:
        """Take back an update that was added, and add its matrix (D_out, D_in) to the weight instead."""
        self.take_back(update)
        with torch.no_grad():
            self.weight.copy_(self.weight.double() + matrix)

    @torch.no_grad()
    def fold_before(self, matrix: Tensor, shift: Tensor) -> None:
        """Compute from x what was computed from x M^T + m before: W becomes W M, b becomes b + W m.

        Args:
            matrix: M, (D_in, D_in), in float64.
            shift: m, (D_in,), in float64.
        """
        weight = self.weight.double()
        self._set(weight @ matrix, weight @ shift + self._bias_or_zero())

    @torch.no_grad()
    def fold_behind(self, matrix: Tensor, shift: Tensor) -> None:
        """Give y M^T + m in place of y: W becomes M W, b becomes M b + m.

        Args:
            matrix: M, (D_out, D_out), in float64.
            shift: m, (D_out,), in float64.
        """
        self._set(matrix @ self.weight.double(), matrix @ self._bias_or_zero() + shift)

    def _bias_or_zero(self) -> Tensor:
        bias = self.bias
        return torch.zeros((), dtype=torch.float64) if bias is None else bias.double()

    def _set(self, weight: Tensor, bias: Tensor) -> None:
        self.weight.copy_(weight)
        if self.bias is None:
            whole = getattr(self.owner, self.weight_name)
            setattr(self.owner, self.bias_name, nn.Parameter(whole.new_zeros(len(whole)), requires_grad=False))
        getattr(self.owner, self.bias_name)[self.rows].copy_(bias)


class _Hook:
    """Forward hook of a module; an object, so that a copy of the whole model calls the copy of the update."""

    def __init__(self, update: nn.Module, rows: slice) -> None:
        self.update = update
        self.rows = rows

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        raise NotImplementedError


class _Addition(_Hook):
    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        added = self.update(inputs[0])
        if added.shape == output.shape:
            return output + added
        # in place in a part of it: what follows a product never needs the product's own result for its gradient
        output[..., self.rows] += added
        return output


class _Change(_Hook):
    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self.rows == slice(None):
            return self.update(output)
        changed = self.update(output[..., self.rows])
        return torch.cat([output[..., : self.rows.start], changed, output[..., self.rows.stop :]], dim=-1)


class InProjection(nn.Module):
    """x W^T + b with the joint matrix of an nn.MultiheadAttention, which torch keeps as bare parameters.

    Args:
        attention: owner of the parameters, which this module does not hold.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self._attention = (attention,)  # in a tuple it is not registered as a part

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., 3 D)."""
        (attention,) = self._attention
        return nn.functional.linear(x, attention.in_proj_weight, attention.in_proj_bias)


def whole(linear: Any) -> Projection | None:
    """The projection that a Linear is; None of any other module."""
    return Projection(linear, linear, slice(None)) if isinstance(linear, _LINEAR) else None


def third(joint: Any, role: Role) -> Projection | None:
    """Query, key or value of a Linear that computes all three side by side; None of any other module."""
    if not isinstance(joint, _LINEAR):
        return None
    width = joint.out_features // 3
    start = _THIRDS.index(role) * width
    return Projection(joint, joint, slice(start, start + width))
